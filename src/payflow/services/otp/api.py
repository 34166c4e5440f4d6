"""Adapts the contract to the use cases: wires the store, keys, clock and ids, and repeats batches that collide."""

from __future__ import annotations

from payflow.contracts.operation import Answers
from payflow.contracts.otp import IssueOtp, OtpIssued, OtpVerified, VerifyOtp
from payflow.kernel.clock import Clock, Ids
from payflow.platform.context import current_traceparent
from payflow.platform.postgres import repeat_then_halve
from payflow.services.otp import usecases
from payflow.services.otp.domain import KeyRing, Rules
from payflow.services.otp.ports import CodeSender, Entropy, Store


class OtpApi:
    """Implements contracts.otp.Otp."""

    def __init__(
        self,
        *,
        store: Store,
        sender: CodeSender,
        keys: KeyRing,
        rules: Rules,
        clock: Clock,
        ids: Ids,
        entropy: Entropy,
    ) -> None:
        self._store = store
        self._sender = sender
        self._keys = keys
        self._rules = rules
        self._clock = clock
        self._ids = ids
        self._entropy = entropy

    async def issue(self, commands: list[IssueOtp]) -> Answers[OtpIssued]:
        return await repeat_then_halve(
            lambda batch: usecases.issue(
                commands=batch,
                store=self._store,
                sender=self._sender,
                keys=self._keys,
                rules=self._rules,
                ids=self._ids,
                entropy=self._entropy,
                now=self._clock.now(),
            ),
            commands,
        )

    async def verify(self, commands: list[VerifyOtp]) -> Answers[OtpVerified]:
        return await repeat_then_halve(
            lambda batch: usecases.verify(
                commands=batch,
                store=self._store,
                keys=self._keys,
                ids=self._ids,
                now=self._clock.now(),
                traceparent=current_traceparent.get(),
            ),
            commands,
        )
