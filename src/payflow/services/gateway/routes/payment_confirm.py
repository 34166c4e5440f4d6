"""`POST /payment/confirm`: the hot route, a bare ASGI application (two to three times a framework handler's speed)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Final

import msgspec

from payflow.contracts.confirm import (
    AwaitEnd,
    Confirm,
    ConfirmPayment,
    Creditor,
    PaymentState,
    PaymentView,
    SendCode,
)
from payflow.contracts.gateway import Forbidden, InvalidIdempotencyKey, MissingIdempotencyKey
from payflow.kernel.errors import PayflowError, UnknownOutcome
from payflow.platform.context import current_traceparent
from payflow.platform.http.admission import step_aside
from payflow.platform.http.asgi import Receive, Scope, Send, read_body, send_response
from payflow.platform.http.errors import MethodNotAllowed, UnreadableBody
from payflow.platform.http.strict_json import NumberText, StrictReader
from payflow.platform.tracing import is_recorded, keep_trace, note
from payflow.services.gateway.domain.instants import read_instant
from payflow.services.gateway.domain.payments import fingerprint
from payflow.services.gateway.routes.answers import confirm_answer
from payflow.services.gateway.routes.bodies import Body, check_media_type
from payflow.services.gateway.routes.queries import refuse_parameters
from payflow.services.gateway.routes.security import customer_of

REQUIRED_FIELDS: Final = ("transaction_id", "customer_id", "amount", "from_account", "to_account")
_KEY_HEADER: Final = b"idempotency-key"
_KEY: Final = re.compile(rb"[ -~]{1,255}")
_AT_THE_OTHER_BANK: Final = frozenset({PaymentState.HELD, PaymentState.SUBMITTED})
# `(?!\n)`: in Python `$` also fits before a line break at the end.
_END: Final = r"$(?!\n)"
_NO_CONTROLS: Final = r"^[^\x00-\x1f\x7f]*" + _END

Text140 = Annotated[str, msgspec.Meta(min_length=1, max_length=140, pattern=_NO_CONTROLS)]
TransactionId = Annotated[
    str, msgspec.Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9._:-]+" + _END, examples=["txn_001"])
]
CustomerId = Annotated[str, msgspec.Meta(min_length=1, max_length=64, examples=["cust_001"])]
OneTimePassword = Annotated[str, msgspec.Meta(max_length=16)]
AccountNumber = Annotated[str, msgspec.Meta(min_length=1, max_length=34, pattern="^[!-~]+" + _END)]
# 34 characters at most; in groups of four as banks print them, with the rest in a last one.
_PRINTED_IBAN: Final = "[A-Z]{2}[0-9]{2}(( [A-Z0-9]{4}){2,6} [A-Z0-9]{3}|( [A-Z0-9]{4}){2,7}( [A-Z0-9]{1,2})?)"
CreditorAccount = Annotated[str, msgspec.Meta(pattern=f"^([!-~]{{1,34}}|{_PRINTED_IBAN})" + _END, examples=["ACC002"])]


class CreditorBody(Body):
    """The creditor as the customer names it. `agent` is the BIC of the bank, for an account number that is no IBAN."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=140, pattern=_NO_CONTROLS, examples=["Nord AG"])]
    country: Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}" + _END, examples=["DE"])] | None = None
    agent: (
        Annotated[str, msgspec.Meta(pattern="^[A-Z0-9]{8}([A-Z0-9]{3})?" + _END, examples=["NORDDEFFXXX"])] | None
    ) = None


class PaymentFields(Body):
    """What is to be paid; whose it is, and a one-time password, are for each request to say in its own way."""

    transaction_id: TransactionId
    amount: NumberText
    from_account: AccountNumber
    to_account: CreditorAccount
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}" + _END, examples=["USD"])] | None = None
    creditor: CreditorBody | None = None
    remittance_information: Text140 | None = None
    execute_at: Annotated[str, msgspec.Meta(max_length=40, examples=["2030-01-31T09:00:00Z"])] | None = None


class ConfirmBody(PaymentFields, kw_only=True):
    """A payment. `amount` is a JSON number or string with at most the currency's decimals, read exactly.

    `execute_at`, an instant or a date (its first instant in UTC): the payment is checked now and made then.
    """

    customer_id: CustomerId
    otp: OneTimePassword | None = None


_READER: Final = StrictReader(ConfirmBody, required=REQUIRED_FIELDS)


class ConfirmRoute:
    """Reads, checks, asks confirm, answers. `bank_wait_s`: how long an inter-bank payment waits for its end."""

    def __init__(self, *, confirm: Confirm, bank_wait_s: float) -> None:
        self._confirm = confirm
        self._bank_wait_s = bank_wait_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            raise MethodNotAllowed(allow=("POST",))
        check_media_type(scope["headers"])
        customer_id = customer_of(scope)
        refuse_parameters(scope)
        key = idempotency_key(scope)
        body = _READER.read(await read_body(scope, receive))
        if body.customer_id != customer_id:
            raise Forbidden("customer_id is not the signed-in customer's.")
        payment = await self._confirmed(command_of(body, customer_id=customer_id, key=key, otp=body.otp))
        if payment.state in _AT_THE_OTHER_BANK and self._bank_wait_s > 0 and step_aside(scope):
            payment = await self._await_end(payment)
        if is_recorded():
            note(payment_id=str(payment.payment_id), state=payment.state.value, risk_level=payment.risk_level)
        if payment.state is PaymentState.UNDER_REVIEW:
            keep_trace(scope, "review")
        await send_response(send, confirm_answer(payment))

    async def _confirmed(self, command: ConfirmPayment) -> PaymentView:
        """What became of the request; where a code is asked for, it was sent. Raises what confirm refused with."""
        if command.otp is not None:
            (payment,) = await self._confirm.confirm_with_otp([command])
        else:
            (payment,) = await self._confirm.confirm([command])
        if isinstance(payment, PaymentView) and payment.state is PaymentState.AWAITING_OTP:
            (payment,) = await self._confirm.send_codes([SendCode(payment_id=payment.payment_id)])
        if isinstance(payment, PayflowError):
            raise _with_retry(payment)
        return payment

    async def _await_end(self, payment: PaymentView) -> PaymentView:
        query = AwaitEnd(payment_id=payment.payment_id, wait_s=self._bank_wait_s)
        (later,) = await self._confirm.await_end([query])
        return payment if isinstance(later, PayflowError) else later


def idempotency_key(scope: Scope) -> str:
    """The request's Idempotency-Key. Raises MissingIdempotencyKey or InvalidIdempotencyKey."""
    keys = [value for name, value in scope["headers"] if name == _KEY_HEADER]
    if not keys or keys == [b""]:
        raise MissingIdempotencyKey
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise InvalidIdempotencyKey
    return str(keys[0], "ascii")


def command_of(body: PaymentFields, *, customer_id: str, key: str, otp: str | None = None) -> ConfirmPayment:
    """What is asked of confirm. Raises UnreadableBody for an `execute_at` that is no instant."""
    given = body.creditor
    creditor = None if given is None else Creditor(name=given.name, country=given.country, agent=given.agent)
    execute_at = None if body.execute_at is None else _execute_at(body.execute_at)
    # An IBAN may come as it is printed; from here on it has one form.
    creditor_account = body.to_account.replace(" ", "")
    return ConfirmPayment(
        customer_id=customer_id,
        idempotency_key=key,
        fingerprint=fingerprint(
            transaction_id=body.transaction_id,
            customer_id=customer_id,
            amount=body.amount,
            currency=body.currency,
            debtor_account=body.from_account,
            creditor_account=creditor_account,
            creditor=creditor,
            remittance_information=body.remittance_information,
            execute_at=execute_at,
        ),
        transaction_id=body.transaction_id,
        amount=body.amount,
        currency=body.currency,
        debtor_account=body.from_account,
        creditor_account=creditor_account,
        creditor=creditor,
        remittance_information=body.remittance_information,
        otp=otp or None,
        traceparent=current_traceparent.get(),
        execute_at=execute_at,
    )


def _execute_at(text: str) -> datetime:
    try:
        return read_instant("execute_at", text)
    except ValueError as error:
        raise UnreadableBody(str(error), field="execute_at") from None


def _with_retry(error: PayflowError) -> PayflowError:
    """409 while a process works on the payment, and 503, tell when to ask again."""
    if error.code == "PAYMENT_IN_PROGRESS" or isinstance(error, UnknownOutcome):
        error.extra.setdefault("retry_after_s", 1)
    return error
