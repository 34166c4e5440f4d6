"""The event log on Apache Kafka: a relay publishes the outbox, consumers read as groups, effect once through an inbox.

Imported only where PAYFLOW_KAFKA_BROKERS is set.
"""
