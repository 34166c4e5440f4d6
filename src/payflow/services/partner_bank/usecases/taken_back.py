"""What operators say of money that a bank has by other means: above a limit two of them, and kept with its return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from payflow.contracts.operation import Answers
from payflow.contracts.partner_bank import EndReturn, InstructionNotFound, ReturnEnding, WithdrawEnding
from payflow.kernel.clock import Clock
from payflow.kernel.errors import PayflowError
from payflow.services.partner_bank.domain import (
    Return,
    TakenBackRules,
    ending_of,
    with_operators_word,
    withdrawn,
)
from payflow.services.partner_bank.ports import Store

C = TypeVar("C", EndReturn, WithdrawEnding)


class TakenBack:
    """Ends returns by the word of operators, above a limit of two; then they are booked as accepted ones are."""

    def __init__(self, *, store: Store, clock: Clock, rules: TakenBackRules) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules

    async def say(self, commands: Sequence[EndReturn]) -> Answers[ReturnEnding]:
        """Take an operator's word about each payment's return. Each answer is about the return, under its own id.

        Items may be InstructionNotFound, where no return of the payment is under way, and OtherReference. One that has
        its bank's word, or was ended, keeps that; the same person's same word again changes nothing.
        """

        def after(made: Return, command: EndReturn, now: datetime) -> Return | PayflowError:
            return with_operators_word(
                made, reference=command.reference, said_by=command.ended_by, rules=self._rules, now=now
            )

        return await self._each(commands, after)

    async def withdraw(self, commands: Sequence[WithdrawEnding]) -> Answers[ReturnEnding]:
        """Take back first words that wait: each return goes on. Safe to repeat. Items may be InstructionNotFound."""

        def after(made: Return, command: WithdrawEnding, now: datetime) -> Return | PayflowError:
            return withdrawn(made, now=now)

        return await self._each(commands, after)

    async def _each(
        self, commands: Sequence[C], after: Callable[[Return, C, datetime], Return | PayflowError]
    ) -> Answers[ReturnEnding]:
        answers: Answers[ReturnEnding] = []
        async with self._store.transaction() as book:
            now = self._clock.now()
            known = await book.lock_returns_not_refused([command.payment_id for command in commands])
            for command in commands:
                made = known.get(command.payment_id)
                outcome = InstructionNotFound() if made is None else after(made, command, now)
                if isinstance(outcome, PayflowError):
                    answers.append(outcome)
                    continue
                known[command.payment_id] = outcome
                answers.append(ending_of(outcome, now=now))
            await book.save_returns(list(known.values()))
        return answers
