"""The partner_bank service with everything around it in memory, and valid payments both ways."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import asyncpg
import msgspec
import pytest

from payflow.contracts.account import (
    Account,
    GetAccount,
    NewAccount,
    NewCustomer,
)
from payflow.contracts.agents import DEMO_AGENTS, AgentDirectory, read_agents
from payflow.contracts.confirm import Confirm
from payflow.contracts.ofac import Ofac
from payflow.contracts.partner_bank import (
    BankStatus,
    PartnerBank,
    SubmissionStatus,
    SubmitCreditTransfer,
)
from payflow.kernel.envelope import Event
from payflow.kernel.four_eyes import FourEyes
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.account.api import AccountApi
from payflow.services.account.directory import ConfiguredBanks
from payflow.services.partner_bank.api import InboundApi, PartnerBankApi
from payflow.services.partner_bank.domain import (
    IncomingTransfer,
    Parties,
    Pauses,
    TakenBackRules,
    Verdict,
    incoming_payment_id,
)
from payflow.services.partner_bank.store import PostgresStore
from payflow.services.partner_bank.usecases.events import IncomingEvents
from payflow.services.partner_bank.usecases.incoming import Settlement
from payflow.services.partner_bank.usecases.returns import Returns
from payflow.services.partner_bank.usecases.suspense import Suspense
from payflow.services.partner_bank.usecases.taken_back import TakenBack
from tests.builders import NORDBANK_BIC as NORDBANK
from tests.builders import OUR_BIC as OURS
from tests.builders import FixedClock, new_id
from tests.fakes import FakeAccountStore
from tests.fakes_partner_bank import FakeStore
from tests.fakes_partner_bank_others import GatedLedger, InMemoryConfirm, InMemoryOfac, ScriptedBank

ERIKA = "DE08990100100000001001"


class World:
    """The partner_bank service, with a scripted bank on the other side and the services beside it in memory."""

    def __init__(self, store: FakeStore | PostgresStore, events: Callable[[], Awaitable[list[Event]]]) -> None:
        self.store = store
        self.events = events
        self.clock = FixedClock()
        self.bank = ScriptedBank()
        self.ofac = InMemoryOfac()
        self.confirm = InMemoryConfirm()
        self.pauses = Pauses(first_s=0.5, longest_s=30.0, repeat_answer_after_s=5.0)
        agents = AgentDirectory(read_agents(DEMO_AGENTS))
        account_api = AccountApi(
            store=FakeAccountStore(), banks=ConfiguredBanks(agents), clock=self.clock, ids=UuidV7()
        )
        self.operator: Account = in_process(Account, account_api, caller="gateway")
        self.ledger = GatedLedger(in_process(Account, account_api, caller="partner_bank"))
        events_of = IncomingEvents(ids=UuidV7(), source="partner_bank")
        ofac: Ofac = in_process(Ofac, self.ofac, caller="partner_bank")
        self.suspense = Suspense(
            store=store,
            account=self.ledger,
            ofac=ofac,
            events=events_of,
            ids=UuidV7(),
            clock=self.clock,
            pauses=self.pauses,
        )
        self.inbound = InboundApi(
            store=store,
            settlement=Settlement(
                store=store,
                account=self.ledger,
                ofac=ofac,
                events=events_of,
                clock=self.clock,
                pauses=self.pauses,
            ),
            suspense=self.suspense,
            own_bic=OURS,
            clock=self.clock,
            pauses=self.pauses,
        )
        self.returns = Returns(
            store=store,
            rail=self.bank,
            agents=agents,
            account=self.ledger,
            events=events_of,
            ids=UuidV7(),
            clock=self.clock,
            pauses=self.pauses,
        )
        self.taken_back = TakenBack(
            store=store, clock=self.clock, rules=TakenBackRules(FourEyes.parse("1000"), timedelta(hours=72))
        )
        self.api = PartnerBankApi(
            store=store,
            rail=self.bank,
            agents=agents,
            returns=self.returns,
            taken_back=self.taken_back,
            confirm=in_process(Confirm, self.confirm, caller="partner_bank"),
            clock=self.clock,
            ids=UuidV7(),
            pauses=self.pauses,
            bank_timeout_s=2.0,
        )
        self.client: PartnerBank = in_process(PartnerBank, self.api, caller="confirm")
        self.gateway: PartnerBank = in_process(PartnerBank, self.api, caller="gateway")
        self.cli: PartnerBank = in_process(PartnerBank, self.api, caller="cli")

    async def submit(self, *commands: SubmitCreditTransfer) -> list[object]:
        return list(await self.client.submit(list(commands)))

    async def receive(self, *transfers: IncomingTransfer) -> list[Verdict]:
        return await self.inbound.receive(transfers, agent_bic=NORDBANK, message_id="NB1")

    async def account(self, *, currency: str = "EUR") -> str:
        customer_id, number = f"cust_{new_id().hex}", f"A{new_id().hex[-20:]}"
        await self.operator.create_customers([NewCustomer(customer_id=customer_id, name="Ada Byron")])
        await self.operator.create_accounts([NewAccount(number=number, customer_id=customer_id, currency=currency)])
        return number

    async def posted(self, number: str) -> int:
        (view,) = await self.operator.get_accounts([GetAccount(number=number)])
        return view.posted_minor

    async def events_of(self, transfer: IncomingTransfer) -> list[str]:
        subject = str(incoming_payment_id(agent_bic=NORDBANK, end_to_end_id=transfer.end_to_end_id))
        return [event.type for event in await self.events() if event.subject == subject]


async def postgres_world(database: Database, database_url: str, cipher: ColumnCipher) -> World:
    """A world over PostgreSQL; `database` is connected as partner_bank."""

    async def events() -> list[Event]:
        owner = await asyncpg.connect(database_url)
        rows = await owner.fetch("SELECT events FROM event_log.batch ORDER BY id")
        await owner.close()
        return [event for row in rows for event in msgspec.msgpack.decode(row["events"], type=list[Event])]

    return World(PostgresStore(database=database, cipher=cipher, outbox=Outbox(database)), events)


def memory_world() -> World:
    """A world over the in-memory store."""
    store = FakeStore()
    return World(store, store.events)


def a_submission(
    *,
    payment_id: UUID | None = None,
    token: int = 1,
    end_to_end_id: str | None = None,
    amount_minor: int = 1000,
    agent: str = NORDBANK,
) -> SubmitCreditTransfer:
    payment_id = payment_id or new_id()
    return SubmitCreditTransfer(
        payment_id=payment_id,
        fencing_token=token,
        end_to_end_id=end_to_end_id or payment_id.hex,
        amount_minor=amount_minor,
        currency="EUR",
        debtor_name="Ada Byron",
        debtor_account="ACC001",
        creditor_name="Erika Musterfrau",
        creditor_account=ERIKA,
        creditor_agent=agent,
        remittance_information="Invoice 7",
    )


def an_incoming(
    to_account: str,
    *,
    amount: str = "25.00",
    currency: str = "EUR",
    end_to_end_id: str | None = None,
    debtor_name: str | None = "Erika Musterfrau",
    uetr: str | None = None,
    remittance_information: str | None = None,
) -> IncomingTransfer:
    return IncomingTransfer(
        end_to_end_id=end_to_end_id or new_id().hex,
        instruction_id=None,
        uetr=uetr,
        amount=amount,
        currency=currency,
        creditor_agent_bic=OURS,
        parties=Parties(
            debtor_name=debtor_name,
            debtor_account=ERIKA,
            creditor_name="Ada Byron",
            creditor_account=to_account,
            remittance_information=remittance_information,
        ),
    )


def status_of(answer: object) -> tuple[BankStatus, str | None]:
    assert isinstance(answer, SubmissionStatus), answer
    return answer.status, answer.reason_code


@pytest.fixture
async def stored_world(
    connect_as: Callable[[str], Awaitable[Database]], database_url: str, cipher: ColumnCipher
) -> World:
    return await postgres_world(await connect_as("partner_bank"), database_url, cipher)


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, stored_world: World) -> World:
    return stored_world if request.param == "postgres" else memory_world()
