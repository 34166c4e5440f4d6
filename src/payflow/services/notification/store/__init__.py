"""The notification service's database through named queries: messages, devices, webhooks."""

from payflow.services.notification.store.devices import PostgresDevices
from payflow.services.notification.store.messages import PostgresMessages, PostgresStore
from payflow.services.notification.store.webhooks import (
    TAKEN_AT_ONCE,
    TAKEN_OF_A_FAILING_ONE,
    PostgresWebhookChanges,
    PostgresWebhookStore,
)

__all__ = [
    "TAKEN_AT_ONCE",
    "TAKEN_OF_A_FAILING_ONE",
    "PostgresDevices",
    "PostgresMessages",
    "PostgresStore",
    "PostgresWebhookChanges",
    "PostgresWebhookStore",
]
