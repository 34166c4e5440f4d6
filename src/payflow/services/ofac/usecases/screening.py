"""Screening: compare names with the lists, keep proof of the clear ones, open a case for the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from payflow.contracts.ofac import NameScreened, Screened, ScreeningOutcome, ScreenName, ScreenPayment
from payflow.contracts.operation import Answers
from payflow.contracts.risk import NothingToScreen
from payflow.kernel.clock import Ids
from payflow.services.ofac.domain import NameIndex, NameResult, PartyName, screen_name
from payflow.services.ofac.domain.cases import ReviewCase, matches_of
from payflow.services.ofac.domain.proofs import ClearedNames
from payflow.services.ofac.ports import Store
from payflow.services.ofac.usecases.events import EventMaker


async def screen(
    *,
    commands: Sequence[ScreenPayment],
    index: NameIndex,
    cleared: ClearedNames,
    store: Store,
    ids: Ids,
    events: EventMaker,
    now: datetime,
) -> Answers[Screened]:
    """Screen all names of each payment: CLEAR, or POSSIBLE_MATCH with the payment's review case.

    A payment has at most one case: a repeat gets the same, decided or not, also where its names are clear by now (the
    lists or the names have changed). Nothing is stored for names that are known to be clear. Items may be
    NothingToScreen; raises Unavailable or UnknownOutcome for the whole batch.
    """
    parties = {PartyName(name, command.country) for command in commands for name in command.names}
    results = await _compare(index, (party for party in parties if not cleared.holds(party)))
    matched = {party: result for party, result in results.items() if result.outcome is not ScreeningOutcome.CLEAR}
    cases = _cases(commands, matched, list_version=index.version, ids=ids, now=now)
    review_ids = await _keep(
        cases=cases,
        clear=[party for party in results if party not in matched],
        cleared=cleared,
        store=store,
        events=events,
        now=now,
    )
    if others := [command.payment_id for command in commands if command.payment_id not in review_ids]:
        review_ids.update(await store.reviews_of(others))

    def answer(command: ScreenPayment) -> Screened | NothingToScreen:
        if not command.names:
            return NothingToScreen()
        review_id = review_ids.get(command.payment_id)
        outcome = ScreeningOutcome.CLEAR if review_id is None else ScreeningOutcome.POSSIBLE_MATCH
        return Screened(outcome=outcome, review_id=review_id, list_version=index.version)

    return [answer(command) for command in commands]


async def screen_names(*, queries: Sequence[ScreenName], index: NameIndex) -> Answers[NameScreened]:
    """Look names up; nothing is stored and no case is opened."""
    parties = [PartyName(query.name, query.country) for query in queries]
    results = await _compare(index, parties)

    def answer(party: PartyName) -> NameScreened:
        result = results[party]
        is_clear = result.outcome is ScreeningOutcome.CLEAR
        return NameScreened(
            outcome=result.outcome,
            matches=[] if is_clear else matches_of(name=party.name, result=result),
            list_version=index.version,
        )

    return [answer(party) for party in parties]


async def _compare(index: NameIndex, parties: Iterable[PartyName]) -> dict[PartyName, NameResult]:
    """The lists' answer for each party. Others have their turn between two names, each 0.1 to 11 ms."""
    results: dict[PartyName, NameResult] = {}
    for party in parties:
        if results:
            await asyncio.sleep(0)
        results[party] = screen_name(index, party.name, party.country)
    return results


def _cases(
    commands: Sequence[ScreenPayment],
    matched: Mapping[PartyName, NameResult],
    *,
    list_version: str,
    ids: Ids,
    now: datetime,
) -> dict[UUID, ReviewCase]:
    """A case for each payment with a possible match, by payment id; the first of equal payment ids counts."""
    cases: dict[UUID, ReviewCase] = {}
    if not matched:
        return cases
    for command in commands:
        parties = dict.fromkeys(PartyName(name, command.country) for name in command.names)
        found = [(party.name, matched[party]) for party in parties if party in matched]
        if found and command.payment_id not in cases:
            cases[command.payment_id] = ReviewCase(
                review_id=ids.new(),
                payment_id=command.payment_id,
                customer_id=command.customer_id,
                matches=tuple(match for name, result in found for match in matches_of(name=name, result=result)),
                list_version=list_version,
                opened_at=now,
            )
    return cases


async def _keep(
    *,
    cases: Mapping[UUID, ReviewCase],
    clear: Sequence[PartyName],
    cleared: ClearedNames,
    store: Store,
    events: EventMaker,
    now: datetime,
) -> dict[UUID, UUID]:
    """Store new cases with their events, and proofs of newly cleared names. The payments' review ids."""
    review_ids: dict[UUID, UUID] = {}
    if not cases and not clear:
        return review_ids
    proofs = {cleared.proof_of(party) for party in clear}
    async with store.transaction() as transaction:
        if cases:
            review_ids = await transaction.open_cases(list(cases.values()))
            opened = [case for case in cases.values() if review_ids[case.payment_id] == case.review_id]
            await transaction.append_events([events.opened(case) for case in opened])
        if proofs:
            await transaction.insert_proofs(proofs=sorted(proofs), list_version=cleared.list_version, now=now)
    cleared.remember(clear)
    return review_ids
