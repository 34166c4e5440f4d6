"""The fictional banks' addresses: POST /iso20022 for messages; /control, /books and /pay for who directs the play."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from payflow.contracts.gateway import Forbidden
from payflow.kernel.errors import Rejection
from payflow.kernel.money import format_minor
from payflow.platform.http.asgi import (
    Receive,
    Response,
    Scope,
    Send,
    bytes_response,
    header,
    json_response,
    read_body,
    send_response,
)
from payflow.platform.http.errors import (
    ClientGone,
    MethodNotAllowed,
    NotFound,
    UnreadableBody,
    UnsupportedMediaType,
)
from payflow.platform.rpc.identity import CallerNotAllowed
from payflow.services.partner_bank.domain import same_bank
from payflow.services.partner_bank.rails.iso20022 import (
    CreditTransferMessage,
    PaymentReturnMessage,
    StatusRequestMessage,
    UnreadableMessage,
    build_statuses,
    read_message,
)
from payflow.services.partner_bank.rails.iso20022.names import PACS_004, SPOKEN
from payflow.services.partner_bank.rails.iso20022.read import MESSAGE_MAX_BYTES
from payflow.services.partner_bank.rails.signing import BANK_HEADER, SIGNATURE_HEADER, is_signed, sign_answer
from payflow_dev.other_bank.domain import Control, Mode, PaymentOut
from payflow_dev.other_bank.store import BooksStore
from payflow_dev.other_bank.usecases import Bank, Reply

SILENCE_MAX_S: Final = 60.0
PAGE_MAX: Final = 10_000
_encode: Final = msgspec.json.Encoder().encode
_Handler = Callable[[Scope, Receive], Coroutine[Any, Any, Response]]


class PayRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Pay into an account at the partner bank. `amount`: a plain decimal, as a string or as a number."""

    to_account: str
    amount: Decimal
    currency: str
    from_account: str = "DE08990100100000001001"
    debtor_name: str | None = None
    creditor_name: str = "Payflow Customer"
    end_to_end_id: str | None = None


class ForwardedCaller(Forbidden):
    """The control addresses are for this machine only."""


class BankSignatureRequired(CallerNotAllowed):
    """The message is not signed by the partner bank."""


class OtherBankApp:
    """The ASGI application of the fictional banks."""

    def __init__(self, *, bank: Bank, store: BooksStore, agents: list[str], partner_bic: str, secret: str) -> None:
        self._bank = bank
        self._store = store
        self._agents = agents
        self._partner_bic = partner_bic
        self._secret = secret
        self._control_routes: dict[str, dict[str, _Handler]] = {
            "/control": {"GET": self._get_control, "PUT": self._put_control},
            "/books": {"GET": self._get_books},
            "/pay": {"POST": self._pay},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path == "/iso20022":
            if method != "POST":
                raise MethodNotAllowed(allow=("POST",))
            await self._take_message(scope, receive, send)
            return
        handlers = self._control_routes.get(path)
        if handlers is None:
            raise NotFound
        if method not in handlers:
            raise MethodNotAllowed(allow=handlers)
        _refuse_others(scope)
        await send_response(send, await handlers[method](scope, receive))

    async def _take_message(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not (header(scope, b"content-type") or b"").startswith((b"application/xml", b"text/xml")):
            raise UnsupportedMediaType("Send Content-Type: application/xml.")
        body = await read_body(scope, receive, limit_bytes=MESSAGE_MAX_BYTES)
        bic = (header(scope, BANK_HEADER.encode()) or b"").decode("latin-1")
        signature = (header(scope, SIGNATURE_HEADER.encode()) or b"").decode("latin-1")
        if not same_bank(bic, self._partner_bic) or not is_signed(
            body, bank_bic=bic, secret=self._secret, signature=signature
        ):
            raise BankSignatureRequired(f"Sign the message: {BANK_HEADER} and {SIGNATURE_HEADER}.")
        reply = await self._reply_to(body, bic)
        # A forger knows the message and its signature, and not the secret.
        secret = "not the banks' secret" if reply.manner is Mode.FORGED else self._secret
        await _send_reply(reply, receive, send, secret=secret, request_signature=signature)

    async def _reply_to(self, body: bytes, sender_bic: str) -> Reply:
        try:
            message = read_message(body, spoken=(*SPOKEN, PACS_004))
        except UnreadableMessage as error:
            raise UnreadableBody(str(error)) from None
        wanted = message.header.instructed_bic
        agent_bic = next((bic for bic in self._agents if same_bank(wanted, bic)), None)
        if agent_bic is None:
            raise UnreadableBody("InstdAgt is none of the banks here.")
        if isinstance(message, CreditTransferMessage):
            return await self._bank.take(message, agent_bic=agent_bic, sender_bic=sender_bic)
        if isinstance(message, PaymentReturnMessage):
            return await self._bank.take_back(message, agent_bic=agent_bic, sender_bic=sender_bic)
        if isinstance(message, StatusRequestMessage):
            return await self._bank.tell(message, agent_bic=agent_bic, sender_bic=sender_bic)
        raise UnreadableBody("Nothing was sent that this could be the answer to.")

    async def _get_control(self, scope: Scope, receive: Receive) -> Response:
        return json_response(200, _encode(await self._store.control()))

    async def _put_control(self, scope: Scope, receive: Receive) -> Response:
        control = _read_json(await read_body(scope, receive, limit_bytes=MESSAGE_MAX_BYTES), Control)
        await self._store.set_control(control)
        return json_response(200, _encode(control))

    async def _get_books(self, scope: Scope, receive: Receive) -> Response:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        books = await self._store.books(
            end_to_end_id=query["end_to_end_id"][0] if "end_to_end_id" in query else None,
            after=_number(query, "after", 0),
            limit=min(_number(query, "limit", 1000), PAGE_MAX),
        )
        return json_response(200, _encode({name: [_shown(row) for row in rows] for name, rows in books.items()}))

    async def _pay(self, scope: Scope, receive: Receive) -> Response:
        request = _read_json(await read_body(scope, receive), PayRequest)
        payment = await self._bank.pay(
            from_account=request.from_account,
            to_account=request.to_account,
            amount=f"{request.amount:f}",
            currency=request.currency,
            debtor_name=request.debtor_name,
            creditor_name=request.creditor_name,
            end_to_end_id=request.end_to_end_id,
        )
        return json_response(200, _encode(_answer(payment)))


def _answer(payment: PaymentOut) -> dict[str, Any]:
    return {
        "end_to_end_id": payment.end_to_end_id,
        "status": payment.status,
        "iso_status": payment.iso_status,
        "reason_code": payment.reason_code,
        "agent_bic": payment.agent_bic,
        "to_account": payment.to_account,
        "amount": format_minor(payment.amount_minor, payment.currency),
        "currency": payment.currency,
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its amount also as the plain decimal that people read."""
    try:
        return {**row, "amount": format_minor(row["amount_minor"], row["currency"])}
    except Rejection:
        return row


def _refuse_others(scope: Scope) -> None:
    client = scope.get("client")
    if client is not None and not (client[0].startswith("127.") or client[0] == "::1"):
        raise ForwardedCaller("These addresses are for this machine only.")


def _read_json(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UnreadableBody(str(error)) from None


def _number(query: dict[str, list[str]], name: str, default: int) -> int:
    text = query.get(name, [str(default)])[0]
    if not (text.isascii() and text.isdigit() and len(text) < 18):
        raise UnreadableBody(f"{name} must be a whole number.")
    return int(text)


async def _send_reply(reply: Reply, receive: Receive, send: Send, *, secret: str, request_signature: str) -> None:
    """Answer as the bank is told to: late, never, unreadably, or only half."""
    if reply.manner is Mode.ERROR:
        await send_response(send, bytes_response(500, b"", content_type=b"application/xml"))
        return
    if reply.message is None:
        await _stay_silent(receive)
    body = build_statuses(reply.message) if reply.message is not None else b""
    if reply.delay_s:
        await asyncio.sleep(reply.delay_s)
    if reply.manner is Mode.GARBAGE:
        body = b"<Document>we will call you"
    signature = sign_answer(body, bank_bic=reply.agent_bic, secret=secret, request_signature=request_signature)
    headers = [(BANK_HEADER.encode(), reply.agent_bic.encode()), (SIGNATURE_HEADER.encode(), signature.encode())]
    response = bytes_response(200, body, content_type=b"application/xml", headers=headers)
    if reply.manner is Mode.CUT_OFF:
        await send({"type": "http.response.start", "status": 200, "headers": response.headers})
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        raise ClientGone
    await send_response(send, response)


async def _stay_silent(receive: Receive) -> None:
    """Hold the connection until the other side gives up, or for a minute; never answer."""
    try:
        async with asyncio.timeout(SILENCE_MAX_S):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        pass
    raise ClientGone
