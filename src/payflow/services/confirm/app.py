"""Reads the confirm service's settings and wires it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Annotated

import msgspec

from payflow.contracts.account import Account
from payflow.contracts.bulk import Bulk
from payflow.contracts.confirm import Confirm, ConfirmPayment, PaymentView
from payflow.contracts.operation import Answers
from payflow.contracts.otp import Otp
from payflow.contracts.partner_bank import PartnerBank
from payflow.contracts.returns import Returns
from payflow.contracts.risk import Risk
from payflow.kernel.four_eyes import FourEyes
from payflow.platform.crypto import ColumnCipher
from payflow.platform.postgres import Database, repeat_then_halve
from payflow.platform.service import Runtime, Service, every
from payflow.platform.settings import CommonSettings, describe
from payflow.services.confirm.api import ConfirmApi, LocalEndings, SettleInBackground, measure_open_payments
from payflow.services.confirm.bulk.api import BulkApi, BulkDuty
from payflow.services.confirm.bulk.domain import BulkLimits
from payflow.services.confirm.bulk.ports import BulkPorts
from payflow.services.confirm.bulk.store import PostgresBulkStore, StoredPayments
from payflow.services.confirm.domain import Deadlines, ReturnDeadlines
from payflow.services.confirm.ports import Ports, ReturnPorts
from payflow.services.confirm.return_api import ReturnsApi, measure_open_returns
from payflow.services.confirm.return_store import PostgresReturns
from payflow.services.confirm.store import PostgresStore
from payflow.services.confirm.usecases.confirm import confirm_payments
from payflow.services.confirm.usecases.lifecycle import do_what_is_due
from payflow.services.confirm.usecases.returns import do_due_returns


class ConfirmSettings(CommonSettings, frozen=True, kw_only=True):
    """Settings of the confirm service."""

    column_keys: Annotated[
        str, describe("keys of encrypted columns as JSON; best given as _FILE", check=ColumnCipher.from_json)
    ]
    payment_lease_s: Annotated[float, describe("seconds after which another process takes a payment over")] = 10.0
    unfinished_deadline_s: Annotated[float, describe("seconds after which an unfinished payment is ended")] = 60.0
    otp_deadline_s: Annotated[float, describe("seconds that a payment waits for its one-time password")] = 900.0
    review_deadline_s: Annotated[float, describe("seconds that a payment waits for a review decision")] = 259_200.0
    bank_enquiry_s: Annotated[float, describe("pause between enquiries about a submitted payment")] = 15.0
    due_check_s: Annotated[float, describe("pause between looks for payments whose next step is due")] = 0.5
    execute_ahead_days: Annotated[int, describe("days that a payment can be ordered ahead"), msgspec.Meta(ge=1)] = 365
    return_four_eyes_above: Annotated[
        str,
        describe(
            "what one person returns of a payment alone, in whole units of a currency; exceptions: 1000,JPY=150000",
            check=FourEyes.parse,
        ),
    ] = "1000"
    return_approval_s: Annotated[float, describe("seconds that a return waits for its second person")] = 259_200.0
    return_late_s: Annotated[float, describe("seconds that an approved return is tried before it expires")] = 86_400.0
    execute_late_s: Annotated[float, describe("seconds after its time that a scheduled payment is still tried")] = (
        86_400.0
    )
    bulk_orders_open_max: Annotated[
        int, describe("bulk orders that one customer may have running at once"), msgspec.Meta(ge=1)
    ] = 5
    bulk_uploads_open_max: Annotated[
        int, describe("bulk orders of one customer whose file may be not whole"), msgspec.Meta(ge=1)
    ] = 10
    bulk_chunks_in_flight: Annotated[
        int, describe("chunks of bulk orders that one process works on at once"), msgspec.Meta(ge=1, le=16)
    ] = 2
    bulk_lease_s: Annotated[float, describe("seconds after which another process takes a bulk order over")] = 15.0
    bulk_upload_s: Annotated[float, describe("seconds after which a bulk order whose file is not whole expires")] = (
        86_400.0
    )
    bulk_deadline_s: Annotated[
        float, describe("seconds after a bulk order was accepted in which its payments must have been begun")
    ] = 86_400.0
    idempotency_key_days: Annotated[int, describe("days that an idempotency key is kept")] = 30


SETTINGS = ConfirmSettings


def _deadlines(settings: ConfirmSettings) -> Deadlines:
    return Deadlines(
        lease=timedelta(seconds=settings.payment_lease_s),
        otp=timedelta(seconds=settings.otp_deadline_s),
        unfinished=timedelta(seconds=settings.unfinished_deadline_s),
        review=timedelta(seconds=settings.review_deadline_s),
        bank_enquiry=timedelta(seconds=settings.bank_enquiry_s),
        execute_ahead=timedelta(days=settings.execute_ahead_days),
        execute_late=timedelta(seconds=settings.execute_late_s),
    )


def _return_ports(settings: ConfirmSettings, ports: Ports, returns: PostgresReturns) -> ReturnPorts:
    return ReturnPorts(
        returns=returns,
        payments=ports.store,
        account=ports.account,
        risk=ports.risk,
        clock=ports.clock,
        ids=ports.ids,
        deadlines=ReturnDeadlines(
            lease=timedelta(seconds=settings.payment_lease_s),
            approval=timedelta(seconds=settings.return_approval_s),
            review=timedelta(seconds=settings.review_deadline_s),
            late=timedelta(seconds=settings.return_late_s),
        ),
        four_eyes=FourEyes.parse(settings.return_four_eyes_above),
    )


async def build(runtime: Runtime) -> Service:
    """Wire the confirm service."""
    settings = runtime.settings(ConfirmSettings)
    database = await runtime.database()
    cipher = runtime.cipher(settings.column_keys)
    stores_over = partial(_stores_over, runtime, cipher)
    store, made_returns = stores_over(database)
    lists = await runtime.reads((store, made_returns), stores_over, database=database)
    ports = Ports(
        store=store,
        account=runtime.client(Account),
        risk=runtime.client(Risk),
        otp=runtime.client(Otp),
        bank=runtime.client(PartnerBank),
        clock=runtime.clock,
        ids=runtime.ids,
        deadlines=_deadlines(settings),
        endings=LocalEndings(),
    )
    returns = _return_ports(settings, ports, made_returns)
    background = SettleInBackground(ports)
    runtime.on_close(background.finish)
    outbox = runtime.outbox(database)
    bulk_store = PostgresBulkStore(database=database, cipher=cipher, outbox=outbox, ids=runtime.ids)
    bulk_api, bulk_duty = _bulk(settings, bulk_store, store, ports, background)
    keep = timedelta(days=settings.idempotency_key_days)
    return Service(
        implementations=[
            (Confirm, ConfirmApi(ports=ports, background=background, returns=returns, lists=lists)),
            (Bulk, bulk_api),
            (Returns, ReturnsApi(ports=returns)),
        ],
        checks=dict(runtime.checks_for(database=database)),
        required={"postgres"},
        background={
            "do_what_is_due": every(settings.due_check_s, lambda: do_what_is_due(ports=ports, background=background)),
            "do_due_returns": every(settings.due_check_s, lambda: do_due_returns(ports=returns)),
            "measure_open_returns": every(5, lambda: measure_open_returns(ports=returns)),
            "measure_open_payments": every(5, lambda: measure_open_payments(ports=ports)),
            "bulk_orders": bulk_duty.run,
            "measure_bulk_orders": every(5, bulk_duty.measure),
            "forget_old_keys": every(3600, lambda: store.forget_old_keys(before=runtime.clock.now() - keep)),
            "forget_old_bulk_keys": every(3600, lambda: bulk_store.forget_old_keys(before=runtime.clock.now() - keep)),
        },
    )


def _stores_over(runtime: Runtime, cipher: ColumnCipher, database: Database) -> tuple[PostgresStore, PostgresReturns]:
    """Payments and returns over the primary, or over a replica for lists."""
    outbox, ids = runtime.outbox(database), runtime.ids
    return (
        PostgresStore(database=database, cipher=cipher, outbox=outbox, ids=ids),
        PostgresReturns(database=database, cipher=cipher, outbox=outbox, ids=ids),
    )


def _bulk(
    settings: ConfirmSettings,
    store: PostgresBulkStore,
    payments: PostgresStore,
    ports: Ports,
    background: SettleInBackground,
) -> tuple[BulkApi, BulkDuty]:
    """Bulk orders over the single payments' use case."""
    limits = BulkLimits(
        lease=timedelta(seconds=settings.bulk_lease_s),
        upload=timedelta(seconds=settings.bulk_upload_s),
        processing=timedelta(seconds=settings.bulk_deadline_s),
        running_per_customer=settings.bulk_orders_open_max,
        uploads_per_customer=settings.bulk_uploads_open_max,
    )
    bulk_ports = BulkPorts(
        store=store, payments=StoredPayments(payments), clock=ports.clock, ids=ports.ids, limits=limits
    )

    async def confirm(commands: Sequence[ConfirmPayment]) -> Answers[PaymentView]:
        return await repeat_then_halve(
            lambda batch: confirm_payments(commands=batch, ports=ports, background=background), commands
        )

    duty = BulkDuty(
        ports=bulk_ports, confirm=confirm, slots=settings.bulk_chunks_in_flight, pause_s=settings.due_check_s
    )
    return BulkApi(ports=bulk_ports, duty=duty), duty
