"""The rules of `payflow verify`: what must never break, in words, and the query in rules.sql that looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from payflow.services.confirm.domain import MACHINE, RETURN_BEGINNINGS, RETURN_MACHINE

# Tokens, signing secrets, fields that would carry a secret, and whole IBANs.
SECRETS: Final = (
    r"eyJ[A-Za-z0-9_-]{10,}\.|whsec_|"
    r'"(otp|code|password|secret|access_token|refresh_token)"\s*:\s*"[^"]|'
    r"\m[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}\M"
)
# What settles races in the database itself: without these the services would still look right when nobody races.
GUARDS: Final = (
    ("account.journal_entry", "one_booking_per_payment"),
    ("account.account_balance", "customers_do_not_overdraw"),
    ("account.account_balance", "held_is_not_negative"),
    ("account.fund_reservations", "fund_reservations_pkey"),
    ("account.refused_command", "refused_command_pkey"),
    ("confirm.transactions", "one_payment_per_idempotency_key"),
    ("confirm.transactions", "one_payment_per_transaction_id"),
    ("confirm.transactions", "an_unfinished_payment_has_a_next_step"),
    ("confirm.payment_steps", "payment_steps_pkey"),
    ("confirm.bulk_order", "one_bulk_order_per_idempotency_key"),
    ("confirm.bulk_order", "an_unfinished_bulk_order_has_a_next_step"),
    ("confirm.bulk_chunk", "bulk_chunk_pkey"),
    ("confirm.return_total", "never_more_than_the_payment"),
    ("confirm.payment_return", "one_return_per_key"),
    ("confirm.payment_return", "four_eyes_are_two_people"),
    ("confirm.payment_return", "a_return_above_the_limit_goes_on_by_a_second_person"),
    ("risk.assessment", "assessment_pkey"),
    ("partner_bank.instruction", "one_payment_per_bank_and_end_to_end_id"),
    ("partner_bank.incoming_return", "four_eyes_are_two_people"),
    ("partner_bank.incoming_return", "a_return_above_the_limit_is_ended_by_a_second_person"),
    ("audit.audit_logs", "one_row_per_event"),
    ("notification.message", "one_message_of_a_kind_about_one_thing"),
    ("notification.delivery", "delivery_pkey"),
    ("notification.receipt", "a_word_of_a_vendor_counts_once"),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of an area, told in words; `query` is its name in rules.sql, `further` that query's own parameters."""

    area: str
    words: str
    query: str
    further: tuple[object, ...] = ()


def _legal_steps() -> tuple[list[str], list[str]]:
    steps = [("", "RECEIVED")]
    for source in MACHINE.states:
        steps += [(source.value, target.value) for target in MACHINE.states if MACHINE.allows(source, target)]
    # A request that is refused at once, and so never worked on, ends where it begins.
    steps.append(("", "REJECTED"))
    return [source for source, _ in steps], [target for _, target in steps]


def _legal_return_steps() -> tuple[list[str], list[str]]:
    steps = [("", state.value) for state in sorted(RETURN_BEGINNINGS)]
    steps += [(source.value, target.value) for source, target in RETURN_MACHINE.transitions()]
    return [source for source, _ in steps], [target for _, target in steps]


def _guards() -> tuple[list[str], list[str]]:
    return [relation for relation, _ in GUARDS], [constraint for _, constraint in GUARDS]


_L, _F, _P, _R, _B, _C, _A, _E, _S = (
    "ledger",
    "funds",
    "payments",
    "returns",
    "other banks",
    "checks",
    "audit",
    "events",
    "secrets",
)
RULES: Final = (
    Rule(_L, "every journal entry sums to zero, in one currency", "entries_balance"),
    Rule(_L, "all accounts of a currency sum to zero", "currencies_sum_to_zero"),
    Rule(_L, "every balance is the sum of its postings", "balances_are_the_sum_of_postings"),
    Rule(_L, "every running balance follows from the one before", "running_balances_follow"),
    Rule(_L, "held is the sum of open reservations", "held_is_the_sum_of_reservations"),
    Rule(_L, "no posting without an entry, no entry without postings", "postings_and_entries_belong_together"),
    Rule(_L, "no customer's available balance is negative", "nobody_is_overdrawn"),
    Rule(_L, "no customer's account ever paid what it did not have", "no_account_was_ever_overdrawn"),
    Rule(_L, "no account is ahead of the clock", "no_account_is_ahead_of_the_clock"),
    Rule(_L, "no service may change or delete what was booked", "ledger_is_append_only"),
    Rule(_F, "a completed payment is booked once, amount and parties right", "completed_payments_are_booked_once"),
    Rule(_F, "a payment that ended unpaid has booked nothing", "bookings_belong_to_completed_payments"),
    Rule(_F, "held funds belong to an unfinished payment", "held_funds_belong_to_unfinished_payments"),
    Rule(_F, "a payment under review holds its funds", "waiting_payments_hold_their_funds"),
    Rule(_F, "a submitted payment holds all its funds, without expiry", "submitted_payments_hold_their_funds"),
    Rule(_P, "the constraints that settle races are there", "guards_stand", _guards()),
    Rule(_P, "every payment's steps are numbered without gaps, up to its state", "transitions_have_no_gaps"),
    Rule(_P, "every step begins where the one before ended", "transitions_follow_one_another"),
    Rule(_P, "every step is one that the state machine allows", "transitions_are_legal", _legal_steps()),
    Rule(_P, "nothing is left behind: every unfinished payment has a next step to come", "nothing_is_left_behind"),
    Rule(_P, "every unfinished payment is where its next step looks for it", "every_unfinished_payment_is_found"),
    Rule(_R, "never more goes back of a payment than it was", "returns_are_within_their_payment"),
    Rule(_R, "a completed return is booked once, as one, amount and parties right", "completed_returns_are_booked"),
    Rule(_R, "a return that ended otherwise has booked nothing", "return_entries_belong_to_completed_returns"),
    Rule(_R, "above the limit two people returned it, and neither alone", "returns_above_the_limit_had_four_eyes"),
    Rule(_R, "booked returns were assessed for this amount and these parties", "booked_returns_were_assessed"),
    Rule(_R, "every return's steps are legal, up to its state", "return_steps_are_whole", _legal_return_steps()),
    Rule(_R, "no return is left behind", "no_return_is_left_behind"),
    Rule(
        _P,
        "a bulk order has ended if, and only if, every line has a result",
        "bulk_orders_have_ended_when_every_line_has_a_result",
    ),
    Rule(_P, "a line of a bulk order became the payment under its own key", "bulk_lines_became_payments_of_their_own"),
    Rule(_P, "a payment of a file is a line of it, whose end tells of it", "payments_of_files_are_lines_of_them"),
    Rule(
        _B,
        "after submission funds are released only on the bank's no",
        "no_release_after_submission_without_a_word",
    ),
    Rule(_B, "a completed inter-bank payment was accepted by the bank", "completed_inter_bank_payments_were_accepted"),
    Rule(_B, "what the bank accepted is completed", "accepted_instructions_are_completed"),
    Rule(_B, "incoming money is credited once", "incoming_money_is_credited_once"),
    Rule(
        _B,
        "what is booked as incoming was sent by a bank, amount and accounts right",
        "incoming_entries_are_of_what_a_bank_sent",
    ),
    Rule(_B, "money left suspense once, to where it is told", "money_left_suspense_as_it_is_told"),
    Rule(_B, "money left suspense as a person decided", "money_left_suspense_as_it_was_decided"),
    Rule(
        _B,
        "above the limit two people said that a bank has its money, and neither alone",
        "what_banks_took_otherwise_above_the_limit_had_four_eyes",
    ),
    Rule(_B, "no incoming money is left behind", "no_incoming_money_is_left_behind"),
    Rule(_C, "booked payments were assessed for this amount and these parties", "booked_payments_were_assessed"),
    Rule(_C, "a one-time password was given where risk asked for one", "codes_were_given_where_asked"),
    Rule(_C, "a possible sanctions match was cleared by a person", "matches_were_cleared"),
    Rule(_A, "the audit trail counts without gaps to its end", "audit_counts_without_gaps"),
    Rule(_A, "every ended payment is in the audit trail", "ended_payments_are_in_the_audit_trail"),
    Rule(_E, "every event has its place in the log", "every_event_has_its_position"),
    Rule(_E, "the log's places have no gaps", "positions_have_no_gaps"),
    Rule(_E, "every consumer keeps up", "consumers_keep_up"),
    Rule(_E, "what goes through Kafka was published", "outbox_is_published"),
    Rule(_E, "no event is set aside", "no_event_is_set_aside"),
    Rule(_E, "no customer was told the same twice", "customers_were_told_once"),
    Rule(_S, "no audit row holds a secret or a whole account number", "audit_rows_hold_no_secrets", (SECRETS,)),
    Rule(_S, "no event holds a secret or a whole account number", "events_hold_no_secrets", (SECRETS,)),
    Rule(_S, "customers' names are encrypted", "names_are_encrypted"),
)
