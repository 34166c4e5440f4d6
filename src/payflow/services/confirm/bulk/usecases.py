"""Bulk orders from the first line to the last result: taken in, begun in turns, told of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from payflow.contracts.bulk import (
    ITEMS_MAX,
    BulkEnded,
    BulkItem,
    BulkItemPage,
    BulkNotFound,
    BulkOpened,
    BulkPage,
    BulkState,
    BulkView,
    CancelBulk,
    CloseBulk,
    FileFormat,
    GetBulk,
    ItemStatus,
    LinesStored,
    ListBulkItems,
    ListBulks,
    OpenBulk,
    StoreLines,
    TooManyBulks,
    TooManyItems,
    UploadGap,
    UploadIncomplete,
)
from payflow.contracts.confirm import KeyReused, PaymentView
from payflow.contracts.operation import Answers
from payflow.kernel.errors import PayflowError
from payflow.services.confirm.bulk.domain import (
    BulkLimits,
    Chunk,
    Order,
    apply_results,
    chunk_of,
    commands_of,
    ending_of,
    is_result,
    key_of,
    recount,
    status_of_error,
    status_of_state,
)
from payflow.services.confirm.bulk.ports import BulkPorts, ConfirmAll, Turn

# A page reads so many chunks at most, more where it looks for one status, and then says from where to look on.
_CHUNKS_PER_PAGE: Final = 3
_CHUNKS_PER_SEARCH: Final = 20
_COUNT_AGAIN_AFTER: Final = timedelta(seconds=1)
_TAKES_NO_FILE: Final = (BulkState.CANCELLING, BulkState.CANCELLED, BulkState.EXPIRED)
_OTHER_FILE: Final = "This Idempotency-Key was used with another file."


async def open_bulks(*, commands: Sequence[OpenBulk], ports: BulkPorts) -> Answers[BulkOpened]:
    """Begin orders, or come back to them. Items may be KeyReused, TooManyBulks, UploadGap."""
    return [await _open(command, ports) for command in commands]


async def _open(command: OpenBulk, ports: BulkPorts) -> BulkOpened | PayflowError:
    now = ports.clock.now()
    known = await ports.store.find(customer_id=command.customer_id, key=command.idempotency_key)
    if known is None:
        if command.first_line > 1:
            return UploadGap(next_line=1)
        fresh = Order(
            bulk_id=ports.ids.new(),
            customer_id=command.customer_id,
            state=BulkState.RECEIVING,
            version=1,
            fencing_token=0,
            items=0,
            stored_to=0,
            started_to=0,
            ran_to=0,
            columns=command.columns,
            traceparent=command.traceparent,
            received_at=now,
            updated_at=now,
            expires_at=now + ports.limits.upload,
        )
        known = await ports.store.open(
            fresh,
            key=command.idempotency_key,
            running_max=ports.limits.running_per_customer,
            uploads_max=ports.limits.uploads_per_customer,
        )
        if known is None:
            return _too_many_bulks(ports.limits)
    if _is_other_file(command, known):
        return KeyReused(_OTHER_FILE, bulk_id=str(known.bulk_id))
    if command.first_line > known.stored_to + 1:
        return UploadGap(next_line=known.stored_to + 1, bulk_id=str(known.bulk_id))
    return BulkOpened(bulk_id=known.bulk_id, columns=known.columns, next_line=known.stored_to + 1)


def _is_other_file(command: OpenBulk, known: Order) -> bool:
    if (command.format is FileFormat.CSV) != (known.columns is not None):
        return True
    return command.columns is not None and command.columns != known.columns


def _too_many_bulks(limits: BulkLimits) -> TooManyBulks:
    return TooManyBulks(running_max=limits.running_per_customer, uploads_max=limits.uploads_per_customer)


async def store_lines(*, commands: Sequence[StoreLines], ports: BulkPorts) -> Answers[LinesStored]:
    """Store lines, or compare them with those that are stored already.

    Items may be BulkNotFound, BulkEnded, KeyReused (other lines), UploadGap, TooManyItems.
    """
    return [await _store(command, ports) for command in commands]


async def _store(command: StoreLines, ports: BulkPorts) -> LinesStored | PayflowError:
    chunk = chunk_of(first_line=command.first_line, lines=command.lines)
    if await _append(chunk, command, ports):
        return LinesStored(next_line=chunk.last_line + 1)
    order = (await ports.store.get([(command.customer_id, command.bulk_id)])).get(command.bulk_id)
    if order is None:
        return BulkNotFound()
    if order.state in _TAKES_NO_FILE:
        return _ended(order)
    if command.first_line > order.stored_to + 1:
        return UploadGap(next_line=order.stored_to + 1)
    given = {line.line: line.fingerprint for line in command.lines if line.line <= order.stored_to}
    last = min(chunk.last_line, order.stored_to)
    stored = await ports.store.fingerprints(bulk_id=command.bulk_id, first_line=command.first_line, last_line=last)
    if given != stored:
        return KeyReused(_OTHER_FILE)
    rest = [line for line in command.lines if line.line > order.stored_to]
    if not rest:
        return LinesStored(next_line=order.stored_to + 1)
    if order.state is not BulkState.RECEIVING:
        return KeyReused(_OTHER_FILE)
    if order.items + len(rest) > ITEMS_MAX:
        return await _refuse_for_good(command, ports)
    if await _append(chunk_of(first_line=order.stored_to + 1, lines=rest), command, ports):
        return LinesStored(next_line=chunk.last_line + 1)
    # Somebody sends the same file at the same time; who repeats this is told where it continues.
    return UploadGap(next_line=order.stored_to + 1)


async def _refuse_for_good(command: StoreLines, ports: BulkPorts) -> PayflowError:
    """The file will never be whole: its order ends with the refusal, and counts as unfinished no longer."""
    order = await ports.store.cancel(
        bulk_id=command.bulk_id, customer_id=command.customer_id, is_upload_only=True, now=ports.clock.now()
    )
    if order is None or order.state not in _TAKES_NO_FILE:
        # A shorter file was sent under the key at the same time, and was accepted.
        return KeyReused(_OTHER_FILE)
    return TooManyItems(
        f"A bulk order has at most {ITEMS_MAX:,} payments: this one is cancelled, and nothing of it is paid. Send the"
        " payments in several files, each under a key of its own."
    )


def _ended(order: Order) -> BulkEnded:
    return BulkEnded(f"The bulk order is {order.state}: send the file under another key.")


async def _append(chunk: Chunk, command: StoreLines, ports: BulkPorts) -> bool:
    return await ports.store.append(
        bulk_id=command.bulk_id,
        customer_id=command.customer_id,
        chunk=chunk,
        items_max=ITEMS_MAX,
        now=ports.clock.now(),
    )


async def close_bulks(*, commands: Sequence[CloseBulk], ports: BulkPorts) -> Answers[BulkView]:
    """Files are whole: their orders begin.

    Items may be BulkNotFound, BulkEnded, KeyReused (a shorter file), and UploadIncomplete and TooManyBulks: the file
    is kept for another try.
    """
    return [await _close(command, ports) for command in commands]


async def _close(command: CloseBulk, ports: BulkPorts) -> BulkView | PayflowError:
    now = ports.clock.now()
    order = (await ports.store.get([(command.customer_id, command.bulk_id)])).get(command.bulk_id)
    if order is None:
        return BulkNotFound()
    if not order.items:
        return UploadGap(next_line=1)
    if command.last_line != order.stored_to:
        return KeyReused(_OTHER_FILE)
    if command.items not in (None, order.items):
        return UploadIncomplete(
            f"The file was said to have {command.items:,} payments, and has {order.items:,}.",
            total=order.items,
            next_line=order.stored_to + 1,
        )
    if order.state is BulkState.RECEIVING:
        accepted = await ports.store.accept(
            bulk_id=order.bulk_id,
            customer_id=command.customer_id,
            last_line=command.last_line,
            running_max=ports.limits.running_per_customer,
            now=now,
            expires_at=now + ports.limits.processing,
        )
        order = accepted or (await ports.store.get([(command.customer_id, command.bulk_id)]))[command.bulk_id]
    if order.state is BulkState.RECEIVING:
        is_whole = order.stored_to == command.last_line
        return _too_many_bulks(ports.limits) if is_whole else KeyReused(_OTHER_FILE)
    if order.state in _TAKES_NO_FILE:
        return _ended(order)
    return await _view(order, ports)


async def cancel_bulks(*, commands: Sequence[CancelBulk], ports: BulkPorts) -> Answers[BulkView]:
    """Begin nothing more of these orders; a chunk that is under way is finished. Again is no error.

    Items may be BulkNotFound, BulkEnded.
    """
    answers: Answers[BulkView] = []
    for command in commands:
        order = await ports.store.cancel(
            bulk_id=command.bulk_id,
            customer_id=command.customer_id,
            is_upload_only=command.is_upload_only,
            now=ports.clock.now(),
        )
        if order is None:
            answers.append(BulkNotFound())
        elif order.state in (BulkState.COMPLETED, BulkState.EXPIRED):
            answers.append(BulkEnded(f"The bulk order is {order.state}."))
        else:
            answers.append(await _view(order, ports))
    return answers


async def take_turn(*, ports: BulkPorts, confirm: ConfirmAll) -> Turn | None:
    """Do the next chunk of the order that has waited longest; None when nothing is due.

    A chunk whose lines do not all have a result is begun again after a pause, under the same keys: what was done is
    told again, what was not is done.
    """
    now = ports.clock.now()
    turn = await ports.store.take_turn(now=now, until=now + ports.limits.lease)
    if turn is None:
        return None
    order, chunk = turn
    ending = ending_of(order, chunk, now=now)
    if ending is not None:
        if not await ports.store.end(order, ending, now=now):
            await ports.store.rest(order, due_at=now)
        return turn
    if chunk is None:
        raise RuntimeError(f"bulk order {order.bulk_id} has no line left and has not ended")
    commands = commands_of(order, chunk)
    answers = await confirm(list(commands.values())) if commands else []
    if all(is_result(answer) for answer in answers):
        apply_results(chunk, dict(zip(commands, answers, strict=True)))
        await ports.store.finish_chunk(order, chunk, now=ports.clock.now())
    else:
        await ports.store.rest(order, due_at=ports.clock.now() + ports.limits.pause)
    return turn


async def get_bulks(*, queries: Sequence[GetBulk], ports: BulkPorts) -> Answers[BulkView]:
    """Orders with the counts of their results. Items may be BulkNotFound."""
    orders = await ports.store.get([(query.customer_id, query.bulk_id) for query in queries])
    return [
        BulkNotFound() if (order := orders.get(query.bulk_id)) is None else await _view(order, ports)
        for query in queries
    ]


async def list_bulks(*, queries: Sequence[ListBulks], ports: BulkPorts) -> Answers[BulkPage]:
    """Pages of a customer's orders, newest first."""
    pages: Answers[BulkPage] = []
    for query in queries:
        orders = await ports.store.page(query)
        shown = orders[: query.limit]
        next_cursor = shown[-1].bulk_id if len(orders) > query.limit else None
        pages.append(BulkPage(bulks=await _views_as_counted(shown, ports), next_cursor=next_cursor))
    return pages


async def _view(order: Order, ports: BulkPorts) -> BulkView:
    tally = (await ports.store.tallies([order.bulk_id])).get(order.bulk_id)
    if tally is not None and tally.has_open:
        await _count_again(order, ports)
    (view,) = await _views_as_counted([order], ports)
    return view


async def _views_as_counted(orders: Sequence[Order], ports: BulkPorts) -> list[BulkView]:
    """Orders with their results as they were last counted: to count a page of orders again could be to look at
    millions of payments."""
    tallies = await ports.store.tallies([order.bulk_id for order in orders])
    return [order.view(tallies[order.bulk_id].counts if order.bulk_id in tallies else {}) for order in orders]


async def _count_again(order: Order, ports: BulkPorts) -> None:
    """Look what has become of payments that had not ended; at most once a second, however many are asking."""
    now = ports.clock.now()
    if not await ports.store.begin_recount(bulk_id=order.bulk_id, now=now, not_since=now - _COUNT_AGAIN_AFTER):
        return
    found = await ports.store.open_payments(order.bulk_id)
    fresh = {first: recount(known.counts, known.states) for first, known in found.items()}
    changed = {first: made for first, made in fresh.items() if made[0] != found[first].counts}
    await ports.store.write_counts(order.bulk_id, changed)


async def list_items(*, queries: Sequence[ListBulkItems], ports: BulkPorts) -> Answers[BulkItemPage]:
    """Pages of results, in file order. Items may be BulkNotFound."""
    orders = await ports.store.get([(query.customer_id, query.bulk_id) for query in queries])
    return [BulkNotFound() if query.bulk_id not in orders else await _page(query, ports) for query in queries]


async def _page(query: ListBulkItems, ports: BulkPorts) -> BulkItemPage:
    chunks_max = _CHUNKS_PER_PAGE if query.status is None else _CHUNKS_PER_SEARCH
    chunks = await ports.store.chunks(bulk_id=query.bulk_id, after_line=query.cursor, limit=chunks_max)
    places = [(chunk, index) for chunk in chunks for index, line in enumerate(chunk.lines) if line > query.cursor]
    if query.status is None:
        places = places[: query.limit + 1]
    ids = [id for chunk, index in places if (id := _payment_id(chunk, index)) is not None]
    payments = await ports.payments.views(ids) if ids else {}
    found: list[BulkItem] = []
    for chunk, index in places:
        item = _item(query, chunk, index, payments)
        if query.status not in (None, item.status):
            continue
        if len(found) == query.limit:
            return BulkItemPage(items=found, next_cursor=found[-1].line)
        found.append(item)
    # Chunks behind those that were read may have more.
    may_be_more = len(chunks) == chunks_max
    return BulkItemPage(items=found, next_cursor=chunks[-1].last_line if may_be_more else None)


def _payment_id(chunk: Chunk, index: int) -> UUID | None:
    return chunk.payment_ids[index] if chunk.payment_ids else None


def _item(query: ListBulkItems, chunk: Chunk, index: int, payments: Mapping[UUID, PaymentView]) -> BulkItem:
    payment_id, code = _payment_id(chunk, index), chunk.error_codes[index]
    payment = None if payment_id is None else payments.get(payment_id)
    if payment is not None:
        status = status_of_state(payment.state)
    else:
        status = ItemStatus.WAITING if code is None else status_of_error(code)
    return BulkItem(
        line=chunk.lines[index],
        status=status,
        transaction_id=chunk.transaction_ids[index],
        idempotency_key=key_of(query.bulk_id, chunk.lines[index]),
        payment=payment,
        error_code=code,
        error_detail=chunk.error_details[index],
    )
