"""The events of review cases."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from payflow.contracts.topics import ReviewDecidedEvent, ReviewOpened
from payflow.kernel.clock import Ids
from payflow.kernel.envelope import Event
from payflow.services.ofac.domain.cases import ReviewCase

_OPENED_VERSION: Final = 1
_DECIDED_VERSION: Final = 2


class EventMaker:
    """Makes this service's events with fresh ids at one instant. A case has two: it is opened, it is decided."""

    def __init__(self, *, ids: Ids, now: datetime, traceparent: str) -> None:
        self._ids, self._now, self._traceparent = ids, now, traceparent

    def opened(self, case: ReviewCase) -> Event:
        """`review.opened`, without names or matches."""
        data = ReviewOpened(review_id=case.review_id, payment_id=case.payment_id, customer_id=case.customer_id)
        return self._event("review.opened", case, _OPENED_VERSION, data)

    def decided(self, case: ReviewCase) -> Event:
        """`review.decided`, without the comment: it may name people."""
        data = ReviewDecidedEvent(
            review_id=case.review_id,
            payment_id=case.payment_id,
            customer_id=case.customer_id,
            is_cleared=case.is_cleared,
            decided_by=case.decided_by or "",
        )
        return self._event("review.decided", case, _DECIDED_VERSION, data)

    def _event(self, type_: str, case: ReviewCase, version: int, data: msgspec.Struct) -> Event:
        return Event(
            id=self._ids.new(),
            source="ofac",
            type=type_,
            subject=str(case.review_id),
            version=version,
            time=self._now,
            data=msgspec.to_builtins(data),
            traceparent=self._traceparent,
        )
