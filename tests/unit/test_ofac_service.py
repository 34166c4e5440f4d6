"""The ofac service apart from any database: proofs, slices of work, pauses between deliveries, the warm index."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import timedelta

import pytest

from payflow.contracts.ofac import Screened, ScreeningOutcome, ScreenPayment
from payflow.kernel.errors import Unavailable
from payflow.platform.ids import UuidV7
from payflow.services.ofac.api import OfacApi
from payflow.services.ofac.domain.cases import Decision, delivery_of
from payflow.services.ofac.domain.proofs import ClearedNames
from payflow.services.ofac.domain.results import PartyName
from payflow.services.ofac.index import loaded_lists
from tests.builders import NOON, FixedClock, new_id
from tests.fakes_ofac import FakeOfacStore, FakePayments

SYLLABLES = ("ka", "lo", "mi", "ne", "ru", "sa", "to", "vi", "zu", "be")


def an_api(store: FakeOfacStore) -> OfacApi:
    return OfacApi(
        store=store,
        payments=FakePayments(),
        lists=loaded_lists(),
        proof_key=b"k" * 32,
        clock=FixedClock(),
        ids=UuidV7(),
    )


def a_payment(*names: str, country: str | None = None) -> ScreenPayment:
    return ScreenPayment(payment_id=new_id(), customer_id="cust_001", names=list(names), country=country)


def new_names(count: int) -> list[str]:
    """Ordinary-looking names of 18 letters that nobody screened before."""
    return [
        "".join(SYLLABLES[int(digit)] for digit in f"{number:04}") + " " + SYLLABLES[number % 10] * 4 + "n"
        for number in range(count)
    ]


async def test_a_clear_name_that_is_proved_costs_no_transaction() -> None:
    store = FakeOfacStore()
    api = an_api(store)
    await api.screen([a_payment("Ada Byron", "Grace Hopper")])

    await api.screen([a_payment("Grace Hopper", "Ada Byron"), a_payment("Ada Byron")])

    assert (store.transactions, len(store.proofs)) == (1, 2)


async def test_a_name_is_proved_again_after_its_proof_could_not_be_stored() -> None:
    store = FakeOfacStore()
    api = an_api(store)
    store.is_down = True
    with pytest.raises(Unavailable):
        await api.screen([a_payment("Ada Byron")])
    store.is_down = False

    await api.screen([a_payment("Ada Byron")])

    assert len(store.proofs) == 1


async def test_a_listed_name_is_never_taken_for_a_proved_one() -> None:
    store = FakeOfacStore()
    api = an_api(store)
    await api.screen([a_payment("Rafael Caro Quintero")])

    (answer,) = await api.screen([a_payment("Rafael Caro Quintero")])

    assert isinstance(answer, Screened)
    assert answer.outcome is ScreeningOutcome.POSSIBLE_MATCH
    assert store.proofs == {}


async def test_a_large_batch_of_new_names_gives_others_their_turn() -> None:
    api = an_api(FakeOfacStore())
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    await api.screen([a_payment(name) for name in new_names(500)])
    counting.cancel()

    assert turns >= 499


def test_a_proof_is_of_the_name_and_not_of_its_spelling() -> None:
    cleared = ClearedNames(key=b"k" * 32, list_version="v1")

    same = {cleared.proof_of(PartyName(name)) for name in ("Zoë O'Neil", "ZOE ONEIL", " zoë   o'neil ")}

    assert len(same) == 1
    assert len(same.pop()) == 32


def test_proofs_differ_by_name_country_and_key() -> None:
    cleared = ClearedNames(key=b"k" * 32, list_version="v1")

    proofs = {
        cleared.proof_of(PartyName("Ada Byron")),
        cleared.proof_of(PartyName("Byron Ada")),
        cleared.proof_of(PartyName("Ada Byron", "GB")),
        ClearedNames(key=b"other", list_version="v1").proof_of(PartyName("Ada Byron")),
    }

    assert len(proofs) == 4
    assert cleared.proof_of(PartyName("Ada Byron", "gb")) in proofs


def test_the_names_known_to_be_proved_are_bounded_and_the_oldest_is_forgotten() -> None:
    cleared = ClearedNames(key=b"k" * 32, list_version="v1", remembered_max=2)

    cleared.remember([PartyName("Ada Byron"), PartyName("Grace Hopper"), PartyName("Hedy Lamarr")])

    assert not cleared.holds(PartyName("Ada Byron"))
    assert cleared.holds(PartyName("Hedy Lamarr"))
    assert not cleared.holds(PartyName("Hedy Lamarr", "AT"))


@pytest.mark.parametrize(("tries", "pause_s"), [(0, 1), (1, 2), (2, 4), (8, 256), (9, 300), (10, 300), (100_000, 300)])
def test_pauses_between_deliveries_grow_to_five_minutes(tries: int, pause_s: int) -> None:
    decision = Decision(review_id=new_id(), payment_id=new_id(), is_cleared=True, decided_by="officer", tries=tries)

    delivery = delivery_of(decision=decision, is_delivered=False, now=NOON)

    assert delivery.deliver_after == NOON + timedelta(seconds=pause_s)
    assert (delivery.tries, delivery.delivered_at) == (tries + 1, None)


def test_importing_the_service_builds_the_index_and_starts_no_thread() -> None:
    """The parent of all services forks after this import: what is there is shared, and a thread would be lost."""
    program = (
        "import os, threading, payflow.services.ofac.app as app; from payflow.services.ofac.index import loaded_lists;"
        "print(loaded_lists.cache_info().currsize, len(app.LISTS.index.names) > 30_000, threading.active_count(),"
        " len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 1)"
    )

    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert output.split() == ["1", "True", "1", "1"]
