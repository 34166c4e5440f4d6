"""The account service over its in-memory store or over PostgreSQL, and customers of a test's own."""

from __future__ import annotations

from uuid import UUID

from payflow.contracts.account import (
    Account,
    AccountView,
    GetAccount,
    NewAccount,
    NewCustomer,
    PartiesResolved,
    ResolveParties,
)
from payflow.contracts.agents import DEMO_AGENTS, AgentDirectory, read_agents
from payflow.kernel.errors import PayflowError
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.rpc import in_process
from payflow.services.account.api import AccountApi
from payflow.services.account.directory import ConfiguredBanks
from payflow.services.account.store import PostgresStore
from tests.builders import FixedClock, new_id
from tests.conftest import ConnectAs
from tests.fakes import FakeAccountStore

NORDBANK_IBAN = "DE08990100100000001001"


class World:
    """The account service with fresh customers of a test's own."""

    def __init__(self, store: object) -> None:
        self.store = store
        self.clock = FixedClock()
        banks = ConfiguredBanks(AgentDirectory(read_agents(DEMO_AGENTS)))
        api = AccountApi(store=store, banks=banks, clock=self.clock, ids=UuidV7())
        self.confirm: Account = in_process(Account, api, caller="confirm")
        self.operator: Account = in_process(Account, api, caller="gateway")
        self.bank: Account = in_process(Account, api, caller="partner_bank")
        self.cli: Account = in_process(Account, api, caller="cli")

    async def customer(self) -> str:
        customer_id = f"cust_{new_id().hex[-12:]}"
        new = NewCustomer(customer_id=customer_id, name="Ada Byron", country="GB")
        (made,) = await self.operator.create_customers([new])
        assert not isinstance(made, PayflowError), made
        return customer_id

    async def account(self, balance: int = 0, *, currency: str = "USD", customer_id: str | None = None) -> AccountView:
        owner = customer_id or await self.customer()
        number = f"ACC{new_id().hex[-12:].upper()}"
        command = NewAccount(number=number, customer_id=owner, currency=currency, opening_balance_minor=balance)
        (account,) = await self.operator.create_accounts([command])
        assert isinstance(account, AccountView), account
        return account

    async def id_of(self, account: AccountView) -> UUID:
        query = ResolveParties(
            customer_id=account.customer_id, debtor_account=account.number, creditor_account=NORDBANK_IBAN
        )
        (parties,) = await self.confirm.resolve([query])
        assert isinstance(parties, PartiesResolved), parties
        return parties.debtor.account_id

    async def balance(self, account: AccountView) -> tuple[int, int]:
        (view,) = await self.operator.get_accounts([GetAccount(number=account.number)])
        assert isinstance(view, AccountView)
        return view.posted_minor, view.held_minor


def in_memory() -> World:
    """Over the in-memory store."""
    return World(FakeAccountStore())


async def on_postgres(connect_as: ConnectAs, cipher: ColumnCipher) -> World:
    """Over PostgreSQL."""
    database = await connect_as("account")
    return World(PostgresStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7()))
