"""One suite for the account service over its in-memory store and over PostgreSQL, through the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from payflow.contracts.account import (
    Account,
    AccountNotEmpty,
    AccountNotFound,
    AccountNotYours,
    AccountState,
    AccountView,
    AlreadyExists,
    Booked,
    CaptureHold,
    ChangeAccountState,
    ChangeCustomerState,
    CreditIncoming,
    CustomerNotFound,
    CustomerState,
    GetAccount,
    GetCustomer,
    HoldPlaced,
    InsufficientFunds,
    ListAccounts,
    ListEntries,
    NewAccount,
    NewCustomer,
    PartiesResolved,
    Released,
    ReleaseHold,
    ResolveParties,
    VerifyLedger,
)
from payflow.contracts.agents import DEMO_AGENTS, AgentDirectory, read_agents
from payflow.kernel.errors import PayflowError
from payflow.kernel.money import UnknownCurrency
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.account.api import AccountApi
from payflow.services.account.directory import ConfiguredBanks
from payflow.services.account.store import PostgresStore
from payflow.services.account.usecases import ledger
from tests.builders import NOON, FixedClock, a_hold, a_transfer, new_id
from tests.fakes import FakeAccountStore

NORDBANK_IBAN = "DE08990100100000001001"


class World:
    """The account service with fresh customers of a test's own."""

    def __init__(self, store: object) -> None:
        self.store = store
        self.clock = FixedClock()
        banks = ConfiguredBanks(AgentDirectory(read_agents(DEMO_AGENTS)))
        api = AccountApi(store=store, banks=banks, clock=self.clock, ids=UuidV7())  # type: ignore[arg-type]
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


@pytest.fixture(params=["memory", "postgres"])
async def world(
    request: pytest.FixtureRequest, connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> World:
    if request.param == "memory":
        return World(FakeAccountStore())
    database = await connect_as("account")
    return World(PostgresStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7()))


async def test_an_account_opens_with_its_balance_and_shows_it(world: World) -> None:
    account = await world.account(850_000)

    (page,) = await world.operator.list_entries([ListEntries(number=account.number)])

    assert await world.balance(account) == (850_000, 0)
    assert [(line.kind, line.amount_minor, line.balance_minor) for line in page.entries] == [
        ("opening", 850_000, 850_000)
    ]


async def test_creating_the_same_customer_and_account_again_changes_nothing(world: World) -> None:
    customer = NewCustomer(customer_id=f"cust_{new_id().hex}", name="Grace Hopper", email="grace@example.org")
    account = NewAccount(
        number=f"A{new_id().hex}", customer_id=customer.customer_id, currency="EUR", opening_balance_minor=500
    )

    customers = await world.operator.create_customers([customer, customer])
    accounts = [*await world.operator.create_accounts([account]), *await world.operator.create_accounts([account])]

    assert customers[0] == customers[1]
    assert accounts[0] == accounts[1]
    assert accounts[0].posted_minor == 500


async def test_a_record_with_other_contents_under_a_known_id_is_refused(world: World) -> None:
    account = await world.account()

    answers = [
        *await world.operator.create_customers([NewCustomer(customer_id=account.customer_id, name="Somebody Else")]),
        *await world.operator.create_accounts(
            [NewAccount(number=account.number, customer_id=account.customer_id, currency="JPY")]
        ),
    ]

    assert [type(answer) for answer in answers] == [AlreadyExists, AlreadyExists]


async def test_an_account_needs_a_known_customer_and_currency(world: World) -> None:
    customer_id = await world.customer()

    answers = await world.operator.create_accounts(
        [
            NewAccount(number=f"A{new_id().hex}", customer_id="nobody", currency="USD"),
            NewAccount(number=f"A{new_id().hex}", customer_id=customer_id, currency="DOGE"),
        ]
    )

    assert [type(answer) for answer in answers] == [CustomerNotFound, UnknownCurrency]


async def test_a_transfer_moves_the_money_once_however_often_it_is_sent(world: World) -> None:
    debtor, creditor = await world.account(1_000), await world.account()
    command = a_transfer(await world.id_of(debtor), await world.id_of(creditor), 400)

    answers = [*await world.confirm.transfer([command, command]), *await world.confirm.transfer([command])]

    assert len({answer.entry_id for answer in answers if isinstance(answer, Booked)}) == 1
    assert (await world.balance(debtor), await world.balance(creditor)) == ((600, 0), (400, 0))


async def test_of_many_payments_of_the_whole_balance_exactly_one_succeeds(world: World) -> None:
    debtor, creditor = await world.account(1_000), await world.account()
    debtor_id, creditor_id = await world.id_of(debtor), await world.id_of(creditor)

    answers = await asyncio.gather(
        *(world.confirm.transfer([a_transfer(debtor_id, creditor_id, 1_000)]) for _ in range(20))
    )

    assert sum(isinstance(answer, Booked) for (answer,) in answers) == 1
    assert sum(isinstance(answer, InsufficientFunds) for (answer,) in answers) == 19
    assert await world.balance(creditor) == (1_000, 0)


async def test_crossing_transfers_all_finish(world: World) -> None:
    one, two = await world.account(10_000), await world.account(10_000)
    one_id, two_id = await world.id_of(one), await world.id_of(two)

    answers = await asyncio.gather(
        *(world.confirm.transfer([a_transfer(one_id, two_id, 10), a_transfer(two_id, one_id, 10)]) for _ in range(20))
    )

    assert all(isinstance(answer, Booked) for pair in answers for answer in pair)
    assert (await world.balance(one), await world.balance(two)) == ((10_000, 0), (10_000, 0))


async def test_a_refusal_is_remembered_although_money_has_come_in(world: World) -> None:
    debtor, creditor = await world.account(100), await world.account(1_000)
    debtor_id, creditor_id = await world.id_of(debtor), await world.id_of(creditor)
    command = a_transfer(debtor_id, creditor_id, 400)
    (first,) = await world.confirm.transfer([command])
    await world.confirm.transfer([a_transfer(creditor_id, debtor_id, 1_000)])

    (second,) = await world.confirm.transfer([command])

    assert isinstance(first, InsufficientFunds)
    assert first == second


async def test_a_hold_is_captured_to_the_other_banks_nostro_account(world: World) -> None:
    debtor = await world.account(1_000)
    hold = a_hold(await world.id_of(debtor), 300)
    (placed,) = await world.confirm.place_hold([hold])
    held = await world.balance(debtor)

    (booked,) = await world.confirm.capture_hold(
        [CaptureHold(payment_id=hold.payment_id, fencing_token=1, agent_bic="NORDDEFFXXX")]
    )

    assert isinstance(placed, HoldPlaced)
    assert isinstance(booked, Booked)
    assert (held, await world.balance(debtor)) == ((1_000, 300), (700, 0))


async def test_a_released_hold_gives_the_money_back_and_cannot_be_placed_again(world: World) -> None:
    debtor = await world.account(1_000)
    hold = a_hold(await world.id_of(debtor), 300)
    await world.confirm.place_hold([hold])

    release = ReleaseHold(payment_id=hold.payment_id, fencing_token=1, reason="cancelled")
    answers = [*await world.confirm.release_hold([release]), *await world.confirm.release_hold([release])]
    (again,) = await world.confirm.place_hold([hold])

    assert all(isinstance(answer, Released) for answer in answers)
    assert not isinstance(again, HoldPlaced)
    assert await world.balance(debtor) == (1_000, 0)


async def test_expired_holds_are_released(world: World) -> None:
    debtor = await world.account(1_000)
    account_id = await world.id_of(debtor)
    await world.confirm.place_hold([a_hold(account_id, 300, expires_in=timedelta(minutes=1)), a_hold(account_id, 200)])

    released = await ledger.expire_holds(store=world.store, now=NOON + timedelta(minutes=2))  # type: ignore[arg-type]

    assert released == 1
    assert await world.balance(debtor) == (1_000, 200)


async def test_incoming_money_is_credited_once(world: World) -> None:
    creditor = await world.account()
    command = CreditIncoming(
        payment_id=new_id(),
        creditor_account=creditor.number,
        amount_minor=700,
        currency="USD",
        agent_bic="NORDDEFFXXX",
    )

    answers = [*await world.bank.credit_incoming([command]), *await world.bank.credit_incoming([command])]

    assert answers[0] == answers[1]
    assert isinstance(answers[0], Booked)
    assert answers[0].customer_id == creditor.customer_id
    assert await world.balance(creditor) == (700, 0)


async def test_incoming_money_for_nobody_is_refused_and_can_be_parked_in_suspense(world: World) -> None:
    command = CreditIncoming(
        payment_id=new_id(), creditor_account="NOBODY", amount_minor=700, currency="USD", agent_bic="NORDDEFFXXX"
    )
    parked = CreditIncoming(
        **{name: getattr(command, name) for name in command.__struct_fields__[:-1]}, to_suspense=True
    )

    (refused,) = await world.bank.credit_incoming([command])
    (booked,) = await world.bank.credit_incoming([parked])

    assert isinstance(refused, AccountNotFound)
    assert isinstance(booked, Booked)
    assert booked.customer_id is None


async def test_a_blocked_customer_neither_pays_nor_receives_until_unblocked(world: World) -> None:
    debtor, creditor = await world.account(1_000), await world.account(1_000)
    debtor_id, creditor_id = await world.id_of(debtor), await world.id_of(creditor)
    change = ChangeCustomerState(
        customer_id=debtor.customer_id, state=CustomerState.BLOCKED, reason="court order", changed_by="op"
    )

    await world.operator.change_customer_state([change])
    blocked = await world.confirm.transfer(
        [a_transfer(debtor_id, creditor_id, 10), a_transfer(creditor_id, debtor_id, 10)]
    )
    await world.operator.change_customer_state(
        [
            ChangeCustomerState(
                customer_id=debtor.customer_id, state=CustomerState.ACTIVE, reason="lifted", changed_by="op"
            )
        ]
    )
    (after,) = await world.confirm.transfer([a_transfer(debtor_id, creditor_id, 10)])

    assert [answer.code for answer in blocked] == ["ACCOUNT_BLOCKED", "ACCOUNT_BLOCKED"]
    assert isinstance(after, Booked)


async def test_an_accounts_state_can_be_changed(world: World) -> None:
    account = await world.account()
    command = ChangeAccountState(
        number=account.number, state=AccountState.BLOCKED_DEBIT, reason="lost card", changed_by="op"
    )

    (changed,) = await world.operator.change_account_state([command])

    assert changed.state is AccountState.BLOCKED_DEBIT


async def test_an_account_with_money_cannot_be_closed_and_an_empty_one_takes_none_afterwards(world: World) -> None:
    full, empty = await world.account(1_000), await world.account()
    full_id, empty_id = await world.id_of(full), await world.id_of(empty)

    answers = [
        (
            await world.operator.change_account_state(
                [ChangeAccountState(number=number, state=AccountState.CLOSED, reason="asked for", changed_by="op")]
            )
        )[0]
        for number in (full.number, empty.number)
    ]
    (paid,) = await world.confirm.transfer([a_transfer(full_id, empty_id, 10)])

    assert isinstance(answers[0], AccountNotEmpty)
    assert answers[1].state is AccountState.CLOSED
    assert paid.code == "ACCOUNT_CLOSED"


@pytest.mark.parametrize("number", ["NOSTRO/NORDDEFFXXX/EUR", "SUSPENSE/EUR", "", " A1", "-A1", "A" * 35, "Ä1"])
async def test_no_customer_can_have_an_internal_accounts_number(world: World, number: str) -> None:
    customer_id = await world.customer()

    (answer,) = await world.operator.create_accounts(
        [NewAccount(number=number, customer_id=customer_id, currency="EUR")]
    )

    assert answer.code == "INVALID_ACCOUNT_NUMBER"


async def test_the_same_account_asked_for_many_times_at_once_is_opened_and_funded_once(world: World) -> None:
    customer_id = await world.customer()
    command = NewAccount(number=f"A{new_id().hex}", customer_id=customer_id, currency="USD", opening_balance_minor=500)

    batches = await asyncio.gather(*(world.operator.create_accounts([command, command]) for _ in range(5)))

    answers = [answer for batch in batches for answer in batch]
    assert {type(answer) for answer in answers} == {AccountView}
    assert {answer.posted_minor for answer in answers} <= {0, 500}
    assert (await world.operator.get_accounts([GetAccount(number=command.number)]))[0].posted_minor == 500


async def test_ending_a_payment_and_holding_its_funds_at_once_leaves_nothing_held(world: World) -> None:
    debtor = await world.account(100_000)
    account_id = await world.id_of(debtor)
    holds = [a_hold(account_id, 10) for _ in range(20)]

    await asyncio.gather(
        *(world.confirm.place_hold([hold]) for hold in holds),
        *(
            world.confirm.release_hold(
                [ReleaseHold(payment_id=hold.payment_id, fencing_token=1, reason="x", account_id=account_id)]
            )
            for hold in holds
        ),
    )

    assert await world.balance(debtor) == (100_000, 0)


async def test_a_customer_without_a_name_or_an_account_with_a_negative_balance_is_refused(world: World) -> None:
    (nameless,) = await world.operator.create_customers([NewCustomer(customer_id=f"c{new_id().hex}", name=" ")])
    customer_id = await world.customer()
    (negative,) = await world.operator.create_accounts(
        [NewAccount(number=f"A{new_id().hex}", customer_id=customer_id, currency="USD", opening_balance_minor=-1)]
    )

    assert (nameless.code, negative.code) == ("INVALID_CUSTOMER", "INVALID_AMOUNT")


async def test_another_customers_account_looks_like_none_at_all(world: World) -> None:
    mine, other = await world.account(100), await world.account(100)

    queries = [
        ResolveParties(customer_id=mine.customer_id, debtor_account=number, creditor_account=mine.number)
        for number in (other.number, "NO_SUCH_ACCOUNT")
    ]
    resolved = await world.confirm.resolve(queries)
    (seen,) = await world.operator.get_accounts([GetAccount(number=other.number, customer_id=mine.customer_id)])

    assert [type(answer) for answer in resolved] == [AccountNotYours, AccountNotYours]
    assert resolved[0] == resolved[1]
    assert isinstance(seen, AccountNotFound)


@pytest.mark.parametrize(
    ("creditor", "agent", "expected"),
    [
        (NORDBANK_IBAN, None, "NORDDEFFXXX"),
        (NORDBANK_IBAN, "NORDDEFF", "NORDDEFFXXX"),
        ("12345", "LUTEFRPP", "LUTEFRPPXXX"),
        (NORDBANK_IBAN, "LUTEFRPP", None),
        ("DE09990100100000001001", None, None),
        ("12345", None, None),
        ("12345", "UNKNXX22", None),
    ],
)
async def test_the_other_bank_is_found_by_iban_or_by_number_and_bic(
    world: World, creditor: str, agent: str | None, expected: str | None
) -> None:
    mine = await world.account(100)

    (answer,) = await world.confirm.resolve(
        [
            ResolveParties(
                customer_id=mine.customer_id,
                debtor_account=mine.number,
                creditor_account=creditor,
                creditor_agent=agent,
            )
        ]
    )

    if expected is None:
        assert answer.code == "CREDITOR_UNREACHABLE"
    else:
        assert answer.external.agent_bic == expected


async def test_statements_are_paged_newest_first(world: World) -> None:
    debtor, creditor = await world.account(1_000), await world.account()
    debtor_id, creditor_id = await world.id_of(debtor), await world.id_of(creditor)
    await world.confirm.transfer([a_transfer(debtor_id, creditor_id, amount) for amount in (1, 2, 3)])

    (first,) = await world.operator.list_entries([ListEntries(number=debtor.number, limit=3)])
    (second,) = await world.operator.list_entries(
        [ListEntries(number=debtor.number, limit=3, cursor=first.next_cursor)]
    )

    assert [line.amount_minor for line in first.entries] == [-3, -2, -1]
    assert [line.amount_minor for line in second.entries] == [1_000]
    assert second.next_cursor is None


async def test_a_customer_sees_all_their_accounts(world: World) -> None:
    usd = await world.account(100)
    eur = await world.account(200, currency="EUR", customer_id=usd.customer_id)

    (listed,) = await world.operator.list_accounts([ListAccounts(customer_id=usd.customer_id)])

    assert {(account.number, account.posted_minor) for account in listed.accounts} == {
        (usd.number, 100),
        (eur.number, 200),
    }


async def test_personal_data_is_stored_encrypted(
    connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> None:
    database = await connect_as("account")
    world = World(PostgresStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7()))
    customer = NewCustomer(
        customer_id=f"c{new_id().hex}", name="Zaphod Beeblebrox", email="z@example.org", phone="+4912"
    )
    await world.operator.create_customers([customer])

    stored = await database.fetch("SELECT * FROM customers WHERE customer_id = $1", customer.customer_id)
    (read,) = await world.operator.get_customers([GetCustomer(customer_id=customer.customer_id)])

    assert not any(text in repr(stored) for text in ("Zaphod", "z@example", "+4912"))
    assert (read.name, read.email, read.phone) == ("Zaphod Beeblebrox", "z@example.org", "+4912")


async def test_the_services_role_cannot_change_or_delete_the_journal(
    connect_as: Callable[[str], Awaitable[Database]],
) -> None:
    database = await connect_as("account")

    for statement in (
        "UPDATE posting SET amount_minor = 1",
        "DELETE FROM posting",
        "UPDATE journal_entry SET kind = 'x'",
        "DELETE FROM journal_entry",
        "TRUNCATE posting",
        "DELETE FROM fund_reservations",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.execute(statement)


async def test_ledger_verification_finds_a_changed_balance(
    connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher, database_url: str
) -> None:
    database = await connect_as("account")
    world = World(PostgresStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7()))
    account = await world.account(1_000)
    (whole,) = await world.cli.verify_ledger([VerifyLedger()])

    owner = await asyncpg.connect(database_url)
    change = "UPDATE account.account_balance SET posted_minor = posted_minor + $2 WHERE account_id = $1"
    await owner.execute(change, await world.id_of(account), 1)
    (broken,) = await world.cli.verify_ledger([VerifyLedger()])
    await owner.execute(change, await world.id_of(account), -1)
    await owner.close()

    assert whole.broken == []
    assert any(account.number in line for line in broken.broken)
    assert any("all accounts in USD" in line for line in broken.broken)
