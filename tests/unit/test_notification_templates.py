"""The texts of messages: every kind in every language, money and time as the language has them, nothing but values."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from payflow.contracts.notification import SendOtpCode
from payflow.contracts.topics import PaymentChanged
from payflow.kernel.money import Money
from payflow.platform.eventlog import event_of
from payflow.services.notification.domain import VALUES_OF, Kind, Value, notices_of, values_of_code
from payflow.services.notification.templates import FileTemplates, check_folder
from tests.builders import NOON, new_id

TEMPLATES = FileTemplates.load()
LANGUAGES = sorted(TEMPLATES.languages())
GSM_7 = set(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà^{}\\[~]|€"
)
# Words that say that money has moved.
DONE = ("was made", "were made", "wurde ausgeführt", "wurden ausgeführt", "received", "erhalten", "completed")


def values(kind: Kind, **changes: Value) -> dict[str, Value]:
    examples: dict[str, Value] = {
        "amount": Money(123_456_789, "USD"),
        "expires": NOON + timedelta(minutes=5),
        "transaction_id": "txn_001",
        "creditor": "…1001",
        "debtor": "…2002",
        "agent": "NORDDEFFXXX",
        "bulk_id": "bulk-1",
        "code": "735264",
        "paid": (Money(123_456_789, "EUR"), Money(123_456_789, "USD")),
        **dict.fromkeys(("total", "made", "waiting", "codes", "unpaid"), 1234),
    }
    return {name: (examples | changes)[name] for name in VALUES_OF[kind]}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_all_its_texts_in_every_language(kind: Kind, language: str) -> None:
    texts = TEMPLATES.render(kind, language, values(kind))

    assert texts.subject
    assert texts.short
    assert texts.body
    assert "\n" not in texts.subject + texts.short
    assert "{" not in "".join(texts)
    assert "735264" not in texts.subject


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", list(Kind))
def test_a_short_text_fits_two_plain_sms(kind: Kind, language: str) -> None:
    short = TEMPLATES.render(kind, language, values(kind)).short

    assert set(short) <= GSM_7
    assert len(short) <= 306


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_but_the_end_says_that_money_has_moved(kind: Kind, language: str) -> None:
    of_ends = {Kind.PAYMENT_COMPLETED, Kind.INCOMING_CREDITED, Kind.RETURN_PAID, Kind.RETURN_RECEIVED}
    texts = " ".join(TEMPLATES.render(kind, language, values(kind)))

    says_done = any(word in texts for word in DONE)
    says_not = any(word in texts for word in ("not made", "nicht ausgeführt"))

    if kind in of_ends:
        assert says_done or kind in (Kind.RETURN_RECEIVED, Kind.RETURN_PAID)
    elif kind is not Kind.REVIEW_CLEARED:  # "so haben Sie es erhalten" is about the one-time password
        assert not says_done or says_not


@pytest.mark.parametrize("type_", ["payment.awaiting_otp", "payment.held", "payment.submitted"])
def test_a_payment_on_its_way_is_told_to_nobody(type_: str) -> None:
    data = PaymentChanged(
        payment_id=new_id(),
        transaction_id="txn_001",
        customer_id="cust_001",
        state="SUBMITTED",
        path=["RECEIVED", "SUBMITTED"],
        amount_minor=100,
        currency="USD",
        debtor_account="…1",
        creditor_account="…2",
    )
    event = event_of(
        id=new_id(), source="confirm", type=type_, subject="p", version=1, time=NOON, data=data, traceparent=""
    )

    assert notices_of(event) == []


@pytest.mark.parametrize(
    ("amount", "english", "german"),
    [
        (Money(123_456_789, "USD"), "1,234,567.89 USD", "1.234.567,89 USD"),
        (Money(5_000, "JPY"), "5,000 JPY", "5.000 JPY"),
        (Money(1, "KWD"), "0.001 KWD", "0,001 KWD"),
        # Where CLDR and ISO 4217 count decimals differently, the ledger's are told.
        (Money(12_345, "HUF"), "123.45 HUF", "123,45 HUF"),
        (Money(10**16, "EUR"), "100,000,000,000,000.00 EUR", "100.000.000.000.000,00 EUR"),
        ("-", "-", "-"),
    ],
)
def test_money_is_exact_and_written_as_the_language_does(amount: Any, english: str, german: str) -> None:
    for language, written in (("en", english), ("de", german)):
        texts = TEMPLATES.render(Kind.PAYMENT_COMPLETED, language, values(Kind.PAYMENT_COMPLETED, amount=amount))

        assert f"{written}\n" in texts.body


@pytest.mark.parametrize(
    ("paid", "english", "german"),
    [
        ((), "Made: 1\n", "Ausgeführt: 1\n"),
        ((Money(19950, "USD"),), "Made: 1 (199.50 USD)\n", "Ausgeführt: 1 (199,50 USD)\n"),
        ((Money(5, "JPY"), Money(150, "USD")), "Made: 1 (5 JPY, 1.50 USD)\n", "Ausgeführt: 1 (5 JPY, 1,50 USD)\n"),
    ],
)
@pytest.mark.parametrize("kind", [Kind.BULK_COMPLETED, Kind.BULK_CANCELLED, Kind.BULK_EXPIRED])
def test_what_a_file_has_paid_is_told_by_currency(
    kind: Kind, paid: tuple[Money, ...], english: str, german: str
) -> None:
    for language, written in (("en", english), ("de", german)):
        texts = TEMPLATES.render(kind, language, values(kind, paid=paid, made=1))

        assert written in texts.body
        assert ("(" in texts.short) is bool(paid)


@pytest.mark.parametrize(
    ("zone", "written"), [("UTC", "12:05 UTC"), ("Europe/Berlin", "13:05 "), ("Asia/Tokyo", "21:05 ")]
)
def test_an_instant_is_told_in_the_installations_zone(zone: str, written: str) -> None:
    texts = FileTemplates.load(time_zone=zone).render(Kind.OTP_CODE, "en", values(Kind.OTP_CODE))

    assert written in texts.body
    assert written in texts.short


def test_the_message_with_a_code_tells_what_the_code_is_for() -> None:
    command = SendOtpCode(
        challenge_id=new_id(),
        customer_id="cust_001",
        transaction_id="txn_002",
        code="012345",
        amount="15000.00",
        currency="USD",
        creditor="…1001",
        expires_at=NOON + timedelta(minutes=5),
    )

    texts = TEMPLATES.render(Kind.OTP_CODE, "en", values_of_code(command))

    assert "012345" not in texts.subject
    for part in ("012345", "txn_002", "15,000.00 USD", "…1001", "12:05 UTC"):
        assert part in texts.body
    for part in ("012345", "15,000.00 USD", "...1001", "12:05 UTC"):
        assert part in texts.short


def test_a_language_that_is_not_there_is_answered_in_english() -> None:
    given = values(Kind.PAYMENT_COMPLETED)

    assert TEMPLATES.render(Kind.PAYMENT_COMPLETED, "xx", given) == TEMPLATES.render(
        Kind.PAYMENT_COMPLETED, "en", given
    )


@pytest.mark.parametrize("chosen", ["{{ debtor }}", "{debtor}", "{% for x in [1] %}x{% endfor %}", "<b>&amp;"])
def test_what_a_customer_chose_is_told_as_it_is(chosen: str) -> None:
    texts = TEMPLATES.render(Kind.PAYMENT_COMPLETED, "en", values(Kind.PAYMENT_COMPLETED, transaction_id=chosen))

    assert texts.subject == f"Payment {chosen} was made"
    assert chosen in texts.body


def a_text(**blocks: str) -> str:
    whole = {"subject": "s", "short": "t", "body": "b"} | blocks
    return "".join(f"{{% block {name} %}}{text}{{% endblock %}}" for name, text in whole.items() if text)


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        (Kind.PAYMENT_COMPLETED, a_text(short=""), "there is no block short"),
        (Kind.PAYMENT_COMPLETED, a_text(body="{{ ammount }}"), "'ammount' is undefined"),
        (Kind.PAYMENT_COMPLETED, a_text(body="{{ code }}"), "'code' is undefined"),
        (Kind.OTP_CODE, a_text(subject="{{ code }}"), "'code' is undefined"),
        (Kind.PAYMENT_COMPLETED, a_text(body="{{ amount | dollars }}"), "dollars"),
        (Kind.PAYMENT_COMPLETED, a_text(body="{% if %}"), ""),
        (Kind.PAYMENT_COMPLETED, a_text(body="{{ amount.__class__.__mro__ }}"), "unsafe"),
        (Kind.PAYMENT_COMPLETED, a_text(body="{{ ''.__class__.__base__.__subclasses__() }}"), "unsafe"),
        (Kind.PAYMENT_COMPLETED, a_text(body="{% include '/etc/passwd' %}"), "no loader"),
        (Kind.PAYMENT_COMPLETED, a_text(body="{{ range(9) }}"), "undefined"),
    ],
)
def test_a_text_that_cannot_be_filled_in_or_reaches_for_more_stops_the_start(
    tmp_path: Path, kind: Kind, text: str, problem: str
) -> None:
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / f"{kind}.txt").write_text(text)

    with pytest.raises(ValueError, match=f"en/{kind}.txt: .*{problem}"):
        check_folder(str(tmp_path))


def test_own_texts_replace_ours_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "payment_completed.txt").write_text(a_text(short="Paid {{ amount | money }}"))

    own = FileTemplates.load(str(tmp_path))

    assert own.render(Kind.PAYMENT_COMPLETED, "en", values(Kind.PAYMENT_COMPLETED)).short == "Paid 1,234,567.89 USD"
    assert own.render(Kind.SESSION_ENDED, "en", {}) == TEMPLATES.render(Kind.SESSION_ENDED, "en", {})


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda folder: (folder / "fr").mkdir(), "language fr has no text for bulk_cancelled"),
        (lambda folder: (folder / "klingonish").mkdir(), "language klingonish"),
        (lambda folder: folder.rmdir(), "No such file"),
    ],
)
def test_a_folder_without_every_text_of_a_language_is_refused(tmp_path: Path, make: Any, problem: str) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    make(folder)

    with pytest.raises(ValueError, match=problem):
        check_folder(str(folder))


def test_a_zone_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="Mars/Olympus"):
        FileTemplates.load(time_zone="Mars/Olympus")
