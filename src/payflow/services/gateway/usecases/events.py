"""The gateway's events: what the security log must tell."""

from __future__ import annotations

from datetime import datetime

import msgspec

from payflow.contracts.topics import SecurityEvent
from payflow.kernel.clock import Ids
from payflow.kernel.envelope import Event

SOURCE = "gateway"


class SecurityEvents:
    """Makes `security.*` events with fresh ids at one instant.

    The subject is what the event is about: a session (`session/<id>`: opened is version 1, ended 2), a user
    (`user/<name>`), a key (`key/<kid>`), or one failed attempt.
    """

    def __init__(self, *, ids: Ids, now: datetime, traceparent: str) -> None:
        self._ids, self._now, self._traceparent = ids, now, traceparent

    def make(self, name: str, *, actor: str, subject: str, version: int = 1, detail: str | None = None) -> Event:
        """An event `security.<name>`."""
        return Event(
            id=self._ids.new(),
            source=SOURCE,
            type=f"security.{name}",
            subject=subject,
            version=version,
            time=self._now,
            data=msgspec.to_builtins(SecurityEvent(actor=actor, detail=detail)),
            traceparent=self._traceparent,
        )

    def failed_attempt(self, *, actor: str, detail: str) -> Event:
        """A sign-in that was refused."""
        return self.make("sign_in_failed", actor=actor, subject=f"attempt/{self._ids.new().hex}", detail=detail)
