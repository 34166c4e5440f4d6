-- With Kafka, this service publishes the outbox, in turn with audit.

GRANT payflow_event_relay TO payflow_notification;
