"""The one place that knows HTTP status codes and ISO 20022 reasons: error code -> RFC 9457 problem type."""

from __future__ import annotations

from typing import Final

import msgspec

TYPE_BASE: Final = "https://docs.payflow.example/problems/"


class ProblemType(msgspec.Struct, frozen=True, kw_only=True):
    """An RFC 9457 problem type. `iso_reason` is the ISO 20022 external status reason, where one fits."""

    code: str
    status: int
    title: str
    detail: str
    iso_reason: str | None = None

    @property
    def type(self) -> str:
        """The problem type's URI."""
        return TYPE_BASE + self.code.lower().replace("_", "-")


_ROWS: Final = (
    # 400: not readable
    ("MALFORMED_REQUEST", 400, "Malformed request", "The request could not be read.", None),
    ("MISSING_REQUIRED_FIELDS", 400, "Missing required fields", "Required fields are missing.", None),
    ("MISSING_IDEMPOTENCY_KEY", 400, "Idempotency key missing", "Send an Idempotency-Key header.", None),
    (
        "INVALID_IDEMPOTENCY_KEY",
        400,
        "Idempotency key invalid",
        "An Idempotency-Key is 1 to 255 printable ASCII characters.",
        None,
    ),
    # 401, 403
    ("INVALID_CREDENTIALS", 401, "Invalid credentials", "User name or password is wrong.", None),
    ("ACCESS_TOKEN_REQUIRED", 401, "Access token required", "Send Authorization: Bearer <access token>.", None),
    ("INVALID_TOKEN", 401, "Invalid token", "The token is not valid or has expired; sign in again.", None),
    ("TOKEN_REVOKED", 401, "Token revoked", "The token was revoked; sign in again.", None),
    ("SERVICE_IDENTITY_REQUIRED", 401, "Service identity required", "Calls between services are signed.", None),
    ("FORBIDDEN", 403, "Forbidden", "This is not allowed for the signed-in user.", None),
    ("ACCOUNT_NOT_OWNED", 403, "Account not owned", "from_account is not an account of this customer.", None),
    ("REVIEW_OWN_PAYMENT", 403, "Own payment", "Nobody decides about a payment of their own.", None),
    ("RETURN_OWN_PAYMENT", 403, "Own payment", "Nobody returns a payment of their own.", None),
    (
        "FOUR_EYES_REQUIRED",
        403,
        "Second person required",
        "Another person than the one who asked for it decides about it.",
        None,
    ),
    ("CALLBACK_NOT_SIGNED", 403, "Callback not signed", "The vendor has not signed this call, or too long ago.", None),
    ("CALLER_NOT_ALLOWED", 403, "Caller not allowed", "This service may not call this operation.", None),
    # 404, 405, 408, 413, 415, 431
    ("NOT_FOUND", 404, "Not found", "There is nothing at this address.", None),
    ("PAYMENT_NOT_FOUND", 404, "Payment not found", "No such payment.", None),
    ("BULK_NOT_FOUND", 404, "Bulk order not found", "No such bulk order.", None),
    ("RETURN_NOT_FOUND", 404, "Return not found", "No such return.", None),
    ("REVIEW_NOT_FOUND", 404, "Review not found", "No such review case.", None),
    ("USER_NOT_FOUND", 404, "User not found", "No such user.", None),
    ("CUSTOMER_NOT_FOUND", 404, "Customer not found", "No such customer.", None),
    ("VERIFICATION_NOT_FOUND", 404, "Verification not found", "The customer has no verification record.", None),
    ("ASSESSMENT_NOT_FOUND", 404, "Assessment not found", "The payment has no risk assessment.", None),
    ("MESSAGE_NOT_FOUND", 404, "Message not found", "No such message.", None),
    ("WEBHOOK_NOT_FOUND", 404, "Webhook not found", "No such webhook.", None),
    ("WEBHOOK_DELIVERY_NOT_FOUND", 404, "Delivery not found", "The webhook has no such delivery.", None),
    ("DEVICE_NOT_FOUND", 404, "Device not found", "No such device.", None),
    ("VENDOR_NOT_IN_USE", 404, "Not found", "Nothing is called back here.", None),
    ("INSTRUCTION_NOT_FOUND", 404, "Instruction not found", "No instruction for this payment.", None),
    ("METHOD_NOT_ALLOWED", 405, "Method not allowed", "This address does not take that method.", None),
    ("REQUEST_TIMEOUT", 408, "Request time-out", "The request did not arrive in time.", None),
    ("PAYLOAD_TOO_LARGE", 413, "Payload too large", "The body is larger than 64 KB.", None),
    ("TOO_MANY_ITEMS", 413, "Too many payments", "The file has more payments than a bulk order may have.", None),
    ("UNSUPPORTED_MEDIA_TYPE", 415, "Unsupported media type", "Send Content-Type: application/json.", None),
    ("HEADERS_TOO_LARGE", 431, "Headers too large", "The request's header fields are too large.", None),
    # 409
    ("PAYMENT_IN_PROGRESS", 409, "Payment in progress", "This payment is being worked on; ask again.", None),
    (
        "TRANSACTION_EXISTS",
        409,
        "Transaction exists",
        "A payment with this transaction_id exists under another Idempotency-Key.",
        "AM05",
    ),
    (
        "UPLOAD_GAP",
        409,
        "Upload does not continue the file",
        "Send the file from the line that next_line names, or from its beginning.",
        None,
    ),
    (
        "UPLOAD_INCOMPLETE",
        409,
        "The file is not whole",
        "Send the rest of the file from the line that next_line names, or correct Upload-Items.",
        None,
    ),
    ("BULK_ENDED", 409, "Bulk order ended", "The bulk order has ended.", None),
    ("ILLEGAL_TRANSITION", 409, "Illegal transition", "The payment's state does not allow this.", None),
    ("NOT_CANCELLABLE", 409, "Not cancellable", "The payment can no longer be cancelled.", None),
    ("NOT_RETURNABLE", 409, "Not returnable", "Only a completed payment can be returned.", None),
    ("OTHER_REFERENCE", 409, "Another reference", "Another reference was named, and waits to be confirmed.", None),
    ("RETURN_ALREADY_DECIDED", 409, "Return decided", "The return does not wait for a decision.", None),
    ("REVIEW_ALREADY_DECIDED", 409, "Review decided", "The case was decided already.", None),
    ("ALREADY_EXISTS", 409, "Already exists", "A record with this id exists with other contents.", None),
    ("COMMAND_ID_REUSED", 409, "Command id reused", "This command id was used with other content.", None),
    ("ASSESSMENT_MISMATCH", 409, "Assessment mismatch", "The payment was assessed for other contents.", None),
    ("USER_EXISTS", 409, "User exists", "The user name is taken.", None),
    ("HOLD_NOT_FOUND", 409, "Hold not found", "The payment holds no funds.", None),
    ("CAPTURE_TOO_LARGE", 409, "Capture too large", "More is to be captured than the payment holds.", None),
    ("ALREADY_BOOKED", 409, "Already booked", "The payment's money has moved.", None),
    ("WEBHOOK_DISABLED", 409, "Webhook disabled", "Nothing is sent to a disabled webhook; enable it first.", None),
    ("CALLBACK_REPLAYED", 409, "Callback repeated", "All that this call tells was told before.", None),
    ("STALE_COMMAND", 409, "Stale command", "Another process has taken this payment over.", None),
    # 422: readable and refused
    ("PAYMENT_ENDED", 422, "Payment ended", "The payment was ended before it was made.", None),
    ("VALIDATION_FAILED", 422, "Validation failed", "A value is not allowed.", None),
    ("INVALID_VERIFICATION", 422, "Invalid verification", "The verification contradicts itself.", None),
    ("NOTHING_TO_SCREEN", 422, "Nothing to screen", "A payment is assessed with the names of its parties.", None),
    ("INVALID_AMOUNT", 422, "Invalid amount", "The amount is not valid.", "AM12"),
    ("UNKNOWN_CURRENCY", 422, "Unknown currency", "The currency is not an ISO 4217 code.", "AM11"),
    ("CURRENCY_MISMATCH", 422, "Currency mismatch", "The currencies differ.", "AM03"),
    ("INSUFFICIENT_FUNDS", 422, "Insufficient funds", "The available balance does not cover the amount.", "AM04"),
    ("ACCOUNT_NOT_FOUND", 422, "Account not found", "No such account.", "AC01"),
    ("ACCOUNT_NOT_EMPTY", 422, "Account not empty", "Only an account without money and holds can be closed.", None),
    ("INSTANT_NOT_PASSED", 400, "Instant not passed", "Send an instant that has passed.", None),
    (
        "INVALID_ACCOUNT_NUMBER",
        422,
        "Invalid account number",
        "An account number is 1 to 34 letters, digits, dots, dashes or underscores, and begins with a letter or digit.",
        "AC01",
    ),
    ("INVALID_CUSTOMER", 422, "Invalid customer", "A customer needs a customer_id and a name.", None),
    ("ACCOUNT_CLOSED", 422, "Account closed", "The account is closed.", "AC04"),
    ("ACCOUNT_BLOCKED", 422, "Account blocked", "The account does not allow this payment.", "AC06"),
    ("SAME_ACCOUNT", 422, "Same account", "from_account and to_account are the same.", "AG01"),
    (
        "CREDITOR_UNREACHABLE",
        422,
        "Creditor unreachable",
        "to_account is no account here, no payable IBAN, and no account at a known bank.",
        "AC03",
    ),
    (
        "CREDITOR_NAME_REQUIRED",
        422,
        "Creditor's name required",
        "A payment to another bank needs creditor.name.",
        "BE22",
    ),
    ("UNKNOWN_AGENT", 422, "Unknown bank", "There is no route to that bank.", "RC03"),
    (
        "END_TO_END_ID_TAKEN",
        422,
        "End-to-end id taken",
        "Another payment to that bank carries this end-to-end id.",
        "AM05",
    ),
    ("INVALID_INSTRUCTION", 422, "Invalid instruction", "The payment cannot be told to the other bank.", "FF01"),
    (
        "DUPLICATE_TRANSACTION_ID",
        422,
        "Transaction id repeated",
        "An earlier line of the file has this transaction_id.",
        "AM05",
    ),
    ("IDEMPOTENCY_KEY_REUSED", 422, "Idempotency key reused", "This key was used with other content.", None),
    ("INVALID_OTP", 422, "Invalid one-time password", "The one-time password is wrong.", None),
    (
        "OTP_EXPIRED",
        422,
        "One-time password expired",
        "The one-time password is no longer valid; send the payment again without otp for a new one.",
        None,
    ),
    ("PAYMENT_CANCELLED", 422, "Payment cancelled", "The payment was cancelled.", "CUST"),
    ("PAYMENT_EXPIRED", 422, "Payment expired", "The payment was not completed in time.", "TM01"),
    (
        "INVALID_EXECUTION_TIME",
        422,
        "Execution time not allowed",
        "execute_at must be in the future, and not too far ahead.",
        "DT01",
    ),
    (
        "RETURN_NOT_POSSIBLE",
        422,
        "Return not possible",
        "The money has left for another bank: ask that bank to return it.",
        "NARR",
    ),
    (
        "RETURN_EXCEEDS_PAYMENT",
        422,
        "Return exceeds payment",
        "All returns of a payment together may not come to more than it was.",
        "AM09",
    ),
    ("PAYMENT_REFUSED", 422, "Payment refused", "The payment was refused.", "NARR"),
    ("NO_DEMO_CHANNEL", 422, "No demo channel", "The demo channel is switched off.", None),
    ("NO_PUSH_CHANNEL", 422, "No push channel", "This installation sends no push messages.", None),
    ("UNREADABLE_CALLBACK", 422, "Callback not readable", "The call is signed and not in the vendor's format.", None),
    ("UNKNOWN_PREFERENCE", 422, "Unknown preference", "There is no such language or channel.", None),
    ("INVALID_WEBHOOK", 422, "Invalid webhook", "The address or an event type of the webhook is not allowed.", None),
    ("TOO_MANY_WEBHOOKS", 422, "Too many webhooks", "Delete a webhook before registering another one.", None),
    # 429, 500, 503
    ("RATE_LIMITED", 429, "Too many requests", "Too many requests; wait before the next.", None),
    (
        "TOO_MANY_BULKS",
        429,
        "Too many bulk orders",
        "Too many bulk orders run, or have a file that is not whole. GET /payments/bulk lists them: wait until one has"
        " ended, send the rest of its file, or cancel one by POST /payments/bulk/{bulk_id}/cancel.",
        None,
    ),
    ("TOO_MANY_OTPS", 429, "Too many one-time passwords", "Wait before asking for another one.", None),
    ("INTERNAL_ERROR", 500, "Internal error", "Something went wrong on our side; the trace id finds it.", None),
    ("SERVICE_UNAVAILABLE", 503, "Service unavailable", "Nothing happened; repeat with the same key.", "AB05"),
    ("OVERLOADED", 503, "Overloaded", "Too much work is waiting; repeat with the same key.", "AB05"),
    ("DEADLINE_EXCEEDED", 503, "Deadline exceeded", "It took too long; repeat with the same key.", "AB05"),
    (
        "UNKNOWN_OUTCOME",
        503,
        "Outcome not yet known",
        "The outcome is not known yet; repeat with the same key to learn it.",
        "AB08",
    ),
    # tools/new_service.py adds rows above this line.
)

# What the external status reasons of ISO 20022 mean that banks refuse payments with.
_BANK_REASONS: Final = {
    "AB05": "the creditor's bank did not answer in time",
    "AB06": "a bank on the way did not answer in time",
    "AB08": "the creditor's bank is offline",
    "AC01": "the account number is wrong",
    "AC02": "the debtor's account number is wrong",
    "AC03": "the creditor's account number is wrong",
    "AC04": "the account is closed",
    "AC05": "the debtor's account is closed",
    "AC06": "the account is blocked",
    "AC07": "the creditor's account is closed",
    "AC13": "the debtor's account is of a kind that cannot be used for this",
    "AC14": "the creditor's account is of a kind that cannot be used for this",
    "AG01": "this kind of payment is forbidden on the account",
    "AG03": "this kind of payment is not supported",
    "AM01": "the amount is zero",
    "AM02": "the amount is not allowed",
    "AM03": "the currency is not allowed",
    "AM04": "the funds are insufficient",
    "AM05": "it has the payment already",
    "AM09": "the amount is not the one that was agreed",
    "AM12": "the amount is invalid",
    "AM14": "the amount is above a limit of the bank's",
    "BE01": "the creditor's name does not fit the account",
    "BE04": "the creditor's address is missing or wrong",
    "BE06": "the creditor is not known",
    "DUPL": "it has the payment already",
    "MD07": "the account's holder has died",
    "MS02": "the customer did not say why",
    "MS03": "the bank does not say why",
    "RC01": "the bank's identifier is wrong",
    "RC03": "the debtor's bank is not known",
    "RC04": "the creditor's bank is not known",
    "RR04": "regulatory reasons",
}

PROBLEMS: Final[dict[str, ProblemType]] = {
    code: ProblemType(code=code, status=status, title=title, detail=detail, iso_reason=iso)
    for code, status, title, detail, iso in _ROWS
}


def problem_for(code: str) -> ProblemType:
    """The problem type of an error code; an unknown code is INTERNAL_ERROR, so that nothing leaks."""
    return PROBLEMS.get(code) or PROBLEMS["INTERNAL_ERROR"]


def bank_refusal(reason_code: str | None) -> str:
    """The detail of a payment that another bank refused; `reason_code` is an ISO 20022 status reason, or its own."""
    if not reason_code:
        return "The other bank refused the payment (no reason given)."
    words = _BANK_REASONS.get(reason_code)
    return f"The other bank refused the payment{f': {words}' if words else ''} ({reason_code})."
