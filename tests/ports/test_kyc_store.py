"""One suite for the kyc service over its in-memory store and over PostgreSQL, through the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from payflow.contracts.kyc import (
    CheckCustomer,
    CustomerChecked,
    InvalidVerification,
    Kyc,
    RecordVerification,
    VerificationCommandReused,
    VerificationHistory,
    VerificationLevel,
    VerificationNotFound,
    VerificationState,
)
from payflow.kernel.envelope import Event
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.kyc.api import KycApi
from payflow.services.kyc.store import PostgresStore
from tests.builders import NOON, FixedClock, new_id
from tests.fakes_kyc import FakeKycStore

ConnectAs = Callable[[str], Awaitable[Database]]


class World:
    """The kyc service with a customer of a test's own."""

    def __init__(self, store: Any, events: Callable[[str], Awaitable[list[Event]]]) -> None:
        self.clock = FixedClock()
        self.api = KycApi(store=store, clock=self.clock, ids=UuidV7())
        self.risk: Kyc = in_process(Kyc, self.api, caller="risk")
        self.operator: Kyc = in_process(Kyc, self.api, caller="gateway")
        self.events = events
        self.customer_id = f"cust_{new_id().hex}"

    def a_record(
        self,
        state: VerificationState = VerificationState.VERIFIED,
        *,
        command_id: UUID | None = None,
        customer_id: str | None = None,
        level: VerificationLevel = VerificationLevel.FULL,
        expires_at: datetime | None = None,
    ) -> RecordVerification:
        return RecordVerification(
            command_id=command_id or new_id(),
            customer_id=customer_id or self.customer_id,
            state=state,
            level=level,
            reason="passport seen",
            recorded_by="officer",
            expires_at=expires_at,
        )

    async def check(self, customer_id: str | None = None) -> CustomerChecked:
        (checked,) = await self.risk.check([CheckCustomer(customer_id=customer_id or self.customer_id)])
        assert isinstance(checked, CustomerChecked), checked
        return checked

    async def history(self) -> VerificationHistory:
        (history,) = await self.operator.history([CheckCustomer(customer_id=self.customer_id)])
        assert isinstance(history, VerificationHistory), history
        return history


def _in_memory() -> World:
    store = FakeKycStore()

    async def events(customer_id: str) -> list[Event]:
        return [event for event in store.events if event.subject == customer_id]

    return World(store, events)


async def _on_postgres(connect_as: ConnectAs, database_url: str) -> World:
    database = await connect_as("kyc")

    async def events(customer_id: str) -> list[Event]:
        owner = await asyncpg.connect(database_url)
        rows = await owner.fetch("SELECT events FROM event_log.batch ORDER BY id")
        await owner.close()
        found = [event for row in rows for event in msgspec.msgpack.decode(row["events"], type=list[Event])]
        return [event for event in found if event.subject == customer_id]

    return World(PostgresStore(database=database, outbox=Outbox(database)), events)


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, connect_as: ConnectAs, database_url: str) -> World:
    return _in_memory() if request.param == "memory" else await _on_postgres(connect_as, database_url)


async def test_a_batch_of_checks_is_answered_in_order_with_strangers_unverified(world: World) -> None:
    await world.operator.record([world.a_record()])

    answers = await world.risk.check(
        [CheckCustomer(customer_id=id) for id in ("stranger", world.customer_id, "stranger", world.customer_id)]
    )

    checked = [answer for answer in answers if isinstance(answer, CustomerChecked)]
    assert [answer.is_verified for answer in checked] == [False, True, False, True]
    assert checked[0].state is VerificationState.UNVERIFIED


async def test_a_verification_ends_at_its_expiry_without_anything_running(world: World) -> None:
    await world.operator.record([world.a_record(expires_at=NOON + timedelta(days=1))])
    before = await world.check()

    world.clock.move(timedelta(days=1))
    after = await world.check()

    assert (before.is_verified, after.is_verified, after.state) == (True, False, VerificationState.EXPIRED)


async def test_every_record_is_kept_newest_first_and_told_as_an_event(world: World) -> None:
    await world.operator.record([world.a_record(VerificationState.PENDING, level=VerificationLevel.NONE)])
    world.clock.move(timedelta(hours=1))
    (answer,) = await world.operator.record([world.a_record()])

    history = await world.history()
    events = await world.events(world.customer_id)

    assert history == answer
    assert history.current.verified_at == NOON + timedelta(hours=1)
    assert [(change.version, change.state) for change in history.changes] == [
        (2, VerificationState.VERIFIED),
        (1, VerificationState.PENDING),
    ]
    assert [(event.type, event.version, event.data["state"]) for event in events] == [
        ("kyc.changed", 1, "PENDING"),
        ("kyc.changed", 2, "VERIFIED"),
    ]


async def test_a_repeated_command_writes_nothing_more(world: World) -> None:
    command = world.a_record()

    first = await world.operator.record([command, command])
    second = await world.operator.record([command])

    assert first[0] == first[1] == second[0]
    assert len(await world.events(world.customer_id)) == 1


async def test_a_command_id_with_other_contents_is_refused_also_for_another_customer(world: World) -> None:
    command = world.a_record()
    await world.operator.record([command])

    answers = await world.operator.record(
        [
            world.a_record(VerificationState.REJECTED, command_id=command.command_id),
            world.a_record(customer_id=f"cust_{new_id().hex}", command_id=command.command_id),
        ]
    )

    assert [type(answer) for answer in answers] == [VerificationCommandReused, VerificationCommandReused]
    assert (await world.check()).is_verified


async def test_a_refused_record_does_not_stop_its_neighbours(world: World) -> None:
    answers = await world.operator.record([world.a_record(level=VerificationLevel.NONE), world.a_record()])

    assert isinstance(answers[0], InvalidVerification)
    assert isinstance(answers[1], VerificationHistory)
    assert [change.version for change in (await world.history()).changes] == [1]


async def test_records_of_one_customer_at_once_get_versions_without_gaps(world: World) -> None:
    commands = [world.a_record() for _ in range(20)]

    await asyncio.gather(*(world.api.record([command]) for command in commands))

    versions = [change.version for change in (await world.history()).changes]
    assert versions == list(range(20, 0, -1))


async def test_one_command_id_for_two_customers_at_once_is_written_for_one(world: World) -> None:
    command_id = new_id()
    commands = [world.a_record(command_id=command_id, customer_id=f"cust_{new_id().hex}") for _ in range(6)]

    answers = await asyncio.gather(*(world.api.record([command]) for command in commands))

    kinds = sorted(type(answer).__name__ for (answer,) in answers)
    assert kinds == ["VerificationCommandReused"] * 5 + ["VerificationHistory"]


async def test_the_history_of_a_stranger_is_not_found(world: World) -> None:
    (answer,) = await world.operator.history([CheckCustomer(customer_id="stranger")])

    assert isinstance(answer, VerificationNotFound)


async def test_the_services_role_cannot_change_or_delete_the_history(connect_as: ConnectAs) -> None:
    database = await connect_as("kyc")

    for statement in (
        "UPDATE verification_change SET reason = 'x'",
        "DELETE FROM verification_change",
        "TRUNCATE verification_change",
        "DELETE FROM verification",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.execute(statement)
