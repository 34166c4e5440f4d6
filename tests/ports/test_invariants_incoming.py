"""The rules of `payflow verify` about money from other banks: kept by what the services leave, and what breaks them."""

# ruff: noqa: E501 - rows of SQL read better unbroken.

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from payflow.contracts.incoming import suspense_exit_id
from tests.builders import NORDBANK_BIC, new_id
from tests.builders_invariants import find, owner_beside

ADA, NOSTRO, SUSPENSE = new_id(), new_id(), new_id()
CREDITED, CLEARED, RETURNED = new_id(), new_id(), new_id()
CLEARED_EXIT, RETURN = suspense_exit_id(CLEARED), suspense_exit_id(RETURNED)
ENTRIES = {id: new_id() for id in (CREDITED, CLEARED, RETURNED, CLEARED_EXIT, RETURN)}

# 0.50 that was credited, 0.30 that was held and cleared, and 0.20 that was held and went back, as the services leave it.
WHOLE = f"""
INSERT INTO account.customers (customer_id, name_encrypted, created_at) VALUES ('cust_1', '\\x026b31a7b2c3d4e5', now());
INSERT INTO account.accounts (account_id, number, customer_id, kind, currency, opened_at)
VALUES ('{ADA}', 'ACC1234', 'cust_1', 'customer', 'USD', now()),
       ('{NOSTRO}', 'NOSTRO/{NORDBANK_BIC}/USD', NULL, 'nostro', 'USD', now()),
       ('{SUSPENSE}', 'SUSPENSE/USD', NULL, 'suspense', 'USD', now());
INSERT INTO account.account_balance (account_id, currency, is_internal, posted_minor, sequence)
VALUES ('{ADA}', 'USD', false, 80, 2), ('{NOSTRO}', 'USD', true, -80, 4), ('{SUSPENSE}', 'USD', true, 0, 4);
INSERT INTO account.journal_entry (entry_id, payment_id, kind, fencing_token, booked_at)
VALUES ('{ENTRIES[CREDITED]}', '{CREDITED}', 'incoming', 1, now() - interval '1 hour'),
       ('{ENTRIES[CLEARED]}', '{CLEARED}', 'incoming', 1, now() - interval '1 hour'),
       ('{ENTRIES[RETURNED]}', '{RETURNED}', 'incoming', 1, now() - interval '1 hour'),
       ('{ENTRIES[CLEARED_EXIT]}', '{CLEARED_EXIT}', 'incoming', 5, now() - interval '1 hour'),
       ('{ENTRIES[RETURN]}', '{RETURN}', 'incoming_return', 7, now() - interval '1 hour');
INSERT INTO account.posting (account_id, sequence, entry_id, payment_id, amount_minor, balance_minor, booked_at)
VALUES ('{NOSTRO}', 1, '{ENTRIES[CREDITED]}', '{CREDITED}', -50, -50, now()),
       ('{ADA}', 1, '{ENTRIES[CREDITED]}', '{CREDITED}', 50, 50, now()),
       ('{NOSTRO}', 2, '{ENTRIES[CLEARED]}', '{CLEARED}', -30, -80, now()),
       ('{SUSPENSE}', 1, '{ENTRIES[CLEARED]}', '{CLEARED}', 30, 30, now()),
       ('{NOSTRO}', 3, '{ENTRIES[RETURNED]}', '{RETURNED}', -20, -100, now()),
       ('{SUSPENSE}', 2, '{ENTRIES[RETURNED]}', '{RETURNED}', 20, 50, now()),
       ('{SUSPENSE}', 3, '{ENTRIES[CLEARED_EXIT]}', '{CLEARED_EXIT}', -30, 20, now()),
       ('{ADA}', 2, '{ENTRIES[CLEARED_EXIT]}', '{CLEARED_EXIT}', 30, 80, now()),
       ('{SUSPENSE}', 4, '{ENTRIES[RETURN]}', '{RETURN}', -20, 0, now()),
       ('{NOSTRO}', 4, '{ENTRIES[RETURN]}', '{RETURN}', 20, -80, now());
INSERT INTO partner_bank.instruction (payment_id, direction, agent_bic, end_to_end_id, amount_minor, currency,
    parties_encrypted, fencing_token, status, suspense_exit, is_suspicious, created_at, updated_at)
VALUES ('{CREDITED}', 'INCOMING', '{NORDBANK_BIC}', 'e1', 50, 'USD', '', 0, 'CREDITED', NULL, false, now(), now()),
       ('{CLEARED}', 'INCOMING', '{NORDBANK_BIC}', 'e2', 30, 'USD', '', 0, 'CREDITED', NULL, true, now(), now()),
       ('{RETURNED}', 'INCOMING', '{NORDBANK_BIC}', 'e3', 20, 'USD', '', 0, 'HELD_IN_SUSPENSE', 'RETURNED', true, now(), now());
INSERT INTO partner_bank.incoming_return (return_id, payment_id, number, message_id, agent_bic, end_to_end_id, amount_minor,
    currency, return_reason, status, attempts, created_at, updated_at, sent_at, booked_at)
VALUES ('{new_id()}', '{RETURNED}', 1, 'PF1', '{NORDBANK_BIC}', 'e3', 20, 'USD', 'RR04', 'REJECTED', 6, now(), now(), now(), NULL),
       ('{RETURN}', '{RETURNED}', 2, 'PF2', '{NORDBANK_BIC}', 'e3', 20, 'USD', 'RR04', 'ACCEPTED', 7, now(), now(), now(), now());
INSERT INTO ofac.review_case (review_id, payment_id, customer_id, list_version, matches, names_encrypted, opened_at, state,
    decided_at, decided_by)
VALUES ('{CLEARED}', '{CLEARED}', 'bank:{NORDBANK_BIC}', '1', '[]', '', now(), 'OPEN', NULL, NULL),
       ('{RETURNED}', '{RETURNED}', 'bank:{NORDBANK_BIC}', '1', '[]', '', now(), 'OPEN', NULL, NULL);
UPDATE ofac.review_case SET state = CASE WHEN payment_id = '{CLEARED}' THEN 'CLEARED' ELSE 'BLOCKED' END,
       decided_at = now() - interval '2 hours', decided_by = 'carla', deliver_after = now();
INSERT INTO audit.audit_logs (sequence, event_id, type, source, subject, version, occurred_at, recorded_at, data,
    traceparent, previous_hash, hash)
VALUES (1, '{CREDITED}', 'incoming.credited', 'partner_bank', '{CREDITED}', 1, now(), now(), '{{"account": "…1234"}}', '',
        decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex'));
UPDATE audit.chain_end SET sequence = 1;
"""

STATUS = "UPDATE partner_bank.instruction SET status = '{}', suspense_exit = NULL, next_attempt_at = {} WHERE payment_id = '{}'"
EXIT = "UPDATE partner_bank.instruction SET status = 'HELD_IN_SUSPENSE', suspense_exit = '{}' WHERE payment_id = '{}'"
FORGOTTEN = STATUS + "; UPDATE partner_bank.instruction SET updated_at = now() - interval '1 hour'"
BOOKED_JUST_NOW = "UPDATE account.journal_entry SET booked_at = now()"
ENTRIES_RULE = "incoming_entries_are_of_what_a_bank_sent"
BREAKS = {
    "an entry that no bank has sent": (
        ENTRIES_RULE,
        f"DELETE FROM partner_bank.instruction WHERE payment_id = '{CREDITED}'",
    ),
    "an exit that nothing was held for": (
        ENTRIES_RULE,
        f"UPDATE partner_bank.instruction SET is_suspicious = false WHERE payment_id = '{RETURNED}'",
    ),
    "another amount": (
        ENTRIES_RULE,
        "UPDATE account.posting SET amount_minor = sign(amount_minor) * 51 WHERE abs(amount_minor) = 50",
    ),
    "another amount out of suspense": (
        ENTRIES_RULE,
        f"UPDATE account.posting SET amount_minor = sign(amount_minor) * 29 WHERE payment_id = '{CLEARED_EXIT}'",
    ),
    "another bank's nostro": (
        ENTRIES_RULE,
        "UPDATE partner_bank.instruction SET agent_bic = 'LUTEFRPPXXX' WHERE end_to_end_id = 'e1'",
    ),
    "back to another bank": (
        ENTRIES_RULE,
        "UPDATE account.accounts SET number = 'NOSTRO/LUTEFRPPXXX/USD' WHERE kind = 'nostro'",
    ),
    "credited in spite of a possible match": (
        ENTRIES_RULE,
        f"UPDATE account.posting SET account_id = '{ADA}', sequence = 9 WHERE payment_id = '{CLEARED}' AND amount_minor > 0",
    ),
    "credited to nobody's account": (
        ENTRIES_RULE,
        f"UPDATE account.posting SET account_id = '{SUSPENSE}', sequence = 9 WHERE payment_id = '{CREDITED}' AND amount_minor > 0",
    ),
    "credited to another account than was told": (
        ENTRIES_RULE,
        "UPDATE account.accounts SET number = 'ACC4321' WHERE kind = 'customer'",
    ),
    "booked and told as rejected": (ENTRIES_RULE, STATUS.format("REJECTED", "NULL", CREDITED)),
    "booked and never settled": (ENTRIES_RULE, STATUS.format("PENDING", "now()", CREDITED)),
    "credited from suspense and never told": (ENTRIES_RULE, STATUS.format("HELD_IN_SUSPENSE", "now()", CLEARED)),
    "told as credited and not booked": (
        "incoming_money_is_credited_once",
        f"DELETE FROM account.journal_entry WHERE payment_id = '{CREDITED}'",
    ),
    "told as returned and never held": (
        "incoming_money_is_credited_once",
        f"DELETE FROM account.journal_entry WHERE payment_id = '{RETURNED}'",
    ),
    "told as credited and still in suspense": (
        "money_left_suspense_as_it_is_told",
        f"DELETE FROM account.journal_entry WHERE payment_id = '{CLEARED_EXIT}'",
    ),
    "told as returned and credited": (
        "money_left_suspense_as_it_is_told",
        f"UPDATE account.journal_entry SET kind = 'incoming' WHERE payment_id = '{RETURN}'",
    ),
    "booked as returned and not taken back": (
        "money_left_suspense_as_it_is_told",
        "UPDATE partner_bank.incoming_return SET status = 'UNKNOWN', booked_at = NULL, next_attempt_at = now() "
        "WHERE number = 2",
    ),
    "taken back twice": (
        "money_left_suspense_as_it_is_told",
        "DROP INDEX partner_bank.one_return_that_is_not_refused; "
        "UPDATE partner_bank.incoming_return SET status = 'ACCEPTED', next_attempt_at = now() WHERE number = 1",
    ),
    "credited although it was blocked": (
        "money_left_suspense_as_it_was_decided",
        STATUS.format("CREDITED", "NULL", RETURNED),
    ),
    "returned although nobody has decided": (
        "money_left_suspense_as_it_was_decided",
        f"DELETE FROM ofac.review_case WHERE payment_id = '{RETURNED}'",
    ),
    "pending and forgotten": (
        "no_incoming_money_is_left_behind",
        FORGOTTEN.format("PENDING", "now() - interval '1 hour'", CREDITED),
    ),
    "decided and forgotten": (
        "no_incoming_money_is_left_behind",
        FORGOTTEN.format("HELD_IN_SUSPENSE", "NULL", CLEARED),
    ),
    "held without a review": (
        "no_incoming_money_is_left_behind",
        FORGOTTEN.format("HELD_IN_SUSPENSE", "NULL", CLEARED) + "; DELETE FROM ofac.review_case",
    ),
    "going back without a return": (
        "no_incoming_money_is_left_behind",
        EXIT.format("RETURNING", CLEARED),
    ),
}


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The owner beside whole payments from another bank."""
    async with owner_beside(database_url, WHOLE) as connection:
        yield connection


async def test_whole_incoming_payments_keep_every_rule_and_are_looked_at(owner: asyncpg.Connection[Any]) -> None:
    findings = await find(owner)

    assert {name: finding.examples for name, finding in findings.items() if not finding.is_kept} == {}
    assert findings[ENTRIES_RULE].checked == 5
    assert findings["money_left_suspense_as_it_is_told"].checked == 2
    assert findings["money_left_suspense_as_it_was_decided"].checked == 2


async def test_a_short_account_number_is_told_by_its_last_two_figures(owner: asyncpg.Connection[Any]) -> None:
    await owner.execute("UPDATE account.accounts SET number = 'A12' WHERE kind = 'customer'")
    await owner.execute("""UPDATE audit.audit_logs SET data = '{"account": "…12"}'""")

    assert (await find(owner))[ENTRIES_RULE].broken == 0


@pytest.mark.parametrize("flaw", BREAKS)
async def test_what_is_wrong_with_incoming_money_is_found(owner: asyncpg.Connection[Any], flaw: str) -> None:
    rule, statements = BREAKS[flaw]

    await owner.execute(statements)

    finding = (await find(owner))[rule]
    assert finding.broken > 0
    assert finding.examples


IN_TEN_SECONDS = "now() + interval '10 seconds'"


@pytest.mark.parametrize(
    "before",
    [
        STATUS.format("PENDING", IN_TEN_SECONDS, CREDITED),
        STATUS.format("HELD_IN_SUSPENSE", IN_TEN_SECONDS, CLEARED),
        EXIT.format("RETURNING", RETURNED),
    ],
)
async def test_what_was_booked_just_now_may_still_be_told(owner: asyncpg.Connection[Any], before: str) -> None:
    await owner.execute(BOOKED_JUST_NOW)
    await owner.execute(before)

    finding = (await find(owner))[ENTRIES_RULE]

    assert (finding.broken, finding.waiting) == (0, 1)
