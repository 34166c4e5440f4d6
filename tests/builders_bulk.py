"""Bulk orders of a confirm world, over memory and over PostgreSQL."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import pytest

from payflow.contracts.bulk import (
    Bulk,
    BulkItem,
    BulkItemPage,
    BulkLine,
    BulkOpened,
    BulkPage,
    BulkPayment,
    BulkView,
    CancelBulk,
    CloseBulk,
    FileFormat,
    GetBulk,
    LinesStored,
    ListBulkItems,
    ListBulks,
    OpenBulk,
    StoreLines,
)
from payflow.contracts.confirm import ConfirmPayment, PaymentState, PaymentView
from payflow.contracts.operation import Answers
from payflow.kernel.errors import PayflowError
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.confirm.bulk.api import BulkApi, BulkDuty
from payflow.services.confirm.bulk.domain import BulkLimits
from payflow.services.confirm.bulk.ports import BulkPorts, BulkStore
from payflow.services.confirm.bulk.store import PostgresBulkStore
from payflow.services.confirm.usecases.confirm import confirm_payments
from tests.builders_confirm import World
from tests.builders_confirm import world as world
from tests.fakes_bulk import FakeBulkStore, FakePayments
from tests.fakes_confirm import FakeConfirmStore

ITEMS = 7


class Orders:
    """Bulk orders of a confirm world. `broken` payments, by transaction id, make the use case fail."""

    def __init__(self, world: World, store: BulkStore) -> None:
        self.world, self.store = world, store
        self.broken: set[str] = set()
        self.asked: list[ConfirmPayment] = []
        self.ports = BulkPorts(
            store=store,
            payments=FakePayments(world.store),
            clock=world.clock,
            ids=UuidV7(),
            limits=BulkLimits(running_per_customer=2, uploads_per_customer=3),
        )
        self.duty = BulkDuty(ports=self.ports, confirm=self._confirm, slots=1, pause_s=0.01)
        self.api: Bulk = in_process(Bulk, BulkApi(ports=self.ports, duty=self.duty), caller="gateway")

    async def _confirm(self, commands: Sequence[ConfirmPayment]) -> Answers[PaymentView]:
        self.asked += commands
        if any(command.transaction_id in self.broken for command in commands):
            raise RuntimeError("a payment that breaks the use case")
        return await confirm_payments(commands=commands, ports=self.world.ports, background=self.world.background)

    async def open(self, key: str = "file", *, customer: str | None = None, first_line: int = 1, **more: Any) -> Any:
        values = {"format": FileFormat.JSON_LINES, "columns": None, "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
        (answer,) = await self.api.open_bulk(
            [
                OpenBulk(
                    customer_id=customer or self.world.customer,
                    idempotency_key=key,
                    first_line=first_line,
                    **{**values, **more},
                )
            ]
        )
        return answer

    async def send(self, bulk_id: UUID, lines: Sequence[BulkLine], *, first_line: int | None = None) -> Any:
        command = StoreLines(
            bulk_id=bulk_id,
            customer_id=self.world.customer,
            first_line=lines[0].line if first_line is None else first_line,
            lines=list(lines),
        )
        (answer,) = await self.api.store_bulk_lines([command])
        return answer

    async def close(self, bulk_id: UUID, last_line: int) -> Any:
        (answer,) = await self.api.close_bulk(
            [CloseBulk(bulk_id=bulk_id, customer_id=self.world.customer, last_line=last_line)]
        )
        return answer

    async def accepted(self, lines: Sequence[BulkLine], *, key: str = "file", chunk: int = 3) -> UUID:
        """A whole file, ready to begin."""
        opened = await self.open(key)
        assert isinstance(opened, BulkOpened), opened
        for start in range(0, len(lines), chunk):
            assert isinstance(await self.send(opened.bulk_id, lines[start : start + chunk]), LinesStored)
        closed = await self.close(opened.bulk_id, lines[-1].line)
        assert isinstance(closed, BulkView), closed
        assert closed.state == "PROCESSING"
        return opened.bulk_id

    async def cancel(self, bulk_id: UUID, *, customer: str | None = None, is_upload_only: bool = False) -> Any:
        command = CancelBulk(
            bulk_id=bulk_id, customer_id=customer or self.world.customer, is_upload_only=is_upload_only
        )
        (answer,) = await self.api.cancel_bulk([command])
        return answer

    async def list(self, *, customer: str | None = None, **more: Any) -> BulkPage:
        """A page of the customer's orders."""
        (page,) = await self.api.list_bulks([ListBulks(customer_id=customer or self.world.customer, **more)])
        assert isinstance(page, BulkPage), page
        return page

    async def view(self, bulk_id: UUID) -> BulkView:
        (answer,) = await self.api.get_bulk([GetBulk(bulk_id=bulk_id, customer_id=self.world.customer)])
        assert isinstance(answer, BulkView), answer
        return answer

    async def page(self, bulk_id: UUID, **more: Any) -> BulkItemPage:
        (page,) = await self.api.list_bulk_items(
            [ListBulkItems(bulk_id=bulk_id, customer_id=self.world.customer, **more)]
        )
        assert isinstance(page, BulkItemPage), page
        return page

    async def items(self, bulk_id: UUID) -> list[BulkItem]:
        return (await self.page(bulk_id, limit=200)).items

    async def run(self, turns: int = 100) -> int:
        """Take turns until nothing is due; how many there were."""
        for done in range(turns):
            if not await self.duty.take_turn():
                return done
        return turns

    def line(self, number: int, amount: str = "10.00", **more: Any) -> BulkLine:
        values: dict[str, Any] = {
            "transaction_id": f"{self.world.customer[-12:]}-{number}",
            "amount": amount,
            "currency": None,
            "debtor_account": self.world.debtor,
            "creditor_account": self.world.creditor,
            "creditor": None,
            "remittance_information": None,
            "execute_at": None,
            **more,
        }
        return BulkLine(number, hashlib.sha256(repr(values).encode()).digest(), BulkPayment(**values))

    def lines(self, count: int = ITEMS, **more: Any) -> list[BulkLine]:
        return [self.line(number, **more) for number in range(1, count + 1)]


def bad_line(number: int, text: str = "{", *, transaction_id: str | None = None) -> BulkLine:
    digest = hashlib.sha256(text.encode()).digest()
    return BulkLine(number, digest, None, "MALFORMED_REQUEST", "The body is not valid JSON.", transaction_id)


def told(answer: Any) -> str:
    assert isinstance(answer, PayflowError), answer
    return answer.code


@pytest.fixture
async def orders(
    world: World, connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> AsyncIterator[Orders]:
    if isinstance(world.store, FakeConfirmStore):
        memory = world.store

        def state_of(ids: Sequence[UUID]) -> Mapping[UUID, PaymentState]:
            return {id: memory._payments[id].state for id in ids}

        yield Orders(world, FakeBulkStore(state_of))
        return
    database = await connect_as("confirm")
    # What other tests left due is none of this test's business.
    await database.execute("UPDATE bulk_order SET state = 'EXPIRED', due_at = NULL WHERE due_at IS NOT NULL")
    store = PostgresBulkStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7())
    yield Orders(world, store)
