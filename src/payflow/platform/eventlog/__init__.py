"""The event log: services append events in their own transaction, consumers read each event in order, effect once."""

from payflow.platform.eventlog.consumer import Consumer
from payflow.platform.eventlog.delivery import EventHandler
from payflow.platform.eventlog.outbox import Outbox, encode_events, event_of

__all__ = ["Consumer", "EventHandler", "Outbox", "encode_events", "event_of"]
