"""What the other bank's word means, and what can be told to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import NAMESPACE_OID, UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow.contracts.partner_bank import SubmitCreditTransfer
from payflow.kernel.machine import IllegalTransition
from payflow.services.partner_bank.domain import (
    LIFE,
    NAME_LENGTH_MAX,
    SILENCE,
    BankWord,
    Instruction,
    Pauses,
    Status,
    Word,
    account_number,
    incoming_payment_id,
    is_iban,
    outgoing_instruction,
    plain_text,
    refuse_submission,
    same_bank,
    settled,
    uetr_of,
    with_word,
    word_of,
)
from payflow.services.partner_bank.rails.http import _NoAnswer, words_in
from payflow.services.partner_bank.rails.iso20022 import (
    Header,
    StatusMessage,
    StatusQuery,
    TransactionStatus,
    build_statuses,
)
from payflow.services.partner_bank.rails.iso20022.names import PACS_004, PACS_008
from payflow.services.partner_bank.rails.signing import BankSecrets, is_answer_signed, is_signed, sign, sign_answer
from tests.builders import NOON, new_id

ERIKA = "DE08990100100000001001"
PAUSES = Pauses()


def a_command(**changes: object) -> SubmitCreditTransfer:
    values: dict[str, object] = {
        "payment_id": new_id(),
        "fencing_token": 1,
        "end_to_end_id": new_id().hex,
        "amount_minor": 1000,
        "currency": "EUR",
        "debtor_name": "Ada Byron",
        "debtor_account": "ACC001",
        "creditor_name": "Erika Musterfrau",
        "creditor_account": ERIKA,
        "creditor_agent": "NORDDEFFXXX",
    }
    return SubmitCreditTransfer(**{**values, **changes})


def an_instruction(**changes: object) -> Instruction:
    return outgoing_instruction(
        a_command(**changes), agent_bic="NORDDEFFXXX", message_id="PF1", now=NOON, enquire_at=NOON
    )


@pytest.mark.parametrize(
    ("status", "reason", "to_a_payment", "to_an_enquiry"),
    [
        ("ACSC", None, Word.ACCEPTED, Word.ACCEPTED),
        ("ACCC", None, Word.ACCEPTED, Word.ACCEPTED),
        ("ACWP", None, Word.ACCEPTED, Word.ACCEPTED),
        ("RJCT", "AC04", Word.REJECTED, Word.REJECTED),
        ("RJCT", None, Word.REJECTED, Word.REJECTED),
        ("PDNG", None, Word.UNKNOWN, Word.UNKNOWN),
        ("ACSP", None, Word.UNKNOWN, Word.UNKNOWN),
        ("ACTC", None, Word.UNKNOWN, Word.UNKNOWN),
        ("BLCK", None, Word.UNKNOWN, Word.UNKNOWN),
        (None, None, Word.UNKNOWN, Word.UNKNOWN),
        ("WHAT", "EVER", Word.UNKNOWN, Word.UNKNOWN),
        ("RJCT", "AG09", Word.UNKNOWN, Word.NOT_RECEIVED),
        ("RJCT", "NOOR", Word.UNKNOWN, Word.NOT_RECEIVED),
        ("RJCT", "AM05", Word.UNKNOWN, Word.REJECTED),
        ("RJCT", "DUPL", Word.UNKNOWN, Word.REJECTED),
    ],
)
def test_only_a_final_word_is_believed(
    status: str | None, reason: str | None, to_a_payment: Word, to_an_enquiry: Word
) -> None:
    sent = word_of(status=status, reason_code=reason, is_enquiry=False)
    asked = word_of(status=status, reason_code=reason, is_enquiry=True)

    assert (sent.word, asked.word) == (to_a_payment, to_an_enquiry)


def test_the_first_final_word_stays() -> None:
    accepted = with_word(an_instruction(), BankWord(Word.ACCEPTED), now=NOON, pauses=PAUSES)

    later = with_word(accepted, BankWord(Word.REJECTED, "AC01"), now=NOON + timedelta(hours=1), pauses=PAUSES)

    assert later is accepted


@pytest.mark.parametrize("word", [Word.UNKNOWN, Word.NOT_RECEIVED])
def test_a_word_that_is_not_final_changes_nothing(word: Word) -> None:
    instruction = an_instruction()

    assert with_word(instruction, BankWord(word), now=NOON, pauses=PAUSES) is instruction


def test_a_settled_incoming_payment_is_never_settled_again() -> None:
    credited = replace(an_instruction(), status=Status.CREDITED)

    with pytest.raises(IllegalTransition):
        settled(credited, status=Status.REJECTED, reason_code="AC01", now=NOON)


def test_outgoing_and_incoming_lives_never_meet_but_in_rejection() -> None:
    assert sorted(LIFE.transitions()) == [
        (Status.HELD_IN_SUSPENSE, Status.CREDITED),
        (Status.HELD_IN_SUSPENSE, Status.RETURNING),
        (Status.PENDING, Status.CREDITED),
        (Status.PENDING, Status.HELD_IN_SUSPENSE),
        (Status.PENDING, Status.REJECTED),
        (Status.RETURNING, Status.RETURNED),
        (Status.UNKNOWN, Status.ACCEPTED),
        (Status.UNKNOWN, Status.REJECTED),
    ]


def test_pauses_double_up_to_the_longest() -> None:
    pauses = [Pauses(first_s=0.5, longest_s=30).after(attempts).total_seconds() for attempts in (0, 1, 2, 5, 6, 7, 500)]

    assert pauses == [0.5, 1.0, 2.0, 16.0, 30.0, 30.0, 30.0]


@given(st.uuids())
def test_a_uetr_has_the_form_of_a_uuid4_and_belongs_to_its_payment(payment_id: UUID) -> None:
    uetr = UUID(uetr_of(payment_id))

    assert uetr.version == 4
    assert uetr_of(payment_id) == str(uetr)
    assert uetr != payment_id


def test_the_same_end_to_end_id_of_two_banks_is_two_payments() -> None:
    nord = incoming_payment_id(agent_bic="NORDDEFFXXX", end_to_end_id="E1")

    assert nord == incoming_payment_id(agent_bic="NORDDEFFXXX", end_to_end_id="E1")
    assert nord != incoming_payment_id(agent_bic="LUTEFRPPXXX", end_to_end_id="E1")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (ERIKA, True),
        ("FR7699002000010000000200107", True),
        ("GB82WEST12345698765432", True),
        ("DE09990100100000001001", False),
        ("de08990100100000001001", False),
        ("ACC001", False),
        ("", False),
    ],
)
def test_an_iban_is_known_by_its_form_and_check_digits(number: str, expected: bool) -> None:
    assert is_iban(number) is expected


def test_an_iban_travels_without_blanks_and_another_number_as_it_is() -> None:
    assert account_number("de08 9901 0010 0000 0010 01") == ERIKA
    assert account_number(" 10-00 x ") == "10-00 x"


@given(st.text())
def test_plain_text_is_what_a_message_can_carry(text: str) -> None:
    plain = plain_text(text)

    assert plain is None or (0 < len(plain) <= NAME_LENGTH_MAX and plain == plain.strip() and "\n" not in plain)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"creditor_account": "DE08 9901 0010 0000 0010 01"}, None),
        ({"creditor_name": None}, None),
        ({"debtor_name": "x" * 500}, None),
        ({"amount_minor": 0}, "INVALID_AMOUNT"),
        ({"amount_minor": -1}, "INVALID_AMOUNT"),
        ({"currency": "XXX"}, "UNKNOWN_CURRENCY"),
        ({"end_to_end_id": ""}, "INVALID_INSTRUCTION"),
        ({"end_to_end_id": "x" * 36}, "INVALID_INSTRUCTION"),
        ({"end_to_end_id": "a\nb"}, "INVALID_INSTRUCTION"),
        ({"creditor_account": "1" * 35}, "INVALID_INSTRUCTION"),
        ({"creditor_account": "12\x0034"}, "INVALID_INSTRUCTION"),
        ({"debtor_name": " \x00 "}, "INVALID_INSTRUCTION"),
    ],
)
def test_what_does_not_fit_into_the_message_is_refused_before_it(changes: dict[str, object], code: str | None) -> None:
    refusal = refuse_submission(a_command(**changes))

    assert (refusal.code if refusal else None) == code


@pytest.mark.parametrize(
    ("bic", "other", "expected"),
    [
        ("PAYFDEFFXXX", "PAYFDEFFXXX", True),
        ("PAYFDEFF", "PAYFDEFFXXX", True),
        ("PAYFDEFF001", "PAYFDEFFXXX", False),
        (None, "PAYFDEFFXXX", False),
    ],
)
def test_a_bic_of_eight_names_the_head_office(bic: str | None, other: str, expected: bool) -> None:
    assert same_bank(bic, other) is expected


def an_answer(*statuses: TransactionStatus, sender: str | None = "NORDDEFFXXX") -> bytes:
    return build_statuses(StatusMessage(Header("NB1", NOON, sender, "PAYFDEFFXXX"), list(statuses)))


def asked(*instructions: Instruction) -> dict[UUID, StatusQuery]:
    return {
        one.payment_id: StatusQuery(one.message_id, one.instruction_id, one.end_to_end_id, one.uetr)
        for one in instructions
    }


def test_an_answer_speaks_only_of_the_payments_whose_ids_it_repeats() -> None:
    named, other_uetr, other_message, unasked = (an_instruction() for _ in range(4))

    words = words_in(
        an_answer(
            TransactionStatus("PF1", named.instruction_id, named.end_to_end_id, named.uetr, "ACSC"),
            TransactionStatus("PF1", None, other_uetr.end_to_end_id, uetr_of(new_id()), "ACSC"),
            TransactionStatus("PF2", None, other_message.end_to_end_id, None, "RJCT", "AC01"),
            TransactionStatus("PF1", None, unasked.end_to_end_id, None, "RJCT", "AC01"),
            TransactionStatus("PF1", None, None, named.uetr, "RJCT", "AC01"),
        ),
        asked=asked(named, other_uetr, other_message),
        agent_bic="NORDDEFFXXX",
        is_enquiry=False,
    )

    assert words == {named.payment_id: BankWord(Word.ACCEPTED)}


THEIRS, NEW = "0f7a9f62-6b7d-4c5e-9a51-6dd5b7a1c001", uuid5(NAMESPACE_OID, "a return")


@pytest.mark.parametrize(
    ("named", "is_believed"),
    [
        ({}, False),
        ({"original_message_id": "NB77", "original_name": PACS_008}, False),
        ({"original_message_id": "PFR1", "original_name": PACS_008}, False),
        ({"instruction_id": "theirs"}, False),
        ({"instruction_id": NEW.hex}, True),
        ({"original_message_id": "PFR1", "original_name": PACS_004}, True),
        ({"original_message_id": "PFR1", "original_name": "pacs.004.001.02"}, True),
    ],
)
@pytest.mark.parametrize(("status", "word"), [("ACSC", Word.ACCEPTED), ("RJCT", Word.REJECTED)])
def test_a_final_word_about_a_return_names_what_is_the_returns_alone(
    named: dict[str, str], is_believed: bool, status: str, word: Word
) -> None:
    ids = {"original_message_id": None, "instruction_id": None, **named}
    said = TransactionStatus(end_to_end_id="E1", uetr=THEIRS, status=status, **ids)

    words = words_in(
        an_answer(said),
        asked={NEW: StatusQuery("PFR1", NEW.hex, "E1", THEIRS, PACS_004)},
        agent_bic="NORDDEFFXXX",
        is_enquiry=True,
    )

    assert (words.get(NEW, SILENCE) == BankWord(word)) is is_believed


def test_that_a_return_never_came_is_believed_for_it_is_only_sent_again() -> None:
    said = TransactionStatus(None, None, "E1", THEIRS, "RJCT", "AG09")

    words = words_in(
        an_answer(said),
        asked={NEW: StatusQuery("PFR1", NEW.hex, "E1", THEIRS, PACS_004)},
        agent_bic="NORDDEFFXXX",
        is_enquiry=True,
    )

    assert words == {NEW: BankWord(Word.NOT_RECEIVED, "AG09")}


def test_a_word_about_a_return_is_none_about_a_payment_with_its_ids() -> None:
    instruction = an_instruction()
    said = TransactionStatus(
        "PF1", None, instruction.end_to_end_id, instruction.uetr, "ACSC", original_name="pacs.004.001.09"
    )

    words = words_in(an_answer(said), asked=asked(instruction), agent_bic="NORDDEFFXXX", is_enquiry=True)

    assert words == {}


def test_two_words_about_one_payment_are_none() -> None:
    instruction = an_instruction()
    yes = TransactionStatus("PF1", None, instruction.end_to_end_id, None, "ACSC")
    no = TransactionStatus("PF1", None, instruction.end_to_end_id, None, "RJCT", "AC01")

    words = words_in(an_answer(yes, no), asked=asked(instruction), agent_bic="NORDDEFFXXX", is_enquiry=False)

    assert words == {}


def test_an_answer_in_the_name_of_another_bank_is_none() -> None:
    instruction = an_instruction()
    yes = TransactionStatus("PF1", None, instruction.end_to_end_id, None, "ACSC")

    with pytest.raises(_NoAnswer):
        words_in(
            an_answer(yes, sender="LUTEFRPPXXX"), asked=asked(instruction), agent_bic="NORDDEFFXXX", is_enquiry=False
        )


def test_a_signature_is_for_one_body_one_bank_and_one_secret() -> None:
    signature = sign(b"pay", bank_bic="NORDDEFFXXX", secret="s")

    assert is_signed(b"pay", bank_bic="NORDDEFFXXX", secret="s", signature=signature)
    assert not is_signed(b"pay!", bank_bic="NORDDEFFXXX", secret="s", signature=signature)
    assert not is_signed(b"pay", bank_bic="LUTEFRPPXXX", secret="s", signature=signature)
    assert not is_signed(b"pay", bank_bic="NORDDEFFXXX", secret="t", signature=signature)
    assert not is_signed(b"pay", bank_bic="NORDDEFFXXX", secret="s", signature="")


def test_an_answers_signature_is_for_one_request_too() -> None:
    whose = {"bank_bic": "NORDDEFFXXX", "secret": "s"}
    request = sign(b"pay", bank_bic="PAYFDEFFXXX", secret="s")
    other_request = sign(b"pay more", bank_bic="PAYFDEFFXXX", secret="s")
    signature = sign_answer(b"paid", **whose, request_signature=request)

    assert is_answer_signed(b"paid", **whose, request_signature=request, signature=signature)
    assert not is_answer_signed(b"paid!", **whose, request_signature=request, signature=signature)
    assert not is_answer_signed(b"paid", **whose, request_signature=other_request, signature=signature)
    assert not is_answer_signed(b"paid", **whose, request_signature=request, signature=sign(b"paid", **whose))
    assert not is_answer_signed(
        b"paid", bank_bic="LUTEFRPPXXX", secret="s", request_signature=request, signature=signature
    )
    assert not is_signed(b"paid", **whose, signature=signature)


def test_a_bank_with_a_secret_of_its_own_is_not_known_by_the_common_one() -> None:
    secrets = BankSecrets.read('{"NORDDEFFXXX": "own"}', for_all="common")

    assert (secrets.of("NORDDEFFXXX"), secrets.of("LUTEFRPPXXX")) == ("own", "common")
    with pytest.raises(ValueError, match="BIC to secret"):
        BankSecrets.read("[]", for_all="")
