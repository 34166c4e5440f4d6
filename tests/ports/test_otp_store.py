"""One suite for the otp service over its in-memory store and over PostgreSQL, through the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from structlog.testing import capture_logs

from payflow.contracts.otp import (
    InvalidOtp,
    IssueOtp,
    Otp,
    OtpExpired,
    OtpIssued,
    OtpPayment,
    OtpVerified,
    TooManyOtps,
    VerifyOtp,
)
from payflow.kernel.envelope import Event
from payflow.kernel.errors import Unavailable
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.otp.api import OtpApi
from payflow.services.otp.domain import KeyRing, Limit, Rules
from payflow.services.otp.store import PostgresStore
from payflow.services.otp.usecases import forget_old
from tests.builders import FixedClock, new_id
from tests.fakes_otp import CountingEntropy, FakeCodeSender, FakeOtpStore

ConnectAs = Callable[[str], Awaitable[Database]]


class World:
    """The otp service with a notification service that keeps what it is given."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.clock = FixedClock()
        self.sender = FakeCodeSender()
        self.api = OtpApi(
            store=store,
            sender=self.sender,
            keys=KeyRing([bytes(range(32))]),
            rules=Rules(
                lifetime=timedelta(minutes=5),
                tries_max=5,
                per_payment=Limit(3, timedelta(minutes=15)),
                per_customer=Limit(30, timedelta(minutes=15)),
            ),
            clock=self.clock,
            ids=UuidV7(),
            entropy=CountingEntropy(),
        )
        self.confirm: Otp = in_process(Otp, self.api, caller="confirm")

    async def issue(self, payment: OtpPayment) -> Any:
        (answer,) = await self.confirm.issue([an_issue(payment)])
        return answer

    async def verify(self, payment: OtpPayment, code: str, attempt_id: Any = None) -> Any:
        (answer,) = await self.confirm.verify(
            [VerifyOtp(payment=payment, code=code, attempt_id=attempt_id or new_id())]
        )
        return answer

    def code_of(self, payment: OtpPayment) -> str:
        return self.sender.code_of(str(payment.payment_id))

    def wrong_codes(self, payment: OtpPayment, count: int) -> list[str]:
        others = [f"{number:06d}" for number in range(count + 1)]
        return [code for code in others if code != self.code_of(payment)][:count]


def a_payment(customer_id: str = "") -> OtpPayment:
    return OtpPayment(
        payment_id=new_id(),
        customer_id=customer_id or f"cust_{new_id().hex}",
        amount_minor=1_500_000,
        currency="USD",
        debtor="ACC0010010010",
        creditor="DE08990100100000001001",
    )


def an_issue(payment: OtpPayment) -> IssueOtp:
    return IssueOtp(payment=payment, transaction_id=str(payment.payment_id))


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, connect_as: ConnectAs) -> World:
    if request.param == "memory":
        return World(FakeOtpStore())
    database = await connect_as("otp")
    return World(PostgresStore(database=database, outbox=Outbox(database)))


@pytest.fixture
async def postgres_world(connect_as: ConnectAs) -> World:
    database = await connect_as("otp")
    return World(PostgresStore(database=database, outbox=Outbox(database)))


async def test_a_code_is_issued_sent_and_accepted(world: World) -> None:
    payment = a_payment()

    issued = await world.issue(payment)
    verified = await world.verify(payment, world.code_of(payment))

    assert issued == OtpIssued(
        challenge_id=issued.challenge_id, expires_at=world.clock.now() + timedelta(minutes=5), is_new=True
    )
    assert verified == OtpVerified(challenge_id=issued.challenge_id, verified_at=world.clock.now())


async def test_the_message_names_amount_and_creditor_but_no_full_account_number(world: World) -> None:
    payment = a_payment()

    issued = await world.issue(payment)

    message = world.sender.sent[issued.challenge_id]
    assert (message.amount, message.currency, message.creditor) == ("15000.00", "USD", "…1001")


async def test_a_repeat_shows_the_open_challenge_and_sends_nothing(world: World) -> None:
    payment = a_payment()
    first = await world.issue(payment)
    world.clock.move(timedelta(seconds=10))

    again = await world.issue(payment)

    assert again == msgspec.structs.replace(first, is_new=False)
    assert world.sender.calls == 1


async def test_a_code_that_could_not_be_sent_is_sent_by_the_repeat(world: World) -> None:
    payment = a_payment()
    world.sender.is_down = True
    failed = await world.issue(payment)
    world.sender.is_down = False

    repeated = await world.issue(payment)
    verified = await world.verify(payment, world.code_of(payment))

    assert isinstance(failed, Unavailable)
    assert isinstance(repeated, OtpIssued)
    assert not repeated.is_new
    assert isinstance(verified, OtpVerified)


async def test_a_code_that_was_sent_a_while_ago_is_handed_over_again_and_nothing_depends_on_it(world: World) -> None:
    payment = a_payment()
    first = await world.issue(payment)
    world.clock.move(timedelta(seconds=14))
    await world.issue(payment)
    soon = world.sender.calls
    world.clock.move(timedelta(seconds=1))
    await world.issue(payment)
    later = world.sender.calls
    world.sender.is_down = True

    while_down = await world.issue(payment)

    assert (soon, later) == (1, 2)
    assert isinstance(first, OtpIssued)
    assert while_down == msgspec.structs.replace(first, is_new=False)
    assert len(world.sender.sent) == 1


async def test_requests_at_the_same_moment_share_one_challenge_and_one_code(world: World) -> None:
    payment = a_payment()

    answers = [
        answers[0] for answers in await asyncio.gather(*(world.api.issue([an_issue(payment)]) for _ in range(20)))
    ]

    assert all(isinstance(answer, OtpIssued) for answer in answers)
    assert len({answer.challenge_id for answer in answers if isinstance(answer, OtpIssued)}) == 1
    assert sum(answer.is_new for answer in answers if isinstance(answer, OtpIssued)) == 1
    assert len(world.sender.sent) == 1


async def test_a_hundred_guesses_at_once_get_five_tries_in_all(world: World) -> None:
    payment = a_payment()
    await world.issue(payment)
    guesses = [*world.wrong_codes(payment, 99), world.code_of(payment)]

    answers = await asyncio.gather(
        *(world.api.verify([VerifyOtp(payment=payment, code=code, attempt_id=new_id())]) for code in guesses)
    )

    kinds = [type(answer) for (answer,) in answers]
    assert kinds.count(InvalidOtp) <= 5
    assert kinds.count(OtpVerified) <= 1
    assert kinds.count(OtpExpired) == 100 - kinds.count(InvalidOtp) - kinds.count(OtpVerified)
    assert kinds.count(OtpExpired) >= 94


async def test_guesses_in_one_batch_get_five_tries_in_all(world: World) -> None:
    payment = a_payment()
    await world.issue(payment)
    codes = [*world.wrong_codes(payment, 6), world.code_of(payment)]

    answers = await world.api.verify([VerifyOtp(payment=payment, code=code, attempt_id=new_id()) for code in codes])

    assert [type(answer) for answer in answers] == [InvalidOtp] * 5 + [OtpExpired] * 2
    assert [answer.extra["tries_left"] for answer in answers[:5] if isinstance(answer, InvalidOtp)] == [4, 3, 2, 1, 0]


async def test_the_right_code_at_the_same_moment_twice_succeeds_for_one_attempt(world: World) -> None:
    payment = a_payment()
    await world.issue(payment)
    code = world.code_of(payment)

    answers = await asyncio.gather(
        *(world.api.verify([VerifyOtp(payment=payment, code=code, attempt_id=new_id())]) for _ in range(20))
    )

    assert sorted(type(answer).__name__ for (answer,) in answers) == ["OtpExpired"] * 19 + ["OtpVerified"]


async def test_a_repeat_of_the_same_attempt_is_the_same_success(world: World) -> None:
    payment, attempt_id = a_payment(), new_id()
    await world.issue(payment)
    first = await world.verify(payment, world.code_of(payment), attempt_id)
    world.clock.move(timedelta(minutes=10))

    again = await world.verify(payment, world.code_of(payment), attempt_id)

    assert isinstance(first, OtpVerified)
    assert again == first


async def test_a_new_code_comes_after_the_old_one_ran_out_of_tries_and_the_old_one_is_dead(world: World) -> None:
    payment = a_payment()
    first = await world.issue(payment)
    old_code = world.code_of(payment)
    for code in world.wrong_codes(payment, 5):
        await world.verify(payment, code)

    second = await world.issue(payment)
    old = await world.verify(payment, old_code)
    new = await world.verify(payment, world.code_of(payment))

    assert second.is_new
    assert second.challenge_id != first.challenge_id
    assert old == InvalidOtp(tries_left=4)
    assert new == OtpVerified(challenge_id=second.challenge_id, verified_at=world.clock.now())


async def test_a_changed_amount_voids_the_code(world: World) -> None:
    payment = a_payment()
    await world.issue(payment)

    changed = await world.verify(msgspec.structs.replace(payment, amount_minor=1), world.code_of(payment))
    original = await world.verify(payment, world.code_of(payment))

    assert [type(changed), type(original)] == [OtpExpired, OtpExpired]


async def test_a_customer_gets_thirty_codes_in_a_window_however_many_ask_at_once(world: World) -> None:
    customer_id = f"cust_{new_id().hex}"
    payments = [a_payment(customer_id) for _ in range(40)]

    answers = await asyncio.gather(*(world.api.issue([an_issue(payment)]) for payment in payments))

    kinds = [type(answer) for (answer,) in answers]
    assert (kinds.count(OtpIssued), kinds.count(TooManyOtps)) == (30, 10)
    assert {answer.extra["retry_after_s"] for (answer,) in answers if isinstance(answer, TooManyOtps)} == {900}


async def test_a_payment_gets_three_codes_in_a_window_and_the_next_when_one_has_left_it(world: World) -> None:
    payment = a_payment()
    for _ in range(3):
        assert (await world.issue(payment)).is_new
        world.clock.move(timedelta(minutes=4, seconds=59))
        await world.verify(msgspec.structs.replace(payment, amount_minor=1), "000000")

    refused = await world.issue(payment)
    world.clock.move(timedelta(seconds=3))
    issued = await world.issue(payment)

    assert refused == TooManyOtps(retry_after_s=3)
    assert issued.is_new


async def test_one_item_at_its_limit_does_not_fail_its_neighbours(world: World) -> None:
    customer_id = f"cust_{new_id().hex}"
    await world.api.issue([an_issue(a_payment(customer_id)) for _ in range(30)])

    answers = await world.confirm.issue([an_issue(a_payment(customer_id)), an_issue(a_payment())])

    assert [type(answer) for answer in answers] == [TooManyOtps, OtpIssued]


async def test_old_challenges_are_forgotten(world: World) -> None:
    payment, attempt_id = a_payment(), new_id()
    await world.issue(payment)
    code = world.code_of(payment)
    await world.verify(payment, code, attempt_id)
    keep = timedelta(days=30)

    early = await forget_old(store=world.store, now=world.clock.now() + timedelta(days=29), keep=keep)
    still = await world.verify(payment, code, attempt_id)
    await forget_old(store=world.store, now=world.clock.now() + timedelta(days=31), keep=keep)
    gone = await world.verify(payment, code, attempt_id)

    assert early == 0
    assert [type(still), type(gone)] == [OtpVerified, OtpExpired]


async def test_running_out_of_tries_is_told_once_without_the_code(postgres_world: World, database_url: str) -> None:
    world, payment = postgres_world, a_payment()
    await world.issue(payment)
    wrong = world.wrong_codes(payment, 7)
    for code in wrong:
        await world.verify(payment, code)

    owner = await asyncpg.connect(database_url)
    rows = await owner.fetch("SELECT events FROM event_log.batch WHERE types = '{security.otp_failed}'")
    await owner.close()

    events = [event for row in rows for event in msgspec.msgpack.decode(row["events"], type=list[Event])]
    mine = [event for event in events if event.data["actor"] == payment.customer_id]
    assert [(event.type, event.source, event.version) for event in mine] == [("security.otp_failed", "otp", 1)]
    assert mine[0].data["detail"] == f"payment {payment.payment_id}: 5 wrong one-time passwords"


async def test_no_code_is_in_any_row_or_log_line(postgres_world: World, database_url: str) -> None:
    world, payment = postgres_world, a_payment()
    with capture_logs() as lines:
        await world.issue(payment)
        code = world.code_of(payment)
        for wrong in world.wrong_codes(payment, 2):
            await world.verify(payment, wrong)
        await world.verify(payment, code)

    owner = await asyncpg.connect(database_url)
    row = await owner.fetchrow("SELECT * FROM otp.challenge WHERE payment_id = $1", payment.payment_id)
    await owner.close()

    assert row is not None
    texts = [value for value in row.values() if isinstance(value, str)]
    raw = [value for value in row.values() if isinstance(value, bytes)]
    assert row["state"] == "USED"
    assert not [text for text in texts if code in text or payment.creditor in text or payment.debtor in text]
    assert not [data for data in raw if code.encode() in data]
    assert code not in repr(lines)


async def test_the_role_may_touch_its_own_table_only(connect_as: ConnectAs) -> None:
    database = await connect_as("otp")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.fetch("SELECT 1 FROM account.customers")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.execute("TRUNCATE challenge")
