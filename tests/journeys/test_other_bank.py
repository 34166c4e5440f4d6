"""partner_bank and the simulated other bank as two applications over real HTTP and a real PostgreSQL.

The services beside partner_bank are in memory and served over the same calls between services.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from payflow.contracts.account import Account, GetAccount, ListEntries, NewAccount, NewCustomer, VerifyLedger
from payflow.contracts.agents import DEMO_AGENTS, AgentDirectory, read_agents
from payflow.contracts.confirm import Confirm
from payflow.contracts.ofac import Ofac
from payflow.contracts.partner_bank import BankStatus, PartnerBank, SubmissionStatus, SubmitCreditTransfer
from payflow.platform.clock import SystemClock
from payflow.platform.crypto import ensure_column_keys
from payflow.platform.ids import UuidV7
from payflow.platform.process import running
from payflow.platform.rpc import RpcClients, in_process
from payflow.platform.rpc.identity import Signer, ensure_keys
from payflow.platform.service import Runtime, Service
from payflow.services.account.api import AccountApi
from payflow.services.account.directory import ConfiguredBanks
from payflow.services.partner_bank import app as partner_bank_app
from payflow.services.partner_bank.domain import uetr_of
from payflow.services.partner_bank.rails.iso20022 import (
    CreditTransfer,
    CreditTransferMessage,
    Header,
    StatusMessage,
    build_credit_transfers,
    read_message,
)
from payflow.services.partner_bank.rails.signing import BANK_HEADER, SIGNATURE_HEADER, sign
from payflow_dev.other_bank import app as other_bank_app
from tests.builders import new_id
from tests.conftest import role_url
from tests.fakes import FakeAccountStore
from tests.fakes_partner_bank import InMemoryConfirm, InMemoryOfac
from tests.support.serving import free_socket, serving

ERIKA = "DE08990100100000001001"
JEAN = "FR7699002000010000000200107"
SECRET = partner_bank_app.DEMO_SECRET
XML = {"content-type": "application/xml"}

Build = Callable[[Runtime], Awaitable[Service]]


class Town:
    """All processes of the test, each startable and stoppable on a port of its own."""

    def __init__(self, *, folder: Path, database_urls: dict[str, str]) -> None:
        self.ofac = InMemoryOfac()
        self.confirm = InMemoryConfirm()
        account_api = AccountApi(
            store=FakeAccountStore(),
            banks=ConfiguredBanks(AgentDirectory(read_agents(DEMO_AGENTS))),
            clock=SystemClock(),
            ids=UuidV7(),
        )
        self.operator: Account = in_process(Account, account_api, caller="cli")
        self.gateway: Account = in_process(Account, account_api, caller="gateway")
        self._builds: dict[str, Build] = {
            "account": _serves(Account, account_api),
            "ofac": _serves(Ofac, self.ofac),
            "confirm": _serves(Confirm, self.confirm),
            "partner_bank": partner_bank_app.build,
            "other_bank": other_bank_app.build,
        }
        self._ports: dict[str, int] = {}
        self._sockets = {name: free_socket() for name in self._builds}
        for name, bound in self._sockets.items():
            self._ports[name] = bound.getsockname()[1]
        self._folder = folder
        self._database_urls = database_urls
        self._running: dict[str, AsyncExitStack] = {}
        self.session = aiohttp.ClientSession()
        signer = Signer.load(service="confirm", directory=folder / "keys")
        self._clients = RpcClients(signer=signer, queue_max=10_000)
        self.partner_bank = self._clients.connect(PartnerBank, self.url("partner_bank"))

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports[name]}"

    async def start(self, name: str) -> None:
        stack = AsyncExitStack()
        environ = {
            "PAYFLOW_POSTGRES_URL": self._database_urls.get(name, ""),
            "PAYFLOW_SERVICE_KEYS_DIR": str(self._folder / "keys"),
            "PAYFLOW_COLUMN_KEYS_FILE": str(self._folder / "column_keys.json"),
            "PAYFLOW_BANK_TIMEOUT_S": "0.5",
            "PAYFLOW_BANK_PAUSE_FIRST_S": "0.1",
            "PAYFLOW_BANK_PAUSE_LONGEST_S": "0.4",
            "PAYFLOW_BANK_ANSWER_REPEAT_S": "0.3",
            "PAYFLOW_BANK_DUTY_PAUSE_S": "0.05",
            "PAYFLOW_OTHER_BANK_ASK_AGAIN_S": "0.2",
            **{f"PAYFLOW_{other.upper()}_URL": self.url(other) for other in self._builds},
        }
        runtime = Runtime(service=name, instance=name, environ=environ)
        app = await stack.enter_async_context(running(runtime, self._builds[name]))
        bound = self._sockets.pop(name, None) or free_socket(self._ports[name])
        await stack.enter_async_context(serving(app, bound=bound, drain_s=0.2))
        self._running[name] = stack

    async def stop(self, name: str) -> None:
        await self._running.pop(name).aclose()

    async def close(self) -> None:
        for name in list(self._running):
            await self.stop(name)
        await self._clients.close()
        await self.session.close()

    async def control(self, **told: Any) -> None:
        async with self.session.put(f"{self.url('other_bank')}/control", json=told) as response:
            assert response.status == 200, await response.text()

    async def books(self, end_to_end_id: str) -> dict[str, Any]:
        query = {"end_to_end_id": end_to_end_id}
        async with self.session.get(f"{self.url('other_bank')}/books", params=query) as response:
            books: dict[str, Any] = await response.json()
            return books

    async def balance(self, number: str, currency: str = "EUR") -> int:
        books = await self.books("")
        (row,) = [row for row in books["accounts"] if (row["number"], row["currency"]) == (number, currency)]
        return int(row["amount_minor"])

    async def submit(self, command: SubmitCreditTransfer) -> tuple[BankStatus, str | None]:
        (answer,) = await self.partner_bank.submit([command])
        assert isinstance(answer, SubmissionStatus), answer
        return answer.status, answer.reason_code

    async def told(self, payment_id: UUID) -> tuple[bool, str | None]:
        """What confirm is told of a payment, at once or within ten seconds."""
        async with asyncio.timeout(10):
            while True:
                for answer in self.confirm.told:
                    if answer.payment_id == payment_id:
                        return answer.is_accepted, answer.reason_code
                await asyncio.sleep(0.02)

    async def pay(self, to_account: str, **more: Any) -> dict[str, Any]:
        body = {"to_account": to_account, "amount": "25.00", "currency": "EUR", **more}
        async with self.session.post(f"{self.url('other_bank')}/pay", json=body) as response:
            assert response.status == 200, await response.text()
            answer: dict[str, Any] = await response.json()
            return answer

    async def answered(self, end_to_end_id: str) -> dict[str, Any]:
        """A payment of the other bank's, once it has its final answer."""
        async with asyncio.timeout(20):
            while True:
                (paid,) = (await self.books(end_to_end_id))["paid"]
                if paid["status"] != "UNKNOWN":
                    return dict(paid)
                await asyncio.sleep(0.05)

    async def account(self) -> str:
        customer_id, number = f"cust_{new_id().hex}", f"A{new_id().hex[-20:]}"
        await self.gateway.create_customers([NewCustomer(customer_id=customer_id, name="Ada Byron")])
        await self.gateway.create_accounts([NewAccount(number=number, customer_id=customer_id, currency="EUR")])
        return number

    async def posted(self, number: str) -> int:
        (view,) = await self.gateway.get_accounts([GetAccount(number=number)])
        return view.posted_minor  # type: ignore[union-attr]


def _serves(contract: type[Any], implementation: object) -> Build:
    async def build(runtime: Runtime) -> Service:
        return Service(implementations=[(contract, implementation)])

    return build


@pytest.fixture(scope="module")
async def started_town(
    tmp_path_factory: pytest.TempPathFactory, database_url: str, password_files: dict[str, Path]
) -> AsyncIterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    ensure_keys(folder / "keys", ["account", "ofac", "confirm", "partner_bank", "other_bank", "gateway"])
    ensure_column_keys(folder / "column_keys.json")
    urls = {name: role_url(database_url, name, password_files) for name in ("partner_bank", "other_bank")}
    town = Town(folder=folder, database_urls=urls)
    for name in ("account", "ofac", "confirm", "partner_bank", "other_bank"):
        await town.start(name)
    yield town
    await town.close()


@pytest.fixture
async def town(started_town: Town) -> Town:
    await started_town.control(mode="accept")
    started_town.ofac.listed = set()
    started_town.ofac.failure = None
    return started_town


def a_payment(*, to_account: str = ERIKA, agent: str = "NORDDEFFXXX", amount_minor: int = 1050) -> SubmitCreditTransfer:
    payment_id = new_id()
    return SubmitCreditTransfer(
        payment_id=payment_id,
        fencing_token=1,
        end_to_end_id=payment_id.hex,
        amount_minor=amount_minor,
        currency="EUR",
        debtor_name="Ada Byron & Söhne <GmbH>",
        debtor_account="ACC001",
        creditor_name=None,
        creditor_account=to_account,
        creditor_agent=agent,
        remittance_information="Invoice 7 <paid> & closed",
    )


async def test_an_accepted_payment_is_in_the_other_banks_books_to_the_cent(town: Town) -> None:
    before = await town.balance(JEAN)
    payment = a_payment(to_account=JEAN, agent="LUTEFRPPXXX", amount_minor=1050)

    answer = await town.submit(payment)

    (received,) = (await town.books(payment.end_to_end_id))["received"]
    assert answer == (BankStatus.ACCEPTED, None)
    assert (received["status"], received["amount"], received["currency"]) == ("ACCEPTED", "10.50", "EUR")
    assert received["debtor_name"] == "Ada Byron & Söhne <GmbH>"
    assert await town.balance(JEAN) == before + 1050


async def test_a_rejected_payment_moves_nothing_at_the_other_bank(town: Town) -> None:
    before = await town.balance(ERIKA)
    await town.control(mode="reject", reason_code="AC06")

    answer = await town.submit(a_payment())

    assert answer == (BankStatus.REJECTED, "AC06")
    assert await town.balance(ERIKA) == before


async def test_an_account_that_the_other_bank_does_not_have_is_refused_by_it(town: Town) -> None:
    answers = [
        await town.submit(a_payment(to_account="DE51990100100000001003")),
        await town.submit(a_payment(to_account=JEAN, agent="NORDDEFFXXX")),
    ]

    assert answers == [(BankStatus.REJECTED, "AC01")] * 2


async def test_an_answer_within_the_wait_is_waited_for(town: Town) -> None:
    await town.control(mode="delay", delay_ms=150)

    answer = await town.submit(a_payment())

    assert answer == (BankStatus.ACCEPTED, None)


@pytest.mark.parametrize(
    "told",
    [
        {"mode": "delay", "delay_ms": 5000},
        {"mode": "silent_before"},
        {"mode": "silent_after"},
        {"mode": "pending"},
        {"mode": "cut_off"},
        {"mode": "garbage"},
        {"mode": "error"},
    ],
    ids=lambda told: told["mode"],
)
async def test_without_a_clear_word_the_payment_is_unknown_until_the_bank_gives_one(
    town: Town, told: dict[str, Any]
) -> None:
    before = await town.balance(ERIKA)
    await town.control(answers_enquiries=False, **told)
    payment = a_payment()
    started = asyncio.get_running_loop().time()

    first = await town.submit(payment)
    waited_s = asyncio.get_running_loop().time() - started
    await town.control(mode="accept")
    answer = await town.told(payment.payment_id)

    (received,) = (await town.books(payment.end_to_end_id))["received"]
    assert first == (BankStatus.UNKNOWN, None)
    assert waited_s < 1.5
    assert answer == (True, None)
    assert received["status"] == "ACCEPTED"
    assert await town.balance(ERIKA) == before + payment.amount_minor
    assert await town.submit(payment) == (BankStatus.ACCEPTED, None)


async def test_a_late_refusal_reaches_confirm_too(town: Town) -> None:
    await town.control(mode="pending", answers_enquiries=False)
    payment = a_payment()
    await town.submit(payment)

    await town.control(mode="reject", reason_code="AC04")

    assert await town.told(payment.payment_id) == (False, "AC04")


async def test_a_silent_payment_does_not_silence_its_neighbours_in_the_message(town: Town) -> None:
    silent, answered = a_payment(), a_payment()
    await town.control(end_to_end_ids={silent.end_to_end_id: {"mode": "silent_before"}})

    answers = await town.partner_bank.submit([silent, answered])
    await town.control(mode="accept")

    assert [answer.status for answer in answers] == [BankStatus.UNKNOWN, BankStatus.ACCEPTED]  # type: ignore[union-attr]
    assert await town.told(silent.payment_id) == (True, None)


async def test_a_bank_that_is_down_and_comes_back_gets_the_payment_once_and_kept_its_books(town: Town) -> None:
    known = a_payment()
    await town.submit(known)
    before = await town.balance(ERIKA)
    await town.stop("other_bank")
    payment = a_payment()

    first = await town.submit(payment)
    await town.start("other_bank")
    answer = await town.told(payment.payment_id)

    assert first == (BankStatus.UNKNOWN, None)
    assert answer == (True, None)
    assert (await town.books(known.end_to_end_id))["received"][0]["status"] == "ACCEPTED"
    assert await town.balance(ERIKA) == before + payment.amount_minor


async def test_partner_bank_itself_may_stop_between_sending_and_answer(town: Town) -> None:
    before = await town.balance(ERIKA)
    await town.control(mode="silent_after", answers_enquiries=False)
    payment = a_payment()
    await town.submit(payment)
    await town.stop("partner_bank")
    await town.control(mode="accept")

    await town.start("partner_bank")

    assert await town.told(payment.payment_id) == (True, None)
    assert await town.balance(ERIKA) == before + payment.amount_minor


async def test_three_hundred_payments_in_one_batch_are_each_booked_once(town: Town) -> None:
    before = await town.balance(ERIKA)
    payments = [a_payment(amount_minor=100 + index) for index in range(300)]

    answers = await town.partner_bank.submit(payments)

    assert {answer.status for answer in answers} == {BankStatus.ACCEPTED}  # type: ignore[union-attr]
    assert await town.balance(ERIKA) == before + sum(payment.amount_minor for payment in payments)


def a_message(*, end_to_end_id: str, amount: str, to_account: str, sender: str, receiver: str) -> bytes:
    id = new_id()
    transfer = CreditTransfer(
        instruction_id=None,
        end_to_end_id=end_to_end_id,
        transaction_id=None,
        uetr=uetr_of(UUID(int=7)),
        amount=amount,
        currency="EUR",
        debtor_name="Erika Musterfrau",
        debtor_account=ERIKA,
        debtor_agent_bic=sender,
        creditor_name="Ada Byron",
        creditor_account=to_account,
        creditor_agent_bic=receiver,
    )
    return build_credit_transfers(
        CreditTransferMessage(Header(f"T{id.hex}", datetime.now(UTC), sender, receiver), [transfer])
    )


async def post(town: Town, url: str, body: bytes, *, signed_by: str, secret: str = SECRET) -> tuple[int, bytes]:
    headers = {**XML, BANK_HEADER: signed_by, SIGNATURE_HEADER: sign(body, bank_bic=signed_by, secret=secret)}
    async with town.session.post(url, data=body, headers=headers) as response:
        return response.status, await response.read()


def words(answer: bytes) -> list[tuple[str | None, str | None]]:
    message = read_message(answer)
    assert isinstance(message, StatusMessage)
    return [(one.status, one.reason_code) for one in message.transactions]


async def test_the_other_bank_takes_the_same_message_twice_for_one_payment(town: Town) -> None:
    before = await town.balance(ERIKA)
    arguments = {"to_account": ERIKA, "sender": "PAYFDEFFXXX", "receiver": "NORDDEFFXXX"}
    body = a_message(end_to_end_id=new_id().hex, amount="3.00", **arguments)
    changed = body.replace(b">3.00<", b">4.00<")

    answers = [
        await post(town, f"{town.url('other_bank')}/iso20022", one, signed_by="PAYFDEFFXXX")
        for one in (body, body, changed)
    ]

    assert [words(answer) for _, answer in answers] == [[("ACSC", None)], [("ACSC", None)], [("RJCT", "AM05")]]
    assert await town.balance(ERIKA) == before + 300


async def test_money_from_the_other_bank_is_credited_once_however_often_it_is_sent(town: Town) -> None:
    number = await town.account()
    before = await town.balance(ERIKA)

    first = await town.pay(number)
    again = [await town.pay(number, end_to_end_id=first["end_to_end_id"]) for _ in range(3)]

    assert {answer["iso_status"] for answer in [first, *again]} == {"ACSC"}
    assert await town.posted(number) == 2500
    assert await town.balance(ERIKA) == before - 2500
    assert (await town.books(first["end_to_end_id"]))["paid"][0]["times_sent"] == 4


async def test_money_for_nobody_is_refused_and_stays_with_the_other_bank(town: Town) -> None:
    before = await town.balance(ERIKA)

    answer = await town.pay("NOSUCHACCOUNT")

    assert (answer["status"], answer["reason_code"]) == ("REJECTED", "AC01")
    assert await town.balance(ERIKA) == before


async def test_money_from_a_listed_person_is_taken_and_held_in_suspense(town: Town) -> None:
    number = await town.account()
    town.ofac.listed = {"Listed Person"}

    answer = await town.pay(number, debtor_name="Listed Person")

    assert answer["iso_status"] == "ACWP"
    assert await town.posted(number) == 0


async def test_money_sent_while_we_are_down_arrives_once_when_we_are_back(town: Town) -> None:
    number = await town.account()
    await town.stop("partner_bank")

    first = await town.pay(number)
    await town.start("partner_bank")
    paid = await town.answered(first["end_to_end_id"])

    assert first["status"] == "UNKNOWN"
    assert paid["iso_status"] == "ACSC"
    assert await town.posted(number) == 2500


async def test_money_is_pending_without_the_ledger_and_credited_once_it_is_back(town: Town) -> None:
    number = await town.account()
    await town.stop("account")

    first = await town.pay(number)
    await town.start("account")
    await town.answered(first["end_to_end_id"])

    (page,) = await town.gateway.list_entries([ListEntries(number=number)])
    (verified,) = await town.operator.verify_ledger([VerifyLedger()])
    assert first["iso_status"] == "PDNG"
    assert [line.amount_minor for line in page.entries] == [2500]  # type: ignore[union-attr]
    assert verified.broken == []  # type: ignore[union-attr]


async def test_the_inbound_address_refuses_what_is_no_message_of_a_known_bank(town: Town) -> None:
    url = f"{town.url('partner_bank')}/inbound/iso20022"
    arguments = {"to_account": await town.account(), "amount": "1.00", "receiver": "PAYFDEFFXXX"}
    body = a_message(end_to_end_id=new_id().hex, sender="NORDDEFFXXX", **arguments)
    foreign = a_message(end_to_end_id=new_id().hex, sender="LUTEFRPPXXX", **arguments)
    with_entities = b'<!DOCTYPE x [<!ENTITY a "b">]>' + body.split(b"?>", 1)[1]

    outcomes = {
        "forged": await post(town, url, body, signed_by="NORDDEFFXXX", secret="guess"),
        "unknown bank": await post(town, url, body, signed_by="NOSUDEFFXXX"),
        "in another's name": await post(town, url, foreign, signed_by="NORDDEFFXXX"),
        "not XML": await post(town, url, b"{}", signed_by="NORDDEFFXXX"),
        "with a document type": await post(town, url, with_entities, signed_by="NORDDEFFXXX"),
        "too large": await post(town, url, b" " * (1024 * 1024 + 1), signed_by="NORDDEFFXXX"),
    }
    async with town.session.get(url) as response:
        outcomes["GET"] = (response.status, await response.read())
        allow = response.headers["allow"]
    async with town.session.post(url, data=body, headers={"content-type": "application/json"}) as response:
        outcomes["as JSON"] = (response.status, await response.read())

    assert {name: status for name, (status, _) in outcomes.items()} == {
        "forged": 401,
        "unknown bank": 401,
        "in another's name": 400,
        "not XML": 400,
        "with a document type": 400,
        "too large": 413,
        "GET": 405,
        "as JSON": 415,
    }
    assert allow == "POST"
    assert all(json.loads(answer)["status"] == status for status, answer in outcomes.values())


async def test_a_return_is_answered_clearly_and_not_mistaken_for_a_payment(town: Town) -> None:
    body = b'<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pacs.004.001.09"><PmtRtr/></Document>'

    status, answer = await post(town, f"{town.url('partner_bank')}/inbound/iso20022", body, signed_by="NORDDEFFXXX")

    assert status == 400
    assert "pacs.004.001.09 is not a message that is spoken here" in json.loads(answer)["detail"]


async def test_the_control_address_refuses_what_it_does_not_know(town: Town) -> None:
    url = f"{town.url('other_bank')}/control"

    statuses = []
    for body in ({"mode": "sulk"}, {"mode": "accept", "moods": 1}, {"mode": "delay", "delay_ms": -1}):
        async with town.session.put(url, json=body) as response:
            statuses.append(response.status)
    async with town.session.get(url) as response:
        control = await response.json()

    assert statuses == [400, 400, 400]
    assert control["mode"] == "accept"


async def test_both_processes_are_healthy(town: Town) -> None:
    for name in ("partner_bank", "other_bank"):
        async with town.session.get(f"{town.url(name)}/health") as response:
            health = await response.json()

        assert (response.status, health["status"], health["dependencies"]) == (200, "healthy", {"postgres": "healthy"})
