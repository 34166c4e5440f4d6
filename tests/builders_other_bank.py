"""partner_bank, the simulated other bank and what stands around them as applications on ports of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp

from payflow.contracts.account import Account, GetAccount, NewAccount, NewCustomer
from payflow.contracts.agents import DEMO_AGENTS, AgentDirectory, read_agents
from payflow.contracts.confirm import Confirm
from payflow.contracts.ofac import Ofac
from payflow.contracts.partner_bank import BankStatus, PartnerBank, SubmissionStatus, SubmitCreditTransfer
from payflow.platform.clock import SystemClock
from payflow.platform.ids import UuidV7
from payflow.platform.process import running
from payflow.platform.rpc import RpcClients, in_process
from payflow.platform.rpc.identity import Signer
from payflow.platform.service import Runtime, Service
from payflow.services.account.api import AccountApi
from payflow.services.account.directory import ConfiguredBanks
from payflow.services.partner_bank import app as partner_bank_app
from payflow.services.partner_bank.domain import incoming_payment_id, uetr_of
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
from tests.builders import NORDBANK_BIC, new_id
from tests.fakes import FakeAccountStore
from tests.fakes_partner_bank_others import InMemoryConfirm, InMemoryOfac
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
        self._accounts = FakeAccountStore()
        account_api = AccountApi(
            store=self._accounts,
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

    def incoming_id(self, end_to_end_id: str) -> UUID:
        """Our id of a payment that Nordbank sent."""
        return incoming_payment_id(agent_bic=NORDBANK_BIC, end_to_end_id=end_to_end_id)

    async def until_posted(self, number: str, amount_minor: int) -> None:
        """Wait, ten seconds at most, until an account of ours has this balance."""
        await _until(self.posted, number, amount_minor)

    async def until_received(self, end_to_end_id: str) -> list[dict[str, Any]]:
        """What the other bank's books have of something sent to it, once it is decided: within ten seconds."""
        async with asyncio.timeout(10):
            while True:
                received: list[dict[str, Any]] = (await self.books(end_to_end_id))["received"]
                if received and received[0]["decided_at"] is not None:
                    return received
                await asyncio.sleep(0.05)

    async def in_suspense(self, currency: str = "EUR") -> int:
        """The balance of our suspense account."""
        suspense = await self._accounts.internal_account(kind="suspense", currency=currency)
        return int((await self._accounts.balances([suspense]))[suspense].posted_minor)

    async def until_in_suspense(self, amount_minor: int) -> None:
        """Wait, ten seconds at most, until there is so much in suspense."""
        await _until(self.in_suspense, "EUR", amount_minor)

    async def posted(self, number: str) -> int:
        (view,) = await self.gateway.get_accounts([GetAccount(number=number)])
        return view.posted_minor


async def _until(read: Callable[[str], Awaitable[int]], of: str, amount_minor: int) -> None:
    async with asyncio.timeout(10):
        while True:
            if await read(of) == amount_minor:
                return
            await asyncio.sleep(0.05)


class _Whole:
    """A stand-in that has a part of a contract, as a server asks for it: whole. A call to the rest fails by name."""

    def __init__(self, part: object) -> None:
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name, partial(self._has_it_not, name))

    async def _has_it_not(self, name: str, items: list[Any]) -> list[Any]:
        raise TypeError(f"{type(self._part).__name__} has no {name}")


def _serves(contract: type[Any], implementation: object) -> Build:
    async def build(runtime: Runtime) -> Service:
        return Service(implementations=[(contract, _Whole(implementation))])

    return build


def a_payment(*, to_account: str = ERIKA, agent: str = NORDBANK_BIC, amount_minor: int = 1050) -> SubmitCreditTransfer:
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
