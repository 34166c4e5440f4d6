"""A real Kafka for development and tests: the broker's jars by Maven, brokers in KRaft mode by Java."""
