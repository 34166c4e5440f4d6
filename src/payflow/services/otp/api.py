"""Adapts the contract to the use cases: wires the store, keys, clock and ids, and repeats batches that collide."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

from payflow.contracts.operation import Answers
from payflow.contracts.otp import IssueOtp, OtpIssued, OtpVerified, VerifyOtp
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.errors import PayflowError
from payflow.platform.context import current_traceparent
from payflow.platform.postgres import repeat_then_halve
from payflow.services.otp import usecases
from payflow.services.otp.domain import KeyRing, Rules
from payflow.services.otp.ports import CodeSender, Entropy, Store

_issued: Final = Counter(
    "payflow_otp_codes_total", "Codes asked for: new, shown (the open challenge), or the error's code.", ["outcome"]
)
_verified: Final = Counter("payflow_otp_checks_total", "Codes typed: verified, or the error's code.", ["outcome"])


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
        answers = await repeat_then_halve(
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
        for answer in answers:
            if isinstance(answer, PayflowError):
                _issued.labels(answer.code).inc()
            else:
                _issued.labels("new" if answer.is_new else "shown").inc()
        return answers

    async def verify(self, commands: list[VerifyOtp]) -> Answers[OtpVerified]:
        answers = await repeat_then_halve(
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
        for answer in answers:
            _verified.labels(answer.code if isinstance(answer, PayflowError) else "verified").inc()
        return answers
