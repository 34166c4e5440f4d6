"""A database as the services leave it, for the rules of `payflow verify` and `payflow stuck` to look at."""

# ruff: noqa: E501 - rows of SQL read better unbroken.

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from payflow.run.invariants.catalog import RULES
from payflow.run.invariants.check import Finding, check_rule
from tests.builders import NORDBANK_BIC, new_id

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
VALUES ('{PAYMENT}', '%s', '{NORDBANK_BIC}', 'e2e', 100, 'USD', '', 1, '%s', now(), now(), now() - interval '1 hour');
"""
GOES_BACK = AN_INSTRUCTION % ("INCOMING", "HELD_IN_SUSPENSE") + (
    "UPDATE partner_bank.instruction SET is_suspicious = true, suspense_exit = 'RETURNING'"
)
# Above the limit: olga has said that the bank has its money, and a second person is waited for.
TAKEN_BACK = (
    GOES_BACK
    + f"""
; UPDATE partner_bank.instruction SET updated_at = now();
INSERT INTO partner_bank.incoming_return (return_id, payment_id, number, message_id, agent_bic, end_to_end_id, amount_minor,
    currency, return_reason, status, attempts, next_attempt_at, created_at, updated_at, needs_approval, end_reference,
    end_requested_by, end_requested_at, end_expires_at)
VALUES ('{RETURN}', '{PAYMENT}', 1, 'PF1', '{NORDBANK_BIC}', 'e2e', 100, 'USD', 'RR04', 'UNKNOWN', 1,
    now() + interval '3 days', now(), now(), true, 'NB 4711', 'olga', now(), now() + interval '3 days');
"""
)
HELD_BEFORE = AN_INSTRUCTION % ("INCOMING", "%s") + "UPDATE partner_bank.instruction SET is_suspicious = true"
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

SUBMITTED = UNFINISHED % ("SUBMITTED", "+ interval '1 hour'", "+ interval '1 hour'") + ";"
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
UPDATE confirm.transactions SET idempotency_key = 'bulk:{BULK}:1', bulk_id = '{BULK}';
"""


@asynccontextmanager
async def owner_beside(database_url: str, rows: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection as the database's owner that sees these rows, in a transaction that never commits."""
    connection = await asyncpg.connect(database_url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(rows)
    yield connection
    await transaction.rollback()
    await connection.close()


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The owner beside a whole payment."""
    async with owner_beside(database_url, WHOLE) as connection:
        yield connection


async def find(owner: asyncpg.Connection[Any]) -> dict[str, Finding]:
    return {rule.query: await check_rule(owner, rule, quiet_within=QUIET) for rule in RULES}
