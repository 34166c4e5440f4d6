"""Payments as bytes on a connection: requests put together from rendered parts, answers read and understood."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import httptools
import msgspec

from payflow.kernel.money import format_minor
from payflow_dev.bench.population import CURRENCY, INTER_BANK_CREDITOR_NAME, INTER_BANK_CREDITORS, Customer, Payment

TRANSACTION_DIGITS: Final = 9
# Requests after which nothing can have moved: the answer says that this very request was refused.
_REFUSED: Final = frozenset({400, 401, 403, 404, 405, 413, 415, 422, 429})


class Outcome(IntEnum):
    """What the payer knows of a payment."""

    UNKNOWN = 0
    SUCCESS = 1
    PENDING = 2
    REFUSED = 3

    @property
    def is_acknowledged(self) -> bool:
        """Whether the payment was accepted with 2xx."""
        return self in (Outcome.SUCCESS, Outcome.PENDING)


class Template(msgspec.Struct, frozen=True, array_like=True):
    """A payment's request without its id: `before` + id + `between` + id + `after`, sent with the head of `head`."""

    head: int
    between: bytes
    after: bytes

    def body(self, name: str) -> bytes:
        """The request's body alone: a line of a file of payments."""
        return self.between.partition(b"\r\n\r\n")[2] + name.encode("ascii") + self.after


def id_prefix(run_id: str) -> str:
    """What all transaction ids of a run begin with, and no others."""
    return f"b{run_id}-"


def transaction_id(*, run_id: str, number: int) -> str:
    """The id of the run's payment `number`; also its idempotency key. Always of one length."""
    return f"{id_prefix(run_id)}{number:0{TRANSACTION_DIGITS}d}"


def render_heads(*, authority: str, tokens: Sequence[str]) -> list[bytes]:
    """The head of each customer's requests, up to the value of the idempotency key."""
    return [
        (
            f"POST /payment/confirm HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nAccept: application/json\r\nIdempotency-Key: "
        ).encode("ascii")
        for token in tokens
    ]


def token_of(head: bytes) -> str:
    """The access token in a head."""
    return head.partition(b"Bearer ")[2].partition(b"\r\n")[0].decode("ascii")


def render_templates(*, payments: Sequence[Payment], customers: Sequence[Customer], id_length: int) -> list[Template]:
    """One template per payment; the content length counts on ids of `id_length` characters."""
    return [_render(payment, customers[payment.customer], id_length) for payment in payments]


def _render(payment: Payment, customer: Customer, id_length: int) -> Template:
    opening = b'{"transaction_id":"'
    is_abroad = payment.creditor in INTER_BANK_CREDITORS
    creditor = f',"creditor":{{"name":"{INTER_BANK_CREDITOR_NAME}"}}' if is_abroad else ""
    rest = (
        f'","customer_id":"{customer.customer_id}","amount":{format_minor(payment.amount_minor, CURRENCY)},'
        f'"from_account":"{payment.debtor}","to_account":"{payment.creditor}"{creditor}}}'
    ).encode("ascii")
    length = len(opening) + id_length + len(rest)
    return Template(
        head=payment.customer, between=f"\r\nContent-Length: {length}\r\n\r\n".encode("ascii") + opening, after=rest
    )


class AnswerReader:
    """Reads the answers of one kept-alive connection, however they are cut into packets."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._is_complete = False
        self.status = 0
        self.body = b""
        self.keeps_alive = True

    def feed(self, data: bytes) -> bool:
        """Take what arrived; True when it completed an answer, which is then in `status` and `body`.

        Raises ValueError for something that is no HTTP answer.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise ValueError(f"not an HTTP answer: {error}") from error
        is_complete, self._is_complete = self._is_complete, False
        return is_complete

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._parts.append(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self.status = self._parser.get_status_code()
        self.keeps_alive = self._parser.should_keep_alive()
        self.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._is_complete = True


def understand(status: int, body: bytes) -> tuple[Outcome, str]:
    """What an answer means, and a label of it where it is an error ("422 INSUFFICIENT_FUNDS"), else ""."""
    if status == 200 and b'"status":"SUCCESS"' in body:
        return Outcome.SUCCESS, ""
    if status == 202:
        return Outcome.PENDING, ""
    if status == 200 and b'"status":"OTP_REQUIRED"' in body:
        return Outcome.REFUSED, "200 OTP_REQUIRED"
    return (Outcome.REFUSED if status in _REFUSED else Outcome.UNKNOWN), f"{status} {_code_of(body)}".rstrip()


def is_early_refusal(status: int) -> bool:
    """Whether an answer turns the caller away before any work: too many requests, or too much under way."""
    return status in (429, 503)


def _code_of(body: bytes) -> str:
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return ""
    return str(found.get("error", ""))[:60] if isinstance(found, dict) else ""
