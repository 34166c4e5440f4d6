"""The notification service's database through named queries: messages, devices, webhooks."""

from payflow.services.notification.store.devices import PostgresDevices
from payflow.services.notification.store.messages import PostgresMessages, PostgresStore
from payflow.services.notification.store.webhooks import PostgresWebhookChanges, PostgresWebhookStore

__all__ = ["PostgresDevices", "PostgresMessages", "PostgresStore", "PostgresWebhookChanges", "PostgresWebhookStore"]
