"""Bulk loading: what is loaded, refused and warned of, and that loading twice changes nothing."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from payflow.contracts.account import Account, AccountView, CustomerView, GetAccount, GetCustomer
from payflow.contracts.agents import DEMO_AGENTS, AgentDirectory, read_agents
from payflow.contracts.gateway import Gateway, Role
from payflow.contracts.kyc import CheckCustomer, Kyc, VerificationHistory, VerificationState
from payflow.platform.ids import UuidV7
from payflow.platform.rpc import in_process
from payflow.run.demo_data import demo_records
from payflow.run.loading import LoadReport, load_records, load_source
from payflow.run.records import AccountRecord, CustomerRecord, Placed, UserRecord, read_records
from payflow.services.account.api import AccountApi
from payflow.services.account.directory import ConfiguredBanks
from payflow.services.gateway.api import GatewayApi, Parts
from payflow.services.kyc.api import KycApi
from tests.builders import NOON, FixedClock
from tests.builders_loading import ADA, ADAS_ACCOUNT, EVERY_KIND, written
from tests.fakes import FakeAccountStore
from tests.fakes_gateway import FakeGatewayStore, FakePasswords
from tests.fakes_kyc import FakeKycStore


class Services:
    """The services that loading calls, over stores in memory, reached as the command line reaches them."""

    def __init__(self) -> None:
        clock, ids = FixedClock(), UuidV7()
        banks = ConfiguredBanks(AgentDirectory(read_agents(DEMO_AGENTS)))
        self.users = FakeGatewayStore()
        self._apis: dict[Any, Any] = {
            Account: AccountApi(store=FakeAccountStore(), banks=banks, clock=clock, ids=ids),
            Kyc: KycApi(store=FakeKycStore(), clock=clock, ids=ids),
            Gateway: GatewayApi(self._parts(clock)),
        }

    def _parts(self, clock: FixedClock) -> Parts:
        # Making users asks for none of what signing in needs.
        sign_in: Any = dict.fromkeys(("tokens", "revocations", "keys", "lifetimes", "new_secret"))
        return Parts(store=self.users, passwords=FakePasswords(), clock=clock, ids=UuidV7(), **sign_in)

    def client(self, contract: type[Any]) -> Any:
        return in_process(contract, self._apis[contract], caller="cli")

    async def load(self, *records: Any) -> LoadReport:
        return await load_records(records=records, services=self)

    async def account(self, number: str) -> AccountView:
        (view,) = await self.client(Account).get_accounts([GetAccount(number=number)])
        assert isinstance(view, AccountView), view
        return view

    async def customer(self, customer_id: str) -> CustomerView:
        (view,) = await self.client(Account).get_customers([GetCustomer(customer_id=customer_id)])
        assert isinstance(view, CustomerView), view
        return view

    async def history(self, customer_id: str) -> VerificationHistory:
        (history,) = await self.client(Kyc).history([CheckCustomer(customer_id=customer_id)])
        assert isinstance(history, VerificationHistory), history
        return history


async def test_everything_is_loaded_whatever_the_order_of_the_records() -> None:
    services = Services()

    report = await services.load(*reversed(EVERY_KIND))

    assert report == LoadReport(loaded={"customer": 1, "account": 1, "user": 2, "verification": 1}, failures=[])
    assert (await services.account("A1")).posted_minor == 1050
    assert (await services.history("c1")).current.state is VerificationState.VERIFIED
    assert sorted(await services.users.users(["ada", "olga"])) == ["ada", "olga"]


async def test_loading_twice_changes_nothing_and_is_no_failure() -> None:
    services = Services()
    first = await services.load(*EVERY_KIND)

    second = await services.load(*EVERY_KIND)

    assert second == first
    assert (await services.account("A1")).posted_minor == 1050
    assert len((await services.history("c1")).changes) == 1


async def test_the_demo_data_is_loaded_twice_without_a_failure() -> None:
    services = Services()

    reports = [await services.load(*demo_records()) for _ in range(2)]

    assert reports[0] == reports[1]
    assert reports[0].failures == []
    assert reports[0].loaded == {"customer": 4, "account": 8, "user": 4, "verification": 3}


OTHER_CONTENTS = [
    (CustomerRecord(customer_id="c1", name="Ada Byron", country="GB"), "customer c1: ALREADY_EXISTS"),
    (AccountRecord(number="A1", customer_id="c1", currency="EUR"), "account A1: ALREADY_EXISTS"),
    (UserRecord(username="ada", password="another password", customer_id="c1"), "user ada: USER_EXISTS"),
    (UserRecord(username="ADA", password="long enough", customer_id="c2"), "user ADA: USER_EXISTS"),
]


@pytest.mark.parametrize(("record", "failure"), OTHER_CONTENTS)
async def test_other_contents_under_a_known_name_are_reported_and_not_loaded(record: Any, failure: str) -> None:
    services = Services()
    await services.load(*EVERY_KIND)

    report = await services.load(record)

    assert report.loaded == {}
    assert [line.startswith(failure) for line in report.failures] == [True]
    assert (await services.customer("c1")).name == "Ada Lovelace"
    assert (await services.account("A1")).currency == "USD"


REFUSED = [
    (AccountRecord(number="A9", customer_id="nobody", currency="USD"), "account A9: CUSTOMER_NOT_FOUND"),
    (AccountRecord(number="A9", customer_id="c1", currency="XXY"), "account A9: UNKNOWN_CURRENCY"),
    (
        AccountRecord(number="A9", customer_id="c1", currency="USD", opening_balance="1.005"),
        "account A9: INVALID_AMOUNT",
    ),
    (AccountRecord(number="A9", customer_id="c1", currency="JPY", opening_balance="1.5"), "account A9: INVALID_AMOUNT"),
    (AccountRecord(number="A9", customer_id="c1", currency="USD", opening_balance="-5"), "account A9: INVALID_AMOUNT"),
    (AccountRecord(number="A9", customer_id="c1", currency="USD", opening_balance="..."), "account A9: INVALID_AMOUNT"),
    (AccountRecord(number="A9", customer_id="c1", currency="USD", opening_balance=""), "account A9: INVALID_AMOUNT"),
    (UserRecord(username="x", password="short", customer_id="c1"), "user x: VALIDATION_FAILED"),
    (UserRecord(username="x", role=Role.ADMIN, password="long enough", customer_id=""), "user x: VALIDATION_FAILED"),
]


@pytest.mark.parametrize(("record", "failure"), REFUSED)
async def test_a_record_that_is_refused_is_named_and_its_neighbours_are_loaded(record: Any, failure: str) -> None:
    services = Services()

    report = await services.load(ADA, record, ADAS_ACCOUNT)

    assert report.loaded == {"customer": 1, "account": 1}
    assert [line.startswith(failure) for line in report.failures] == [True], report.failures


@pytest.mark.parametrize("text", ["0", "0.00", "0.0"])
async def test_an_opening_balance_of_nothing_books_nothing(text: str) -> None:
    services = Services()
    empty = AccountRecord(number="A2", customer_id="c1", currency="USD", opening_balance=text)

    report = await services.load(ADA, empty)

    assert report.failures == []
    assert (await services.account("A2")).posted_minor == 0


REFUSED_BY_LINE = [
    (
        "x.csv",
        'type,customer_id,name,number,currency\ncustomer,c1,"A\nB",,\naccount,c1,,A1,USD\naccount,c2,,A2,USD\n',
        5,
    ),
    (
        "x.jsonl",
        '{"type":"account","number":"A2","customer_id":"c1","currency":"XXY"}\n\n'
        '{"type":"customer","customer_id":"c1","name":"A"}\n',
        1,
    ),
]


@pytest.mark.parametrize(("name", "text", "line"), REFUSED_BY_LINE)
async def test_a_refused_record_is_told_with_its_line(tmp_path: Path, name: str, text: str, line: int) -> None:
    path = written(tmp_path, name, text)

    report = await load_source(source=lambda: read_records(path), services=Services())

    assert report.refused == 1
    assert report.failures[0].startswith(f"line {line}, account A2: ")
    assert report.loaded["customer"] == 1


async def test_a_thousand_refusals_are_counted_and_a_hundred_told() -> None:
    report = await Services().load(
        *[AccountRecord(number=f"A{n}", customer_id="c", currency="XXY") for n in range(1000)]
    )

    assert report.refused == 1000
    assert len(report.failures) == 100


BEFORE = NOON - timedelta(seconds=1)
AFTER = NOON + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("opening_balance", "began_at", "warnings"),
    [
        ("10.50", AFTER, []),
        (
            "20",
            AFTER,
            ["account A1: it exists and began with 10.50 USD, not 20.00; nothing was booked."],
        ),
        (
            "0",
            BEFORE,
            ["account A1: it exists and began with 10.50 USD, not 0.00; nothing was booked."],
        ),
    ],
)
async def test_an_account_that_began_with_another_balance_is_warned_of_and_left_as_it_is(
    opening_balance: str, began_at: datetime, warnings: list[str]
) -> None:
    services = Services()
    await services.load(*EVERY_KIND)
    again = AccountRecord(number="A1", customer_id="c1", currency="USD", opening_balance=opening_balance)

    report = await load_source(
        source=lambda: [Placed(None, again)],
        services=services,
        began_at=began_at,
    )

    assert report.warnings == warnings
    assert report.warned == len(warnings)
    assert report.failures == []
    assert (await services.account("A1")).posted_minor == 1050


async def test_an_account_twice_in_one_file_with_two_opening_balances_is_warned_of() -> None:
    second = AccountRecord(number="A1", customer_id="c1", currency="USD", opening_balance="99")

    report = await Services().load(ADA, ADAS_ACCOUNT, second)

    assert report.loaded == {"customer": 1, "account": 2}
    assert len(report.warnings) == 1
    assert "not 99.00" in report.warnings[0]


async def test_no_more_than_a_chunk_of_a_long_file_is_held() -> None:
    """Each record is made when it is asked for, so that what is alive at once can be counted."""
    alive: weakref.WeakSet[Tracked] = weakref.WeakSet()
    most = 0

    def source() -> Iterator[Placed]:
        nonlocal most
        for number in range(3000):
            record = Tracked(customer_id=f"c{number}", name="X Y")
            alive.add(record)
            most = max(most, len(alive))
            yield Placed(number, record)

    report = await load_source(source=source, services=Services())

    assert report.loaded == {"customer": 3000}
    assert most < 1200


class Tracked(CustomerRecord, frozen=True, kw_only=True, weakref=True, tag="customer", eq=False):
    """A customer's record whose end can be seen."""


async def test_more_records_than_fit_one_call_are_all_loaded_and_counted() -> None:
    services = Services()
    records = [CustomerRecord(customer_id=f"c{number}", name="X Y") for number in range(1201)]
    seen: list[int] = []

    report = await load_records(
        records=records,
        services=services,
        progress=lambda kind, count: seen.append(count),
    )

    assert report.loaded == {"customer": 1201}
    assert seen == [500, 500, 201]
