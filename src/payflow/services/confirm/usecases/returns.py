"""Returns: asked for, decided about by a second person, and made. One at a time: they are rare, and people wait.

A return has a payment id of its own, on which its steps at risk and account are idempotent. It is stored, and its
amount taken of the original, before anything is done about it; whoever refuses it gives that back in the same write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from payflow.contracts.account import (
    AlreadyBooked,
    PartiesResolved,
    PaymentEnded,
    ReleaseHold,
    ResolveParties,
    StaleCommand,
    Transfer,
)
from payflow.contracts.confirm import (
    DecideReview,
    PaymentHistory,
    PaymentInProgress,
    PaymentNotFound,
    PaymentPage,
    PaymentRefused,
    PaymentState,
    PaymentView,
)
from payflow.contracts.operation import Answers
from payflow.contracts.returns import (
    DecideReturn,
    GetReturn,
    ListReturns,
    RequestReturn,
    ReturnNotFound,
    ReturnPage,
    ReturnState,
    ReturnView,
)
from payflow.contracts.risk import AssessPayment
from payflow.kernel.errors import PayflowError, Rejection, Unavailable
from payflow.services.confirm.domain import (
    Payment,
    ReturnPayment,
    answer_to_repeated_return,
    is_same_decision,
    late_error,
    not_returnable,
    receive_return,
    refuse_decision,
)
from payflow.services.confirm.ports import ReturnPorts, ReturnStore

# Each lost try means that another return of the same payment was stored meanwhile.
_CLAIM_TRIES: Final = 20
_UNKNOWN: Final = (
    "No customer here has ordered a payment with this id. Money that came in from another bank, and returns themselves,"
    " cannot be returned."
)


async def request_returns(*, commands: Sequence[RequestReturn], ports: ReturnPorts) -> Answers[ReturnView]:
    """Return completed payments: at once, or once a second person has approved it where it is above the limit.

    Safe to repeat under the requester's key. A return that is refused after it was stored is a ReturnView in state
    REJECTED with its `error_code`; one that could not be finished now is APPROVED and made later, without being asked.
    Items may be PaymentNotFound, NotReturnable, ReturnNotPossible, ReturnOwnPayment, ReturnExceedsPayment,
    InvalidAmount, KeyReused, Unavailable: nothing is stored, the key is free. PaymentInProgress: try again.
    """
    return [await _request(command, ports) for command in commands]


async def _request(command: RequestReturn, ports: ReturnPorts) -> ReturnView | PayflowError:
    for _ in range(_CLAIM_TRIES):
        (known,) = await ports.returns.find([(command.requested_by, command.idempotency_key)])
        if known is not None:
            return answer_to_repeated_return(known, command)
        original = (await ports.payments.by_ids([command.payment_id])).get(command.payment_id)
        if original is None:
            return PaymentNotFound(_UNKNOWN)
        refusal = not_returnable(original)
        if refusal is not None:
            return refusal
        parties = await _parties_of(original, ports)
        if isinstance(parties, PayflowError):
            return parties
        taken = (await ports.returns.taken([original.payment_id])).get(original.payment_id, 0)
        made = receive_return(
            command,
            return_id=ports.ids.new(),
            original=original,
            parties=parties,
            taken_minor=taken,
            four_eyes=ports.four_eyes,
            now=ports.clock.now(),
            deadlines=ports.deadlines,
        )
        if isinstance(made, PayflowError):
            return made
        if await ports.returns.claim(made, original_minor=original.money.minor_units, taken_minor=taken):
            return await _make(made, ports) if made.state is ReturnState.APPROVED else made.view()
    return PaymentInProgress(retry_after_s=1)


async def decide_returns(*, commands: Sequence[DecideReturn], ports: ReturnPorts) -> Answers[ReturnView]:
    """A second person approves returns, which are then made, or declines them. The same decision again is no error.

    Items may be ReturnNotFound, ReturnOwnPayment, FourEyesRequired, ReturnDecided, PaymentInProgress, Unavailable.
    """
    known = await ports.returns.by_ids([command.return_id for command in commands])
    return [await _decide(known.get(command.return_id), command, ports) for command in commands]


async def _decide(known: ReturnPayment | None, command: DecideReturn, ports: ReturnPorts) -> ReturnView | PayflowError:
    if known is None:
        return ReturnNotFound()
    if is_same_decision(known, command):
        return known.view()
    refusal = refuse_decision(known, command)
    if refusal is not None:
        return refusal
    leased = await _take(known.return_id, ports)
    if leased is None or leased.state is not ReturnState.AWAITING_APPROVAL:
        return PaymentInProgress(retry_after_s=1)
    leased.decided_by = command.decided_by
    if not command.is_approved:
        declined = PaymentRefused("The return was declined by a second person.")
        leased.end(ReturnState.DECLINED, now=ports.clock.now(), error=declined, taken_by=command.decided_by)
    else:
        leased.approve(now=ports.clock.now(), taken_by=command.decided_by)
    # Stored before it is acted on: the deadline must not expire a return whose money has moved.
    if not await ports.returns.save(leased):
        return PaymentInProgress(retry_after_s=1)
    return await _make(leased, ports) if command.is_approved else leased.view()


async def decide_return_reviews(
    *, commands: Sequence[DecideReview], answers: Answers[PaymentView], ports: ReturnPorts
) -> Answers[PaymentView]:
    """Carry out decisions about returns under review: those that no payment is known for.

    Such an answer is the original payment as it stands. Unavailable: the caller repeats the command.
    """
    unknown = [
        command.payment_id
        for command, answer in zip(commands, answers, strict=True)
        if isinstance(answer, PaymentNotFound)
    ]
    known = await ports.returns.by_ids(unknown) if unknown else {}

    async def answer_of(command: DecideReview, answer: PaymentView | PayflowError) -> PaymentView | PayflowError:
        made = known.get(command.payment_id)
        return answer if made is None else await _decide_review(made, command, ports)

    return [await answer_of(command, answer) for command, answer in zip(commands, answers, strict=True)]


async def _decide_review(known: ReturnPayment, command: DecideReview, ports: ReturnPorts) -> PaymentView | PayflowError:
    if known.state is ReturnState.UNDER_REVIEW:
        leased = await _take(known.return_id, ports)
        if leased is None or leased.state is not ReturnState.UNDER_REVIEW:
            return Unavailable("The return is being worked on.")
        if not command.is_cleared:
            refused = PaymentRefused("The return was refused after review.")
            await _end(leased, ReturnState.REJECTED, refused, ports, taken_by=command.decided_by)
        else:
            leased.approve(now=ports.clock.now(), taken_by=command.decided_by)
            if await ports.returns.save(leased):
                await _make(leased, ports)
    elif not known.is_final and known.review_id is None:
        return Unavailable("The return has not heard of its review yet.")
    originals = await ports.payments.by_ids([known.payment_id])
    return originals[known.payment_id].view()


async def do_due_returns(*, ports: ReturnPorts, limit: int = 100) -> int:
    """Take over returns whose automatic next step is due, and do it; returns how many were taken.

    One that waited for a person, or could not be made for a day, is ended; an approved one is made. One that raises
    does not keep the others back; the error is raised at the end.
    """
    now = ports.clock.now()
    due = await ports.returns.lease_due(now=now, until=now + ports.deadlines.lease, limit=limit)
    failure: Exception | None = None
    for made in due:
        try:
            if made.state is ReturnState.APPROVED and not made.is_overdue(now=now, deadlines=ports.deadlines):
                await _make(made, ports)
            else:
                await _end(made, ReturnState.EXPIRED, late_error(made), ports)
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure
    return len(due)


async def get_returns(*, queries: Sequence[GetReturn], store: ReturnStore) -> Answers[ReturnView]:
    """Returns by id. Items may be ReturnNotFound."""
    known = await store.by_ids([query.return_id for query in queries])
    return [known[query.return_id].view() if query.return_id in known else ReturnNotFound() for query in queries]


async def list_returns(*, queries: Sequence[ListReturns], store: ReturnStore) -> Answers[ReturnPage]:
    """Pages of returns, newest first."""
    pages: Answers[ReturnPage] = []
    for query in queries:
        found = await store.page(query)
        shown = found[: query.limit]
        next_cursor = shown[-1].return_id if len(found) > query.limit else None
        pages.append(ReturnPage(returns=[made.view() for made in shown], next_cursor=next_cursor))
    return pages


async def with_returned(*, answers: Answers[PaymentView], store: ReturnStore) -> Answers[PaymentView]:
    """The same answers, with what has come back of each payment."""
    completed = [
        answer.payment_id
        for answer in answers
        if isinstance(answer, PaymentView) and answer.state is PaymentState.COMPLETED
    ]
    returned = await store.returned(completed) if completed else {}
    if not returned:
        return answers
    return [
        msgspec.structs.replace(answer, returned_minor=returned[answer.payment_id])
        if isinstance(answer, PaymentView) and answer.payment_id in returned
        else answer
        for answer in answers
    ]


async def histories_with_returned(*, answers: Answers[PaymentHistory], store: ReturnStore) -> Answers[PaymentHistory]:
    """The same histories, with what has come back of each payment."""
    payments: Answers[PaymentView] = [
        answer.payment if isinstance(answer, PaymentHistory) else answer for answer in answers
    ]
    told = await with_returned(answers=payments, store=store)
    return [
        msgspec.structs.replace(answer, payment=payment)
        if isinstance(answer, PaymentHistory) and isinstance(payment, PaymentView)
        else answer
        for answer, payment in zip(answers, told, strict=True)
    ]


async def pages_with_returned(*, pages: Answers[PaymentPage], store: ReturnStore) -> Answers[PaymentPage]:
    """The same pages, with what has come back of each payment."""
    told: Answers[PaymentPage] = []
    for page in pages:
        if isinstance(page, PayflowError):
            told.append(page)
            continue
        views = await with_returned(answers=list(page.payments), store=store)
        told.append(
            msgspec.structs.replace(page, payments=[view for view in views if not isinstance(view, PayflowError)])
        )
    return told


async def _make(made: ReturnPayment, ports: ReturnPorts) -> ReturnView | PayflowError:
    """Screen an approved return, leased to this process, and move its money; how it then stands.

    What fails for now leaves it APPROVED: any confirm process tries again in some seconds.
    """
    problem = None if made.review_id is not None else await _screen(made, ports)
    if problem is None and made.state is ReturnState.APPROVED:
        problem = await _transfer(made, ports)
    if problem is None:
        return made.view() if await ports.returns.save(made) else PaymentInProgress(retry_after_s=1)
    if isinstance(problem, StaleCommand):
        return PaymentInProgress(retry_after_s=1)
    if isinstance(problem, PaymentEnded):
        # Its end has reached the ledger and was not stored: what was begun is ended.
        return await _end(made, ReturnState.EXPIRED, late_error(made), ports)
    if isinstance(problem, Rejection):
        return await _end(made, ReturnState.REJECTED, problem, ports)
    await ports.returns.give_lease_back(made, due_at=ports.clock.now() + ports.deadlines.lease)
    return made.view()


async def _screen(made: ReturnPayment, ports: ReturnPorts) -> PayflowError | None:
    """Ask for exactly this amount and these two parties, as for any payment: no money moves unscreened.

    A possible match puts the return UNDER_REVIEW. A one-time password is not asked for: no customer has ordered it.
    """
    parties = await _parties_of(made, ports)
    if isinstance(parties, PayflowError):
        return parties
    names = [party.name for party in (parties.creditor, parties.debtor) if party is not None]
    command = AssessPayment(
        payment_id=made.return_id,
        customer_id=made.debtor_customer_id,
        amount_minor=made.amount_minor,
        currency=made.currency,
        debtor=made.debtor_account,
        creditor=made.creditor_account,
        party_names=names,
    )
    (assessed,) = await ports.risk.assess([command])
    if isinstance(assessed, PayflowError):
        return assessed
    if assessed.is_possible_sanctions_match:
        made.review(assessed.review_id, now=ports.clock.now(), deadlines=ports.deadlines)
    return None


async def _transfer(made: ReturnPayment, ports: ReturnPorts) -> PayflowError | None:
    command = Transfer(
        payment_id=made.return_id,
        fencing_token=made.fencing_token,
        debtor_account_id=made.debtor_account_id,
        creditor_account_id=made.creditor_account_id,
        amount_minor=made.amount_minor,
        currency=made.currency,
        is_return=True,
    )
    (answer,) = await ports.account.transfer([command])
    if isinstance(answer, PayflowError):
        return answer
    made.complete(now=ports.clock.now())
    return None


async def _end(
    made: ReturnPayment,
    target: ReturnState,
    error: PayflowError,
    ports: ReturnPorts,
    *,
    taken_by: str | None = None,
) -> ReturnView | PayflowError:
    """End without moving money, and let no late command of this return through.

    Where account says that the money has moved already, the return is completed instead.
    """
    if made.state is not ReturnState.AWAITING_APPROVAL:
        release = ReleaseHold(
            payment_id=made.return_id,
            fencing_token=made.fencing_token,
            reason=target.value.lower(),
            account_id=made.debtor_account_id,
        )
        (answer,) = await ports.account.release_hold([release])
        if isinstance(answer, AlreadyBooked):
            made.complete(now=ports.clock.now())
        elif isinstance(answer, PayflowError):
            await ports.returns.give_lease_back(made, due_at=ports.clock.now() + ports.deadlines.lease)
            return PaymentInProgress(retry_after_s=1) if isinstance(answer, StaleCommand) else made.view()
    if not made.is_final:
        made.end(target, now=ports.clock.now(), error=error, taken_by=taken_by)
    return made.view() if await ports.returns.save(made) else PaymentInProgress(retry_after_s=1)


async def _parties_of(payment: Payment | ReturnPayment, ports: ReturnPorts) -> PartiesResolved | PayflowError:
    """Who stands on both sides of the original: its debtor is the one who gets the money back."""
    if isinstance(payment, ReturnPayment):
        customer_id, debtor, creditor = payment.creditor_customer_id, payment.creditor_account, payment.debtor_account
    else:
        customer_id, debtor, creditor = payment.customer_id, payment.debtor_account, payment.creditor_account
    query = ResolveParties(customer_id=customer_id, debtor_account=debtor, creditor_account=creditor)
    (answer,) = await ports.account.resolve([query])
    return answer


async def _take(return_id: UUID, ports: ReturnPorts) -> ReturnPayment | None:
    now = ports.clock.now()
    return await ports.returns.lease(return_id, now=now, until=now + ports.deadlines.lease)
