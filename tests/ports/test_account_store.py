"""Customers and accounts, over the in-memory store and over PostgreSQL, through the contract."""

from __future__ import annotations

import asyncio

import pytest

from payflow.contracts.account import (
    AccountNotEmpty,
    AccountNotFound,
    AccountNotYours,
    AccountState,
    AccountView,
    AlreadyExists,
    Booked,
    ChangeAccountState,
    ChangeCustomerState,
    CustomerNotFound,
    CustomerState,
    GetAccount,
    GetCustomer,
    ListAccounts,
    ListEntries,
    NewAccount,
    NewCustomer,
    ResolveParties,
)
from payflow.kernel.money import UnknownCurrency
from payflow.platform.crypto import ColumnCipher
from tests.builders import a_transfer, new_id
from tests.builders_account import NORDBANK_IBAN, World, in_memory, on_postgres
from tests.conftest import ConnectAs


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, connect_as: ConnectAs, cipher: ColumnCipher) -> World:
    return in_memory() if request.param == "memory" else await on_postgres(connect_as, cipher)


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


async def test_personal_data_is_stored_encrypted(connect_as: ConnectAs, cipher: ColumnCipher) -> None:
    world, database = await on_postgres(connect_as, cipher), await connect_as("account")
    customer = NewCustomer(
        customer_id=f"c{new_id().hex}", name="Zaphod Beeblebrox", email="z@example.org", phone="+4912"
    )
    await world.operator.create_customers([customer])

    stored = await database.fetch("SELECT * FROM customers WHERE customer_id = $1", customer.customer_id)
    (read,) = await world.operator.get_customers([GetCustomer(customer_id=customer.customer_id)])

    assert not any(text in repr(stored) for text in ("Zaphod", "z@example", "+4912"))
    assert (read.name, read.email, read.phone) == ("Zaphod Beeblebrox", "z@example.org", "+4912")
