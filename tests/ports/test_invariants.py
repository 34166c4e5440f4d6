"""Each rule of `payflow verify` is kept by an untouched database, and names what breaks it."""

# ruff: noqa: E501 - rows of SQL read better unbroken.

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from payflow.platform.postgres import load_queries
from payflow.run.invariants.catalog import GUARDS, RULES
from payflow.run.invariants.check import Finding, check_database, check_rule
from payflow.run.invariants.stuck import TO_DO, stuck_on
from tests.builders import new_id

ONE, TWO, ENTRY, PAYMENT, RETURN = new_id(), new_id(), new_id(), new_id(), new_id()
QUIET = timedelta(seconds=30)

# A payment of 1.00 from account ONE to account TWO, as the services leave it, in all tables that a rule looks at.
WHOLE = f"""
INSERT INTO account.customers (customer_id, name_encrypted, created_at)
VALUES ('cust_1', '\\x026b31a7b2c3d4e5', now());
INSERT INTO account.accounts (account_id, number, customer_id, kind, currency, opened_at)
VALUES ('{ONE}', 'ACC1', 'cust_1', 'customer', 'USD', now()), ('{TWO}', 'OPENING/USD', NULL, 'opening', 'USD', now());
INSERT INTO account.account_balance (account_id, currency, is_internal, posted_minor, sequence)
VALUES ('{ONE}', 'USD', false, 400, 2), ('{TWO}', 'USD', true, -400, 2);
INSERT INTO account.journal_entry (entry_id, payment_id, kind, fencing_token, booked_at)
VALUES ('{TWO}', NULL, 'opening', 0, now()), ('{ENTRY}', '{PAYMENT}', 'transfer', 1, now());
INSERT INTO account.posting (account_id, sequence, entry_id, amount_minor, balance_minor, booked_at)
VALUES ('{ONE}', 1, '{TWO}', 500, 500, now()), ('{TWO}', 1, '{TWO}', -500, -500, now()),
       ('{ONE}', 2, '{ENTRY}', -100, 400, now()), ('{TWO}', 2, '{ENTRY}', 100, -400, now());
INSERT INTO confirm.transactions (payment_id, customer_id, idempotency_key, fingerprint, transaction_id, amount,
    amount_minor, currency, debtor_account, creditor_account, debtor_account_id, creditor_account_id, state, version,
    fencing_token, traceparent, received_at, updated_at, completed_at)
VALUES ('{PAYMENT}', 'cust_1', 'key', '', 'txn', '1.00', 100, 'USD', 'ACC1', 'OPENING/USD', '{ONE}', '{TWO}',
        'COMPLETED', 3, 1, '', now() - interval '1 hour', now() - interval '1 hour', now());
INSERT INTO confirm.payment_steps (payment_id, version, sources, targets, instants, reasons)
VALUES ('{PAYMENT}', 3, '{{RECEIVED,APPROVED}}', '{{APPROVED,COMPLETED}}', ARRAY[now(), now()], '{{NULL,NULL}}');
INSERT INTO risk.assessment (payment_id, customer_id, assessed_at, amount_minor, currency, debtor, creditor, level,
    points, sanctions_points, needs_otp, is_possible_match, rules_hit, rules_version, list_version, is_kyc_verified,
    payments_in_window)
VALUES ('{PAYMENT}', 'cust_1', now(), 100, 'USD', 'ACC1', 'OPENING/USD', 'LOW', 0, 0, false, false, '{{}}', 1, '1', true,
        1);
INSERT INTO audit.audit_logs (sequence, event_id, type, source, subject, version, occurred_at, recorded_at, data,
    traceparent, previous_hash, hash)
VALUES (1, '{ENTRY}', 'payment.completed', 'confirm', '{PAYMENT}', 3, now(), now(),
        '{{"debtor_account": "…ACC1", "creditor_account": "…/USD"}}', '', decode(repeat('00', 32), 'hex'),
        decode(repeat('00', 32), 'hex'));
UPDATE audit.chain_end SET sequence = 1;
INSERT INTO event_log.batch (types, events, event_count) VALUES ('{{payment.completed}}', '\\x00', 1);
UPDATE event_log.batch SET position = 1;
UPDATE event_log.log_end SET position = 1;
INSERT INTO notification.message (message_id, customer_id, kind, about, language, subject, body, created_at)
VALUES ('{PAYMENT}', 'cust_1', 'payment_completed', '{PAYMENT}', 'en', 's', 'b', now());
"""

# What the return of 0.60 of it leaves.
RETURNED = f"""
INSERT INTO account.journal_entry (entry_id, payment_id, kind, fencing_token, booked_at)
VALUES ('{RETURN}', '{RETURN}', 'return', 1, now());
INSERT INTO account.posting (account_id, sequence, entry_id, amount_minor, balance_minor, booked_at)
VALUES ('{TWO}', 3, '{RETURN}', -60, -460, now()), ('{ONE}', 3, '{RETURN}', 60, 460, now());
UPDATE account.account_balance SET posted_minor = 460, sequence = 3 WHERE account_id = '{ONE}';
UPDATE account.account_balance SET posted_minor = -460, sequence = 3 WHERE account_id = '{TWO}';
INSERT INTO confirm.return_total (payment_id, amount_minor, taken_minor, returned_minor) VALUES ('{PAYMENT}', 100, 60, 60);
INSERT INTO confirm.payment_return (return_id, payment_id, transaction_id, idempotency_key, fingerprint, amount_minor,
    currency, debtor_customer_id, debtor_account, debtor_account_id, creditor_customer_id, creditor_account,
    creditor_account_id, reason_code, needs_approval, requested_by, decided_by, state, version, fencing_token, traceparent,
    requested_at, updated_at, completed_at)
VALUES ('{RETURN}', '{PAYMENT}', 'txn', 'key', '', 60, 'USD', 'cust_2', 'OPENING/USD', '{TWO}', 'cust_1', 'ACC1', '{ONE}',
        'AM05', true, 'olga', 'omar', 'COMPLETED', 3, 1, '', now() - interval '1 hour', now() - interval '1 hour', now());
INSERT INTO confirm.return_step (return_id, version, source, target, at)
VALUES ('{RETURN}', 1, NULL, 'AWAITING_APPROVAL', now()), ('{RETURN}', 2, 'AWAITING_APPROVAL', 'APPROVED', now()),
       ('{RETURN}', 3, 'APPROVED', 'COMPLETED', now());
INSERT INTO risk.assessment (payment_id, customer_id, assessed_at, amount_minor, currency, debtor, creditor, level,
    points, sanctions_points, needs_otp, is_possible_match, rules_hit, rules_version, list_version, is_kyc_verified,
    payments_in_window)
VALUES ('{RETURN}', 'cust_2', now(), 60, 'USD', 'OPENING/USD', 'ACC1', 'LOW', 0, 0, false, false, '{{}}', 1, '1', true, 1);
"""
RETURN_UNFINISHED = f"UPDATE confirm.payment_return SET state = '%s', completed_at = NULL, due_at = now() %s WHERE return_id = '{RETURN}'"

AN_INSTRUCTION = f"""
INSERT INTO partner_bank.instruction (payment_id, direction, agent_bic, end_to_end_id, amount_minor, currency,
    parties_encrypted, fencing_token, status, next_attempt_at, created_at, updated_at)
VALUES ('{PAYMENT}', '%s', 'NORDDEFFXXX', 'e2e', 100, 'USD', '', 1, '%s', now(), now(), now() - interval '1 hour');
"""
A_HOLD = f"""
INSERT INTO account.fund_reservations (payment_id, hold_id, account_id, amount_minor, currency, state, fencing_token,
    placed_at, ended_at)
VALUES ('{PAYMENT}', '{ENTRY}', '{ONE}', 100, 'USD', '%s', 1, now(), %s);
"""
UNFINISHED = (
    "UPDATE confirm.transactions SET state = '%s', completed_at = NULL, due_at = now() %s, wake_at = now() %s "
    f"WHERE payment_id = '{PAYMENT}'"
)
NOT_WOKEN = (
    "UPDATE confirm.transactions SET state = 'AWAITING_OTP', completed_at = NULL, due_at = now() + interval '1 hour' "
    f"WHERE payment_id = '{PAYMENT}'"
)

BULK, LINE = new_id(), new_id()
# A bulk order of two lines that has ended: one became PAYMENT of its own, the other could not be read.
A_BULK_ORDER = f"""
INSERT INTO confirm.bulk_order (bulk_id, customer_id, idempotency_key, state, version, fencing_token, items, stored_to,
    started_to, ran_to, traceparent, received_at, updated_at, counted_at)
VALUES ('{BULK}', 'cust_1', 'file', 'COMPLETED', 3, 1, 2, 2, 2, 2, '', now(), now() - interval '1 hour', now());
INSERT INTO confirm.bulk_chunk (bulk_id, first_line, last_line, lines, transaction_ids, fingerprints, payment_ids,
    error_codes, error_details, counts)
VALUES ('{BULK}', 1, 2, '{{1,2}}', '{{txn,NULL}}', '{{"",""}}', '{{{PAYMENT},NULL}}', '{{NULL,MALFORMED_REQUEST}}',
    '{{NULL,x}}', '{{}}');
UPDATE confirm.transactions SET idempotency_key = 'bulk:{BULK}:1';
"""

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


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection as the database's owner, in a transaction that never commits."""
    connection = await asyncpg.connect(database_url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(WHOLE)
    yield connection
    await transaction.rollback()
    await connection.close()


async def find(owner: asyncpg.Connection[Any]) -> dict[str, Finding]:
    return {rule.query: await check_rule(owner, rule, quiet_within=QUIET) for rule in RULES}


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


async def test_what_is_under_way_is_waited_for_before_it_is_called_broken(owner: asyncpg.Connection[Any]) -> None:
    await owner.execute(UNFINISHED % ("SUBMITTED", "- interval '10 seconds'", "- interval '10 seconds'"))

    finding = (await find(owner))["nothing_is_left_behind"]

    assert (finding.broken, finding.waiting) == (0, 1)


def test_every_query_is_a_rule() -> None:
    assert set(load_queries("payflow.run.invariants", "rules.sql").names()) == {rule.query for rule in RULES}


async def test_a_bulk_order_that_has_ended_keeps_every_rule(owner: asyncpg.Connection[Any]) -> None:
    await owner.execute(A_BULK_ORDER)

    findings = await find(owner)

    assert {name: finding.examples for name, finding in findings.items() if not finding.is_kept} == {}
    assert findings["bulk_orders_have_ended_when_every_line_has_a_result"].checked == 1
    assert findings["bulk_lines_became_payments_of_their_own"].checked == 1


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


STUCK = {
    "payments_past_their_deadline": UNFINISHED % ("APPROVED", "- interval '1 hour'", "- interval '1 hour'"),
    "bulk_orders_past_their_deadline": (
        A_BULK_ORDER + "UPDATE confirm.bulk_order SET state = 'PROCESSING', due_at = now() + interval '1 minute'"
    ),
    "returns_past_their_deadline": RETURNED + RETURN_UNFINISHED % ("APPROVED", "- interval '1 hour'"),
    "returns_that_wait": RETURNED
    + RETURN_UNFINISHED % ("AWAITING_APPROVAL", "+ interval '1 hour'")
    + "; UPDATE confirm.payment_return SET requested_at = now() - interval '2 days'",
    "payments_without_a_word": (
        UNFINISHED % ("SUBMITTED", "+ interval '1 hour'", "+ interval '1 hour'")
        + "; UPDATE confirm.transactions SET agent_bic = 'NORDDEFFXXX', updated_at = now() - interval '2 days'"
    ),
    "reviews_that_wait": (
        "INSERT INTO ofac.review_case (review_id, payment_id, customer_id, list_version, matches, names_encrypted, opened_at) "
        f"VALUES ('{ENTRY}', '{PAYMENT}', 'cust_1', '1', '[]', '', now() - interval '2 days')"
    ),
    "money_in_suspense": AN_INSTRUCTION % ("INCOMING", "HELD_IN_SUSPENSE"),
    "events_set_aside": BREAKS["no_event_is_set_aside"],
    "events_not_published": BREAKS["outbox_is_published"],
    "events_not_numbered": BREAKS["every_event_has_its_position"],
    "messages_not_delivered": (
        "INSERT INTO notification.delivery (message_id, channel, state, has_code, next_try_at, ended_at, reason) "
        f"VALUES ('{PAYMENT}', 'sms', 'FAILED', false, now(), now(), 'no number')"
    ),
}


async def test_nothing_is_stuck_in_a_whole_database(owner: asyncpg.Connection[Any]) -> None:
    assert await stuck_on(owner, overdue_after=QUIET) == []


@pytest.mark.parametrize("kind", STUCK)
async def test_what_does_not_go_on_is_listed_with_what_to_do(owner: asyncpg.Connection[Any], kind: str) -> None:
    await owner.execute(STUCK[kind])

    found = await stuck_on(owner, overdue_after=QUIET)

    assert [(one.kind, bool(one.why), one.to_do) for one in found] == [(kind, True, TO_DO[kind])]


async def test_a_message_that_went_another_way_is_not_stuck(owner: asyncpg.Connection[Any]) -> None:
    await owner.execute(STUCK["messages_not_delivered"])
    await owner.execute(
        "INSERT INTO notification.delivery (message_id, channel, place, state, has_code, next_try_at, ended_at, sent_at) "
        f"VALUES ('{PAYMENT}', 'email', 1, 'SENT', false, now(), now(), now())"
    )

    assert await stuck_on(owner, overdue_after=QUIET) == []
