"""From settings to a client's configuration: where the brokers are, and how one shows who one is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from payflow.platform.settings import CommonSettings, SettingsError

Config = dict[str, Any]

_SAY_AGAIN_AFTER_S: Final = 60.0
_PROTOCOLS_WITH_SASL: Final = ("SASL_PLAINTEXT", "SASL_SSL")
_PROTOCOLS_WITH_TLS: Final = ("SSL", "SASL_SSL")


class _Seldom(logging.Filter):
    """Lets what a client says over and over (a broker that cannot be reached, each second) through once a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        # The beginning names the kind, the client and the broker; at the end is how long it took this time.
        beginning, now = record.getMessage().partition("(after ")[0], time.monotonic()
        is_new = now - self._said_at.get(beginning, -_SAY_AGAIN_AFTER_S) >= _SAY_AGAIN_AFTER_S
        if is_new:
            self._said_at[beginning] = now
        return is_new


_logger: Final = logging.getLogger("kafka")
_logger.addFilter(_Seldom())
# On the command line, where nobody keeps a log, nothing is written over the answer: the error itself is told.
_logger.addHandler(logging.NullHandler())


class Kafka(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster as our clients use it. `connection` is what every client of librdkafka needs to reach it.

    `partitions` and `replication` are for topics that do not exist yet; -1 leaves it to the brokers.
    """

    connection: Config
    prefix: str = "payflow."
    partitions: int = 6
    replication: int = -1
    creates_topics: bool = True

    def topic(self, name: str) -> str:
        """The name in Kafka of a topic of the catalogue."""
        return f"{self.prefix}{name}"

    def name_of(self, topic: str | None) -> str:
        """The name in the catalogue of a topic in Kafka."""
        return (topic or "").removeprefix(self.prefix)

    def group(self, consumer: str) -> str:
        """The consumer group of a consumer: whoever shares it shares the work."""
        return f"{self.prefix}{consumer}"

    def client(self, client_id: str, *, on_error: Callable[[Any], None] | None = None) -> Config:
        """What every client begins with. `on_error` hears of what the client cannot do anything about by itself."""
        return {
            **self.connection,
            "client.id": client_id,
            # A broker that is back is found again within a second, not within ten.
            "reconnect.backoff.max.ms": 1000,
            "topic.metadata.refresh.interval.ms": 30_000,
            "socket.keepalive.enable": True,
            "log.connection.close": False,
            "allow.auto.create.topics": False,
            "logger": _logger,
            **({} if on_error is None else {"error_cb": on_error}),
        }


def kafka_of(settings: CommonSettings) -> Kafka | None:
    """The cluster that the settings name; None where they name none. Raises SettingsError for what does not fit."""
    if not settings.kafka_brokers:
        return None
    return Kafka(
        connection=_connection(settings),
        prefix=settings.kafka_topic_prefix,
        partitions=settings.kafka_partitions,
        replication=settings.kafka_replication or -1,
        creates_topics=settings.kafka_create_topics,
    )


def _connection(settings: CommonSettings) -> Config:
    config: Config = {
        "bootstrap.servers": settings.kafka_brokers,
        "security.protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol in _PROTOCOLS_WITH_SASL:
        if not settings.kafka_sasl_username or not settings.kafka_sasl_password:
            raise SettingsError(
                f"PAYFLOW_KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol} needs "
                "PAYFLOW_KAFKA_SASL_USERNAME and PAYFLOW_KAFKA_SASL_PASSWORD (or _FILE)."
            )
        config |= {
            "sasl.mechanism": settings.kafka_sasl_mechanism,
            "sasl.username": settings.kafka_sasl_username,
            "sasl.password": settings.kafka_sasl_password,
        }
    if settings.kafka_security_protocol in _PROTOCOLS_WITH_TLS:
        config |= _tls(settings)
    return config


def _tls(settings: CommonSettings) -> Config:
    """Brokers are always verified, their names too. Without a CA of one's own the system's are trusted."""
    if bool(settings.kafka_certificate) is not bool(settings.kafka_key):
        raise SettingsError("PAYFLOW_KAFKA_CERTIFICATE and PAYFLOW_KAFKA_KEY belong together: set both or none.")
    config: Config = {"enable.ssl.certificate.verification": True, "ssl.endpoint.identification.algorithm": "https"}
    if settings.kafka_ca:
        config["ssl.ca.pem"] = settings.kafka_ca
    if settings.kafka_certificate:
        config |= {"ssl.certificate.pem": settings.kafka_certificate, "ssl.key.pem": settings.kafka_key}
    return config
