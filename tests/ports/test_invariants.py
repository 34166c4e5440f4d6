"""Each rule of `payflow verify` is kept by an untouched database, and names what breaks it."""

# ruff: noqa: E501 - rows of SQL read better unbroken.

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from payflow.platform.postgres import load_queries
from payflow.run.invariants.catalog import GUARDS, RULES
from payflow.run.invariants.check import check_database
from tests.builders_invariants import (
    A_BULK_ORDER,
    A_HOLD,
    AN_INSTRUCTION,
    BULK,
    ENTRY,
    GOES_BACK,
    HELD_BEFORE,
    LINE,
    NOT_WOKEN,
    ONE,
    QUIET,
    RETURN,
    RETURN_UNFINISHED,
    RETURNED,
    SUBMITTED,
    TAKEN_BACK,
    UNFINISHED,
    find,
)
from tests.builders_invariants import owner as owner

BREAKS = {
    "entries_balance": "UPDATE account.posting SET amount_minor = 101 WHERE sequence = 2 AND amount_minor = 100",
    "currencies_sum_to_zero": f"UPDATE account.account_balance SET posted_minor = 401 WHERE account_id = '{ONE}'",
    "balances_are_the_sum_of_postings": f"DELETE FROM account.posting WHERE account_id = '{ONE}' AND sequence = 2",
    "running_balances_follow": "UPDATE account.posting SET balance_minor = 399 WHERE balance_minor = 400",
    "held_is_the_sum_of_reservations": f"UPDATE account.account_balance SET held_minor = 1 WHERE account_id = '{ONE}'",
    "postings_and_entries_belong_together": f"DELETE FROM account.journal_entry WHERE entry_id = '{ENTRY}'",
    "nobody_is_overdrawn": (
        "ALTER TABLE account.account_balance DROP CONSTRAINT customers_do_not_overdraw; "
        f"UPDATE account.account_balance SET held_minor = 401 WHERE account_id = '{ONE}'"
    ),
    "no_account_was_ever_overdrawn": (
        f"UPDATE account.posting SET balance_minor = -1 WHERE account_id = '{ONE}' AND sequence = 2"
    ),
    "ledger_is_append_only": "GRANT UPDATE ON account.posting TO payflow_account",
    "completed_payments_are_booked_once": f"UPDATE account.journal_entry SET payment_id = NULL WHERE entry_id = '{ENTRY}'",
    "bookings_belong_to_completed_payments": (
        "UPDATE confirm.transactions SET state = 'REJECTED', completed_at = NULL, error_code = 'X'"
    ),
    "held_funds_belong_to_unfinished_payments": A_HOLD % ("HELD", "NULL"),
    "waiting_payments_hold_their_funds": UNFINISHED % ("UNDER_REVIEW", "+ interval '1 hour'", "+ interval '1 hour'"),
    "submitted_payments_hold_their_funds": SUBMITTED,
    "no_account_is_ahead_of_the_clock": (
        f"UPDATE account.account_balance SET booked_at = now() + interval '1 minute' WHERE account_id = '{ONE}'"
    ),
    "guards_stand": "ALTER TABLE account.journal_entry DROP CONSTRAINT one_booking_per_payment",
    "transitions_have_no_gaps": "DELETE FROM confirm.payment_steps",
    "transitions_follow_one_another": "UPDATE confirm.payment_steps SET sources[2] = 'HELD'",
    "transitions_are_legal": "UPDATE confirm.payment_steps SET targets[1] = 'SUBMITTED'",
    "nothing_is_left_behind": UNFINISHED % ("SUBMITTED", "- interval '1 hour'", "- interval '1 hour'"),
    "every_unfinished_payment_is_found": NOT_WOKEN,
    "bulk_orders_have_ended_when_every_line_has_a_result": (
        A_BULK_ORDER + "UPDATE confirm.bulk_chunk SET error_codes = '{NULL,NULL}'"
    ),
    "bulk_lines_became_payments_of_their_own": (
        A_BULK_ORDER + f"UPDATE confirm.transactions SET idempotency_key = 'bulk:{BULK}:2'"
    ),
    "payments_of_files_are_lines_of_them": (
        A_BULK_ORDER + "UPDATE confirm.bulk_chunk SET payment_ids = '{NULL,NULL}', error_codes = '{X,X}'"
    ),
    "returns_are_within_their_payment": RETURNED
    + "ALTER TABLE confirm.return_total DROP CONSTRAINT never_more_than_the_payment; "
    + "UPDATE confirm.payment_return SET amount_minor = 101; UPDATE confirm.return_total SET taken_minor = 101, returned_minor = 101",
    "completed_returns_are_booked": RETURNED
    + "UPDATE account.journal_entry SET kind = 'transfer' WHERE kind = 'return'",
    "return_entries_belong_to_completed_returns": RETURNED
    + "UPDATE confirm.payment_return SET state = 'EXPIRED', completed_at = NULL, error_code = 'X'",
    "returns_above_the_limit_had_four_eyes": RETURNED
    + "ALTER TABLE confirm.payment_return DROP CONSTRAINT four_eyes_are_two_people; "
    + "UPDATE confirm.payment_return SET decided_by = 'olga'",
    "booked_returns_were_assessed": RETURNED
    + f"UPDATE risk.assessment SET amount_minor = 61 WHERE payment_id = '{RETURN}'",
    "return_steps_are_whole": RETURNED + "UPDATE confirm.return_step SET target = 'UNDER_REVIEW' WHERE version = 2",
    "no_return_is_left_behind": RETURNED + RETURN_UNFINISHED % ("APPROVED", "- interval '1 hour'"),
    "no_release_after_submission_without_a_word": AN_INSTRUCTION % ("OUTGOING", "UNKNOWN")
    + A_HOLD % ("RELEASED", "now()"),
    "completed_inter_bank_payments_were_accepted": "UPDATE confirm.transactions SET creditor_account_id = NULL",
    "accepted_instructions_are_completed": (
        AN_INSTRUCTION % ("OUTGOING", "ACCEPTED")
        + UNFINISHED % ("SUBMITTED", "+ interval '1 hour'", "+ interval '1 hour'")
    ),
    "incoming_money_is_credited_once": AN_INSTRUCTION % ("INCOMING", "CREDITED"),
    "incoming_entries_are_of_what_a_bank_sent": "UPDATE account.journal_entry SET kind = 'incoming' WHERE kind = 'transfer'",
    "money_left_suspense_as_it_is_told": HELD_BEFORE % "CREDITED",
    "money_left_suspense_as_it_was_decided": GOES_BACK,
    "what_banks_took_otherwise_above_the_limit_had_four_eyes": TAKEN_BACK
    + "ALTER TABLE partner_bank.incoming_return DROP CONSTRAINT four_eyes_are_two_people; "
    + "UPDATE partner_bank.incoming_return SET status = 'ACCEPTED', proof = end_reference, ended_by = 'Olga'",
    "no_incoming_money_is_left_behind": GOES_BACK,
    "booked_payments_were_assessed": "UPDATE risk.assessment SET creditor = 'ACC3'",
    "codes_were_given_where_asked": "UPDATE risk.assessment SET needs_otp = true",
    "matches_were_cleared": "UPDATE risk.assessment SET is_possible_match = true",
    "audit_counts_without_gaps": "UPDATE audit.audit_logs SET sequence = 2",
    "ended_payments_are_in_the_audit_trail": "DELETE FROM audit.audit_logs",
    "every_event_has_its_position": "UPDATE event_log.batch SET position = NULL, created_at = now() - interval '1 hour'",
    "positions_have_no_gaps": "UPDATE event_log.batch SET position = 2",
    "consumers_keep_up": "INSERT INTO event_log.consumer (name, position) VALUES ('audit', 7)",
    "outbox_is_published": "UPDATE event_log.relay SET is_on = true; UPDATE event_log.batch SET created_at = now() - interval '1 hour'",
    "no_event_is_set_aside": (
        "INSERT INTO event_log.dead_letter (consumer, event_id, position, source, events, cause) "
        f"VALUES ('audit', '{ENTRY}', 1, 'payflow_confirm', '', 'x')"
    ),
    "customers_were_told_once": (
        "ALTER TABLE notification.message DROP CONSTRAINT one_message_of_a_kind_about_one_thing; "
        "INSERT INTO notification.message (message_id, customer_id, kind, about, language, subject, body, created_at) "
        f"SELECT '{ENTRY}', customer_id, kind, about, language, subject, body, now() FROM notification.message"
    ),
    "audit_rows_hold_no_secrets": """UPDATE audit.audit_logs SET data = '{"debtor_account": "DE08990100100000001001"}'""",
    "events_hold_no_secrets": "UPDATE event_log.batch SET events = 'eyJhbGciOiJFUzI1NiJ9.e30.x'::bytea",
    "names_are_encrypted": "UPDATE account.customers SET name_encrypted = 'Ada Byron'::bytea",
}


async def test_an_empty_database_keeps_every_rule(database_url: str) -> None:
    findings = await check_database(database_url, quiet_within=QUIET)

    assert [finding for finding in findings if not finding.is_kept] == []


async def test_a_whole_payment_keeps_every_rule_and_is_looked_at(owner: asyncpg.Connection[Any]) -> None:
    findings = await find(owner)

    assert {name: finding.examples for name, finding in findings.items() if not finding.is_kept} == {}
    assert findings["completed_payments_are_booked_once"].checked == 1
    assert findings["guards_stand"].checked == len(GUARDS)


async def test_a_whole_return_keeps_every_rule_and_is_looked_at(owner: asyncpg.Connection[Any]) -> None:
    await owner.execute(RETURNED)

    findings = await find(owner)

    assert {name: finding.examples for name, finding in findings.items() if not finding.is_kept} == {}
    assert findings["completed_returns_are_booked"].checked == 1
    assert findings["returns_are_within_their_payment"].checked == 1


@pytest.mark.parametrize("query", [rule.query for rule in RULES])
async def test_what_breaks_a_rule_is_named(owner: asyncpg.Connection[Any], query: str) -> None:
    await owner.execute(BREAKS[query])

    finding = (await find(owner))[query]

    assert finding.broken > 0
    assert finding.examples


@pytest.mark.parametrize(
    ("left", "is_broken"),
    [
        (A_HOLD % ("HELD", "NULL"), False),
        (
            A_HOLD % ("HELD", "NULL") + "UPDATE account.fund_reservations SET expires_at = now() + interval '1 day'",
            True,
        ),
        (A_HOLD % ("HELD", "NULL") + "UPDATE account.fund_reservations SET amount_minor = 99", True),
        (A_HOLD % ("RELEASED", "now()"), True),
        (A_HOLD % ("RELEASED", "now()") + AN_INSTRUCTION % ("OUTGOING", "REJECTED"), False),
        (A_HOLD % ("RELEASED", "now()") + "UPDATE confirm.transactions SET updated_at = now()", False),
        (A_HOLD % ("CAPTURED", "now()") + AN_INSTRUCTION % ("OUTGOING", "ACCEPTED"), False),
        (A_HOLD % ("CAPTURED", "now()") + AN_INSTRUCTION % ("OUTGOING", "UNKNOWN"), True),
    ],
)
async def test_a_submitted_payments_funds_are_held_until_the_bank_has_spoken(
    owner: asyncpg.Connection[Any], left: str, is_broken: bool
) -> None:
    await owner.execute(SUBMITTED + left)

    finding = (await find(owner))["submitted_payments_hold_their_funds"]

    assert (finding.checked, finding.broken) == (1, int(is_broken))


async def test_what_is_under_way_is_waited_for_before_it_is_called_broken(owner: asyncpg.Connection[Any]) -> None:
    await owner.execute(UNFINISHED % ("SUBMITTED", "- interval '10 seconds'", "- interval '10 seconds'"))

    finding = (await find(owner))["nothing_is_left_behind"]

    assert (finding.broken, finding.waiting) == (0, 1)


@pytest.mark.parametrize(
    ("ended", "broken"),
    [
        ("needs_approval = true", 0),
        ("status = 'ACCEPTED', proof = 'NB 4711', ended_by = 'omar'", 0),
        ("status = 'ACCEPTED', proof = 'NB 4712', ended_by = 'omar'", 1),
        (
            "status = 'ACCEPTED', proof = 'NB 4711', ended_by = 'omar', end_requested_by = NULL, end_reference = NULL, "
            "end_requested_at = NULL, end_expires_at = NULL",
            1,
        ),
    ],
    ids=["waits", "two-people", "two-references", "one-person"],
)
async def test_above_the_limit_two_people_have_one_reference_for_what_a_bank_took_otherwise(
    owner: asyncpg.Connection[Any], ended: str, broken: int
) -> None:
    await owner.execute(TAKEN_BACK)
    for constraint in (
        "two_people_name_one_reference",
        "a_return_above_the_limit_is_ended_by_a_second_person",
    ):
        await owner.execute(f"ALTER TABLE partner_bank.incoming_return DROP CONSTRAINT {constraint}")
    await owner.execute(f"UPDATE partner_bank.incoming_return SET {ended}")

    finding = (await find(owner))["what_banks_took_otherwise_above_the_limit_had_four_eyes"]

    assert finding.broken == broken


def test_every_query_is_a_rule() -> None:
    assert set(load_queries("payflow.run.invariants", "rules.sql").names()) == {rule.query for rule in RULES}


async def test_a_bulk_order_that_has_ended_keeps_every_rule(owner: asyncpg.Connection[Any]) -> None:
    await owner.execute(A_BULK_ORDER)

    findings = await find(owner)

    assert {name: finding.examples for name, finding in findings.items() if not finding.is_kept} == {}
    assert findings["bulk_orders_have_ended_when_every_line_has_a_result"].checked == 1
    assert findings["bulk_lines_became_payments_of_their_own"].checked == 1
    assert findings["payments_of_files_are_lines_of_them"].checked == 1


@pytest.mark.parametrize(
    ("change", "is_broken"),
    [
        (f"UPDATE confirm.transactions SET bulk_id = '{LINE}'", True),
        ("UPDATE confirm.bulk_order SET customer_id = 'cust_2'", True),
        # The customer has sent the line singly, before its turn.
        ("UPDATE confirm.transactions SET bulk_id = NULL", False),
    ],
    ids=["no-such-order", "another-customers", "singly"],
)
async def test_a_payment_of_a_file_that_its_end_does_not_speak_for_is_named(
    owner: asyncpg.Connection[Any], change: str, is_broken: bool
) -> None:
    await owner.execute(A_BULK_ORDER + change)

    findings = await find(owner)

    assert bool(findings["payments_of_files_are_lines_of_them"].broken) is is_broken
    assert not findings["bulk_orders_have_ended_when_every_line_has_a_result"].broken


@pytest.mark.parametrize(
    "broken",
    [
        "UPDATE confirm.bulk_order SET state = 'PROCESSING', due_at = now()",
        "UPDATE confirm.bulk_order SET items = 3",
        f"UPDATE confirm.bulk_chunk SET payment_ids = '{{{LINE},NULL}}'",
    ],
    ids=["unfinished", "too-few-lines", "another-payment"],
)
async def test_a_bulk_order_that_has_lost_a_line_is_named(owner: asyncpg.Connection[Any], broken: str) -> None:
    await owner.execute(A_BULK_ORDER + broken)

    findings = await find(owner)

    assert sum(finding.broken for name, finding in findings.items() if name.startswith("bulk_")) > 0
