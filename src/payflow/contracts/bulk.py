"""Bulk orders, the confirm service's second contract: files of payments, each made as a single payment would be."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final, Protocol
from uuid import UUID

import msgspec

from payflow.contracts.confirm import Creditor, PaymentView
from payflow.contracts.operation import Answers, operation
from payflow.kernel.errors import Conflict, Rejection

ITEMS_MAX: Final = 100_000


class BulkState(StrEnum):
    RECEIVING = "RECEIVING"
    PROCESSING = "PROCESSING"
    CANCELLING = "CANCELLING"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


class ItemStatus(StrEnum):
    """What became of a line. The words of a single payment, and three of a file's own: WAITING was not begun yet,
    INVALID is no payment that could be made. OTP_REQUIRED and PENDING go on as the payments that they are."""

    WAITING = "WAITING"
    INVALID = "INVALID"
    SUCCESS = "SUCCESS"
    OTP_REQUIRED = "OTP_REQUIRED"
    PENDING = "PENDING"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


class FileFormat(StrEnum):
    JSON_LINES = "JSON_LINES"
    CSV = "CSV"


class BulkNotFound(Rejection):
    """No such bulk order of this customer."""

    code = "BULK_NOT_FOUND"


class TooManyBulks(Rejection):
    """The customer has as many bulk orders that run (`running_max`), or whose file is not whole (`uploads_max`), as
    there may be."""

    code = "TOO_MANY_BULKS"

    def __init__(self, detail: str = "", *, running_max: int, uploads_max: int) -> None:
        super().__init__(detail, running_max=running_max, uploads_max=uploads_max)


class TooManyItems(Rejection):
    """The file has more payments than a bulk order may have; the order is cancelled with that."""

    code = "TOO_MANY_ITEMS"


class UploadGap(Conflict):
    """The upload does not continue where the stored file ends; `next_line` is the line that is wanted."""

    code = "UPLOAD_GAP"

    def __init__(self, detail: str = "", *, next_line: int, **extra: Any) -> None:
        super().__init__(detail or f"The next line to be sent is line {next_line}.", next_line=next_line, **extra)


class UploadIncomplete(Conflict):
    """The file has another number of payments than was said with it: it is kept, and nothing of it begins.

    `total` is how many are stored, `next_line` the line at which it would go on.
    """

    code = "UPLOAD_INCOMPLETE"

    def __init__(self, detail: str = "", *, total: int, next_line: int) -> None:
        super().__init__(detail, total=total, next_line=next_line)


class BulkEnded(Conflict):
    """The bulk order has ended: it takes no more lines, and there is nothing left to cancel."""

    code = "BULK_ENDED"


class DuplicateTransactionId(Rejection):
    """An earlier line of the same file has this transaction_id."""

    code = "DUPLICATE_TRANSACTION_ID"


class OpenBulk(msgspec.Struct, frozen=True, kw_only=True):
    """Begin a bulk order, or come back to it: the same customer and key are the same order.

    `columns`: of a CSV file, None where the header line is not sent again. `first_line`: beyond 1 the order must exist.
    """

    customer_id: str
    idempotency_key: str
    format: FileFormat
    columns: list[str] | None
    first_line: int
    traceparent: str = ""


class BulkOpened(msgspec.Struct, frozen=True, kw_only=True):
    """Where the order takes lines: `next_line` is the first that is not stored yet."""

    bulk_id: UUID
    columns: list[str] | None
    next_line: int


class BulkPayment(msgspec.Struct, frozen=True, array_like=True):
    """The payment of a line; the same fields as those of a single payment's request."""

    transaction_id: str
    amount: str
    currency: str | None
    debtor_account: str
    creditor_account: str
    creditor: Creditor | None
    remittance_information: str | None
    execute_at: datetime | None


class BulkLine(msgspec.Struct, frozen=True, array_like=True):
    """A line of the file: its payment, or why it is none. `fingerprint` is the single payment's, or of the bytes.

    `transaction_id` is that of a line that is no payment, where it can be read.
    """

    line: int
    fingerprint: bytes
    payment: BulkPayment | None
    error_code: str | None = None
    error_detail: str | None = None
    transaction_id: str | None = None


class StoreLines(msgspec.Struct, frozen=True, kw_only=True):
    """Lines from `first_line` up to the last one in `lines`; numbers that are left out are empty lines."""

    bulk_id: UUID
    customer_id: str
    first_line: int
    lines: list[BulkLine]


class LinesStored(msgspec.Struct, frozen=True, kw_only=True):
    next_line: int


class CloseBulk(msgspec.Struct, frozen=True, kw_only=True):
    """The file is whole: its last line with a payment is `last_line`. Only now anything is paid from it.

    `items`: how many payments it has, where the sender has said so; with another number it is not whole.
    """

    bulk_id: UUID
    customer_id: str
    last_line: int
    items: int | None = None


class GetBulk(msgspec.Struct, frozen=True, kw_only=True):
    bulk_id: UUID
    customer_id: str


class ListBulks(msgspec.Struct, frozen=True, kw_only=True):
    """A customer's orders, newest first, after `cursor` (the last bulk id seen)."""

    customer_id: str
    cursor: UUID | None = None
    limit: int = 50
    state: BulkState | None = None


class CancelBulk(msgspec.Struct, frozen=True, kw_only=True):
    """`is_upload_only`: only while the file is not whole; an order that was accepted meanwhile goes on."""

    bulk_id: UUID
    customer_id: str
    is_upload_only: bool = False


class ListBulkItems(msgspec.Struct, frozen=True, kw_only=True):
    """In file order, after line `cursor`."""

    bulk_id: UUID
    customer_id: str
    cursor: int = 0
    limit: int = 50
    status: ItemStatus | None = None


class BulkView(msgspec.Struct, frozen=True, kw_only=True):
    """A bulk order as it stands: how many items there are, and how many of each status.

    `expires_at`: until then the file must be whole, and after that until then its payments must have been begun.
    """

    bulk_id: UUID
    state: BulkState
    total: int
    next_line: int
    counts: dict[ItemStatus, int]
    received_at: datetime
    updated_at: datetime
    accepted_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None


class BulkPage(msgspec.Struct, frozen=True, kw_only=True):
    bulks: list[BulkView]
    next_cursor: UUID | None


class BulkItem(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a line. `idempotency_key` is the one that its payment has, or will have."""

    line: int
    status: ItemStatus
    transaction_id: str | None
    idempotency_key: str
    payment: PaymentView | None
    error_code: str | None
    error_detail: str | None


class BulkItemPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[BulkItem]
    next_cursor: int | None


class Bulk(Protocol):
    """Operations of the confirm service about bulk orders."""

    service: ClassVar[str] = "confirm"

    @operation(callers={"gateway"})
    async def open_bulk(self, commands: list[OpenBulk]) -> Answers[BulkOpened]: ...

    # A command carries hundreds of lines: few of them make a large call.
    @operation(callers={"gateway"}, timeout_s=15, calls_in_flight=4, batch_max=8)
    async def store_bulk_lines(self, commands: list[StoreLines]) -> Answers[LinesStored]: ...

    @operation(callers={"gateway"}, timeout_s=30, calls_in_flight=8, batch_max=8)
    async def close_bulk(self, commands: list[CloseBulk]) -> Answers[BulkView]: ...

    @operation(callers={"gateway", "cli"}, timeout_s=10, calls_in_flight=8, batch_max=8)
    async def get_bulk(self, queries: list[GetBulk]) -> Answers[BulkView]: ...

    @operation(callers={"gateway"}, timeout_s=10, calls_in_flight=8, batch_max=8)
    async def list_bulks(self, queries: list[ListBulks]) -> Answers[BulkPage]: ...

    @operation(callers={"gateway", "cli"}, timeout_s=10, calls_in_flight=8, batch_max=8)
    async def list_bulk_items(self, queries: list[ListBulkItems]) -> Answers[BulkItemPage]: ...

    @operation(callers={"gateway"})
    async def cancel_bulk(self, commands: list[CancelBulk]) -> Answers[BulkView]: ...
