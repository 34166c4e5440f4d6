"""A payment on the command line may be named as its customer names it: by its transaction_id."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import UUID

from tests.builders import NOON, new_id
from tests.builders_event_log import Log, a_subjects_events, running
from tests.event_log_suite.helpers import payflow_events
from tests.fakes_audit import an_event

_STORE = """
INSERT INTO confirm.transactions (payment_id, customer_id, fingerprint, transaction_id, amount, debtor_account,
    creditor_account, state, version, fencing_token, traceparent, received_at, updated_at, completed_at)
VALUES ($1, $2, '', $3, '1.00', 'ACC1', 'ACC2', 'COMPLETED', 3, 1, '', $4, $4, $4)
"""


async def _payment(log: Log, transaction_id: str, *, customer_id: str = "cust_1") -> UUID:
    payment_id = new_id()
    await log.owner.execute(_STORE, payment_id, customer_id, transaction_id, NOON)
    return payment_id


def _replay(of: str) -> tuple[str, ...]:
    instant = (NOON - timedelta(days=1)).isoformat()
    return ("replay", "audit", "--topic", "payments", "--payment", of, "--from", instant)


class Naming:
    """Watching and replaying by transaction_id; what is said of a name that nobody knows."""

    async def test_a_payment_is_watched_by_its_transaction_id_whoever_paid(self, log: Log) -> None:
        name = f"txn_{new_id()}"
        ours, theirs = [await _payment(log, name, customer_id=customer) for customer in ("cust_1", "cust_2")]
        async with running(log.any_consumer()):
            await log.append(an_event(subject=str(ours)), an_event(subject=str(theirs)), an_event(subject="other"))
            for subject in (str(ours), str(theirs), "other"):
                await log.until_version(subject, 1)
            code, told, err = await payflow_events(log, "tail", "--payment", name, "--json")

        assert (code, err) == (0, "")
        assert {json.loads(line)["subject"] for line in told.splitlines()} == {str(ours), str(theirs)}

    async def test_an_event_that_names_the_transaction_is_seen_before_its_payment_can_be_looked_up(
        self, log: Log
    ) -> None:
        async with running(log.any_consumer()):
            await log.append(an_event(subject="it", data={"state": "COMPLETED", "transaction_id": "txn_new"}))
            await log.until_version("it", 1)
            code, told, err = await payflow_events(log, "tail", "--payment", "txn_new", "--json")

        assert (code, err) == (0, "")
        assert [json.loads(line)["subject"] for line in told.splitlines()] == ["it"]

    async def test_a_payment_is_replayed_by_its_transaction_id(self, log: Log) -> None:
        name = f"txn_{new_id()}"
        subject = str(await _payment(log, name))
        async with running(log.any_consumer()):
            await log.append(*a_subjects_events(subject, range(1, 4)), an_event(subject="other"))
            await log.until_version(subject, 3)
            await log.until_version("other", 1)
            code, told, err = await payflow_events(log, *_replay(name))

        assert (code, told) == (0, "3 events of payments handed to audit again.\n"), err
        assert await log.effects_of(subject) == [1, 2, 3, 1, 2, 3]

    async def test_a_transaction_id_of_several_payments_is_not_replayed_but_they_are_listed(self, log: Log) -> None:
        name = f"txn_{new_id()}"
        found = [str(await _payment(log, name, customer_id=customer)) for customer in ("cust_1", "cust_2")]

        code, told, err = await payflow_events(log, *_replay(name))

        assert (code, told) == (1, "")
        assert all(payment_id in err for payment_id in found), err
        assert await log.owner.fetchval("SELECT count(*) FROM event_log.replay") == 0

    async def test_a_payment_id_counts_more_than_a_transaction_that_a_customer_calls_so(self, log: Log) -> None:
        subject = str(await _payment(log, f"txn_{new_id()}"))
        await _payment(log, subject, customer_id="cust_2")
        async with running(log.any_consumer()):
            await log.append(an_event(subject=subject))
            await log.until_version(subject, 1)
            code, told, err = await payflow_events(log, *_replay(subject))

        assert (code, told) == (0, "1 event of payments handed to audit again.\n"), err

    async def test_a_name_that_nothing_is_known_by_is_an_error_that_says_what_can_be_named(self, log: Log) -> None:
        async with running(log.any_consumer()):
            await log.append(an_event(subject="it"))
            await log.until_version("it", 1)
            tail = await payflow_events(log, "tail", "--payment", "txn_nobodys")
            replay = await payflow_events(log, *_replay("txn_nobodys"))

        for code, _, err in (tail, replay):
            assert code == 1
            assert "txn_nobodys" in err
            assert "transaction_id" in err

    async def test_a_known_payment_without_events_is_told_as_that(self, log: Log) -> None:
        name = f"txn_{new_id()}"
        payment_id = await _payment(log, name)
        async with running(log.any_consumer()):
            await log.append(an_event(subject="it"))
            await log.until_version("it", 1)
            code, told, err = await payflow_events(log, "tail", "--payment", name)

        assert (code, told) == (0, "")
        assert str(payment_id) in err
