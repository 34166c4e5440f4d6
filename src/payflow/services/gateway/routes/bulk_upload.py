"""`POST /payments/bulk`: takes a file of payments in piece by piece, a bare ASGI application.

Nothing is kept of it but the lines of the next chunk: confirm stores them, and begins when the file is whole.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from payflow.contracts.bulk import (
    Bulk,
    BulkLine,
    BulkOpened,
    BulkView,
    CancelBulk,
    CloseBulk,
    FileFormat,
    OpenBulk,
    StoreLines,
    UploadGap,
)
from payflow.kernel.errors import PayflowError
from payflow.platform.context import current_traceparent
from payflow.platform.http.admission import turn_into_stream
from payflow.platform.http.asgi import ASGIApp, Receive, Scope, Send, header, json_response, send_response
from payflow.platform.http.errors import (
    ClientGone,
    MethodNotAllowed,
    PayloadTooLarge,
    RequestTimedOut,
    UnreadableBody,
    UnsupportedMediaType,
)
from payflow.platform.http.protocol import allow_large_body, name_in_refusals
from payflow.services.gateway.routes.bodies import first
from payflow.services.gateway.routes.bulk import BULK_PATH, encode_order
from payflow.services.gateway.routes.bulk_lines import FileReader
from payflow.services.gateway.routes.payment_confirm import idempotency_key
from payflow.services.gateway.routes.queries import refuse_parameters
from payflow.services.gateway.routes.security import current_user, customer_of
from payflow.services.gateway.routes.streams import StreamPlaces

FILE_MAX_BYTES: Final = 64 * 1024 * 1024
UPLOAD_S_MAX: Final = 900.0
UPLOADS_PER_USER: Final = 4
UPLOAD_LINE: Final = b"upload-line"
UPLOAD_ITEMS: Final = b"upload-items"
_RACES_MAX: Final = 5
_NUMBER: Final = re.compile(rb"[1-9][0-9]{0,8}")
_MEDIA_TYPE: Final = re.compile(rb'([a-z]+/[a-z-]+)(?:[ \t]*;[ \t]*charset="?utf-8"?)?', re.IGNORECASE)
FORMATS: Final = {
    "application/x-ndjson": FileFormat.JSON_LINES,
    "application/jsonl": FileFormat.JSON_LINES,
    "text/csv": FileFormat.CSV,
}


class BulkUploadRoute:
    """Reads, checks, hands over. `others` serves what is at the same address and is no upload."""

    def __init__(self, *, bulk: Bulk, others: ASGIApp, chunk_items: int) -> None:
        self._bulk = bulk
        self._others = others
        self._chunk_items = chunk_items
        self._places = StreamPlaces(UPLOADS_PER_USER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in ("GET", "OPTIONS"):
            await self._others(scope, receive, send)
            return
        if scope["method"] != "POST":
            raise MethodNotAllowed(allow=("GET", "POST"))
        format = file_format(scope)
        customer_id = customer_of(scope)
        refuse_parameters(scope)
        upload = _Upload(
            scope=scope,
            bulk=self._bulk,
            customer_id=customer_id,
            key=idempotency_key(scope),
            format=format,
            first_line=_number(scope, UPLOAD_LINE, "the number of the file's line that the body begins with") or 1,
            items=_number(scope, UPLOAD_ITEMS, "how many payments the whole file has"),
            chunk_items=self._chunk_items,
        )
        if int(header(scope, b"content-length") or 0) > FILE_MAX_BYTES:
            raise await upload.refused_unread()
        with self._places.place(current_user(scope).username):
            # From here on it takes long: its place among the requests is the next payment's.
            turn_into_stream(scope)
            allow_large_body(scope, bytes_max=FILE_MAX_BYTES)
            view = await upload.take_in(receive)
        location = (b"location", f"{BULK_PATH}/{view.bulk_id}".encode("ascii"))
        status = 202 if view.ended_at is None else 200
        await send_response(send, json_response(status, encode_order(view), headers=[location]))


class _Upload:
    """One file, or the rest of one, on its way to confirm."""

    def __init__(
        self,
        *,
        scope: Scope,
        bulk: Bulk,
        customer_id: str,
        key: str,
        format: FileFormat,
        first_line: int,
        items: int | None,
        chunk_items: int,
    ) -> None:
        self._scope = scope
        self._bulk = bulk
        self._customer_id = customer_id
        self._key = key
        self._format = format
        self._is_rest = first_line > 1
        self._items = items
        self._first_line = self._next_line = first_line
        self._chunk_items = chunk_items
        self._reader = FileReader(format=format, customer_id=customer_id, first_line=first_line)
        self._lines: list[BulkLine] = []
        self._opened: BulkOpened | None = None

    async def take_in(self, receive: Receive) -> BulkView:
        """Everything up to the end of the file; the order as it then stands.

        Raises what the file is refused with; `bulk_id` is a member of it once there is an order.
        """
        try:
            async with asyncio.timeout(UPLOAD_S_MAX):
                return await self._take_in(receive)
        except TimeoutError:
            raise self._named(RequestTimedOut("The file did not arrive in time; send the rest of it.")) from None
        except PayflowError as error:
            if isinstance(error, PayloadTooLarge):
                await self._give_up()
            raise self._named(error) from None

    async def refused_unread(self) -> PayflowError:
        """The refusal of a body that says itself that it is too large: the order that it is the rest of is given up.

        What begins at the first line names none: only its lines would tell whether it is the file of its key's order.
        Raises what `open_bulk` refuses the rest with.
        """
        if self._is_rest:
            await self._open()
            await self._give_up()
        return self._named(PayloadTooLarge(limit_bytes=FILE_MAX_BYTES))

    def _named(self, error: PayflowError) -> PayflowError:
        if self._opened is not None:
            error.extra["bulk_id"] = str(self._opened.bulk_id)
        return error

    async def _give_up(self) -> None:
        """The file can never be whole, so that its order need not count as unfinished.

        Where that cannot be done now, the refusal names the order, and it can be cancelled, or expires.
        """
        if self._opened is not None:
            command = CancelBulk(bulk_id=self._opened.bulk_id, customer_id=self._customer_id, is_upload_only=True)
            await self._bulk.cancel_bulk([command])

    async def _take_in(self, receive: Receive) -> BulkView:
        if self._is_rest:
            opened = await self._open()
            if opened.columns is not None:
                self._reader.use_columns(opened.columns)
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            data = message.get("body", b"")
            size += len(data)
            if size > FILE_MAX_BYTES:
                raise PayloadTooLarge(limit_bytes=FILE_MAX_BYTES)
            for line in self._reader.feed(data):
                await self._add(line)
            more = message.get("more_body", False)
        for line in self._reader.finish():
            await self._add(line)
        return await self._close()

    async def _add(self, line: BulkLine) -> None:
        self._lines.append(line)
        if len(self._lines) >= self._chunk_items:
            await self._store()

    async def _open(self) -> BulkOpened:
        command = OpenBulk(
            customer_id=self._customer_id,
            idempotency_key=self._key,
            format=self._format,
            columns=self._reader.columns,
            first_line=self._next_line,
            traceparent=current_traceparent.get(),
        )
        self._opened = opened = first(await self._bulk.open_bulk([command]))
        name_in_refusals(self._scope, bulk_id=str(opened.bulk_id))
        return opened

    async def _store(self) -> None:
        opened = self._opened or await self._open()
        command = StoreLines(
            bulk_id=opened.bulk_id, customer_id=self._customer_id, first_line=self._next_line, lines=self._lines
        )
        for _ in range(_RACES_MAX):
            (answer,) = await self._bulk.store_bulk_lines([command])
            # Another upload of the same file was faster: what it has stored is compared.
            if not isinstance(answer, UploadGap) or answer.extra["next_line"] < self._next_line:
                break
        first([answer])
        self._next_line, self._lines = self._lines[-1].line + 1, []

    async def _close(self) -> BulkView:
        if self._lines:
            await self._store()
        if self._opened is None:
            raise UnreadableBody("The file has no payments.")
        if self._is_rest and self._next_line == self._first_line and self._items is None:
            # Whoever resumes a file that was cut, and sends nothing by mistake, must not have half of it paid.
            raise UnreadableBody("The rest has no payments. Say with Upload-Items how many the whole file has.")
        command = CloseBulk(
            bulk_id=self._opened.bulk_id,
            customer_id=self._customer_id,
            last_line=self._next_line - 1,
            items=self._items,
        )
        return first(await self._bulk.close_bulk([command]))


def file_format(scope: Scope) -> FileFormat:
    """What kind of file is sent. Raises UnsupportedMediaType."""
    encoding = header(scope, b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise UnsupportedMediaType("Send the file without Content-Encoding.")
    kinds = [value for name, value in scope["headers"] if name == b"content-type"]
    match = _MEDIA_TYPE.fullmatch(kinds[0]) if len(kinds) == 1 else None
    format = FORMATS.get(match[1].lower().decode("ascii")) if match is not None else None
    if format is None:
        raise UnsupportedMediaType(f"Send Content-Type: one of {', '.join(FORMATS)}.")
    return format


def _number(scope: Scope, field: bytes, what: str) -> int | None:
    """The number that a header field tells, None without it. Raises UnreadableBody."""
    values = [value for name, value in scope["headers"] if name == field]
    if not values:
        return None
    if len(values) > 1 or not _NUMBER.fullmatch(values[0]):
        raise UnreadableBody(f"{field.decode('ascii').title()}: send {what}.")
    return int(values[0])
