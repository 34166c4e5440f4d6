"""`payflow stuck` lists what does not go on by itself, with what to do about it."""


# ruff: noqa: E501 - rows of SQL read better unbroken.

from __future__ import annotations

from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from payflow.run.invariants.stuck import TO_DO, stuck_on
from tests.builders import NORDBANK_BIC
from tests.builders_invariants import (
    A_BULK_ORDER,
    AN_INSTRUCTION,
    ENTRY,
    GOES_BACK,
    PAYMENT,
    QUIET,
    RETURN_UNFINISHED,
    RETURNED,
    TAKEN_BACK,
    UNFINISHED,
)
from tests.builders_invariants import owner as owner
from tests.ports.test_invariants import BREAKS

STUCK = {
    "payments_past_their_deadline": UNFINISHED % ("APPROVED", "- interval '1 hour'", "- interval '1 hour'"),
    "bulk_orders_past_their_deadline": (
        A_BULK_ORDER + "UPDATE confirm.bulk_order SET state = 'PROCESSING', due_at = now() + interval '1 minute'"
    ),
    "scheduled_payments_past_their_day": (
        UNFINISHED % ("SCHEDULED", "+ interval '10 seconds'", "+ interval '10 seconds'")
        + "; UPDATE confirm.transactions SET execute_at = now() - interval '10 minutes'"
    ),
    "returns_past_their_deadline": RETURNED + RETURN_UNFINISHED % ("APPROVED", "- interval '1 hour'"),
    "returns_that_wait": RETURNED
    + RETURN_UNFINISHED % ("AWAITING_APPROVAL", "+ interval '1 hour'")
    + "; UPDATE confirm.payment_return SET requested_at = now() - interval '2 days'",
    "payments_without_a_word": (
        UNFINISHED % ("SUBMITTED", "+ interval '1 hour'", "+ interval '1 hour'")
        + f"; UPDATE confirm.transactions SET agent_bic = '{NORDBANK_BIC}', updated_at = now() - interval '2 days'"
    ),
    "reviews_that_wait": (
        "INSERT INTO ofac.review_case (review_id, payment_id, customer_id, list_version, matches, names_encrypted, opened_at) "
        f"VALUES ('{ENTRY}', '{PAYMENT}', 'cust_1', '1', '[]', '', now() - interval '2 days')"
    ),
    "money_taken_back_that_waits": TAKEN_BACK,
    "incoming_past_their_deadline": AN_INSTRUCTION % ("INCOMING", "PENDING"),
    "decided_and_still_in_suspense": AN_INSTRUCTION % ("INCOMING", "HELD_IN_SUSPENSE"),
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


@pytest.mark.parametrize(
    ("rests", "may_rest"),
    [
        (AN_INSTRUCTION % ("INCOMING", "PENDING"), 300),
        (AN_INSTRUCTION % ("INCOMING", "HELD_IN_SUSPENSE"), 86_400),
        (GOES_BACK, 3_600),
    ],
    ids=["PENDING", "HELD_IN_SUSPENSE", "RETURNING"],
)
async def test_incoming_money_is_stuck_when_it_has_rested_past_its_deadline(
    owner: asyncpg.Connection[Any], rests: str, may_rest: int
) -> None:
    await owner.execute(rests)
    await owner.execute(
        "INSERT INTO ofac.review_case (review_id, payment_id, customer_id, list_version, matches, names_encrypted, opened_at) "
        f"VALUES ('{ENTRY}', '{PAYMENT}', 'bank:{NORDBANK_BIC}', '1', '[]', '', now())"
    )

    found = {}
    for age in (may_rest - 60, may_rest + 60):
        await owner.execute(f"UPDATE partner_bank.instruction SET updated_at = now() - interval '{age} seconds'")
        found[age] = [(one.kind, "refused" in one.why) for one in await stuck_on(owner, overdue_after=timedelta(0))]

    assert found == {may_rest - 60: [], may_rest + 60: [("incoming_past_their_deadline", False)]}


async def test_of_money_that_its_bank_has_refused_the_reason_is_told_and_what_went_back_is_not_stuck(
    owner: asyncpg.Connection[Any],
) -> None:
    await owner.execute(GOES_BACK)
    await owner.execute(
        "INSERT INTO partner_bank.incoming_return (return_id, payment_id, number, message_id, agent_bic, end_to_end_id, "
        "amount_minor, currency, return_reason, status, reason_code, attempts, created_at, updated_at, sent_at) "
        f"VALUES ('{ENTRY}', '{PAYMENT}', 1, 'PF1', '{NORDBANK_BIC}', 'e2e', 100, 'USD', 'RR04', 'REJECTED', 'AC04', 1, "
        "now(), now(), now())"
    )

    (found,) = await stuck_on(owner, overdue_after=timedelta(0))
    await owner.execute("UPDATE partner_bank.instruction SET suspense_exit = 'RETURNED'")

    assert found.why == f"came from {NORDBANK_BIC} and is RETURNING, and was refused by its bank (AC04)"
    assert await stuck_on(owner, overdue_after=timedelta(0)) == []


async def test_of_money_whose_return_its_bank_says_never_came_the_answer_and_the_next_try_are_told(
    owner: asyncpg.Connection[Any],
) -> None:
    await owner.execute(GOES_BACK)
    await owner.execute(
        "INSERT INTO partner_bank.incoming_return (return_id, payment_id, number, message_id, agent_bic, end_to_end_id, "
        "amount_minor, currency, return_reason, status, attempts, next_attempt_at, created_at, updated_at, sent_at, "
        "never_received, last_answer, last_answer_at) "
        f"VALUES ('{ENTRY}', '{PAYMENT}', 1, 'PF1', '{NORDBANK_BIC}', 'e2e', 100, 'USD', 'RR04', 'UNKNOWN', 9, "
        "'2031-05-06 07:08:09+00', now(), now(), now(), 7, 'NOOR', now())"
    )

    (found,) = await stuck_on(owner, overdue_after=timedelta(0))

    assert found.why == (
        f"came from {NORDBANK_BIC} and is RETURNING, and its bank has said 7 times that the return never came (NOOR); "
        "it is tried next at 2031-05-06 07:08 UTC"
    )


async def test_a_message_that_went_another_way_is_not_stuck(owner: asyncpg.Connection[Any]) -> None:
    await owner.execute(STUCK["messages_not_delivered"])
    await owner.execute(
        "INSERT INTO notification.delivery (message_id, channel, place, state, has_code, next_try_at, ended_at, sent_at) "
        f"VALUES ('{PAYMENT}', 'email', 1, 'SENT', false, now(), now(), now())"
    )

    assert await stuck_on(owner, overdue_after=QUIET) == []
