"""The settings of Kafka, and what is said where a Kafka of one's own cannot be had."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from payflow.kernel.envelope import Event
from payflow.platform.eventlog.kafka.config import Kafka, kafka_of
from payflow.platform.eventlog.kafka.wire import from_record, to_record, type_in
from payflow.platform.eventlog.kafka.worker import Worker
from payflow.platform.settings import CommonSettings, SettingsError, read_settings, shown
from payflow.run.errors import StartError
from payflow.run.event_tail import Wanted, tail_kafka
from payflow.run.instance import Instance
from payflow.run.supervisor.settings import check_values
from payflow_dev.kafka import jars
from payflow_dev.kafka.node import Node
from payflow_dev.kafka.supervised import prepare_broker
from tests.fakes_audit import an_event


def _kafka(**settings: str) -> Kafka | None:
    return kafka_of(read_settings(CommonSettings, {f"PAYFLOW_KAFKA_{name}": text for name, text in settings.items()}))


def test_without_brokers_events_stay_in_postgres() -> None:
    assert _kafka() is None


def test_topics_and_groups_have_the_prefix() -> None:
    kafka = _kafka(BROKERS="a:9092,b:9092", TOPIC_PREFIX="bank.")

    assert kafka is not None
    assert (kafka.topic("payments"), kafka.name_of("bank.payments")) == ("bank.payments", "payments")
    assert kafka.group("notification.webhooks") == "bank.notification.webhooks"
    assert kafka.connection == {"bootstrap.servers": "a:9092,b:9092", "security.protocol": "PLAINTEXT"}


def test_brokers_are_always_verified_with_tls() -> None:
    kafka = _kafka(BROKERS="a:9093", SECURITY_PROTOCOL="SSL", CA="-----BEGIN CERTIFICATE-----")

    assert kafka is not None
    assert kafka.connection["enable.ssl.certificate.verification"] is True
    assert kafka.connection["ssl.endpoint.identification.algorithm"] == "https"
    assert kafka.connection["ssl.ca.pem"].startswith("-----BEGIN")


@pytest.mark.parametrize("brokers", ["kafka://a:9092", "a", "a:9092;b:9092", "a:0", "a b:9092"])
def test_brokers_that_are_no_list_of_host_and_port_are_refused(brokers: str) -> None:
    with pytest.raises(SettingsError, match="expected host:port,host:port"):
        _kafka(BROKERS=brokers)


def test_a_prefix_that_no_topic_can_have_is_refused() -> None:
    with pytest.raises(SettingsError, match="letters, digits"):
        _kafka(BROKERS="a:9092", TOPIC_PREFIX="pay flow/")


def test_settings_that_do_not_fit_together_stop_the_start() -> None:
    environ = {"PAYFLOW_KAFKA_BROKERS": "a:9092", "PAYFLOW_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}

    with pytest.raises(StartError, match="needs PAYFLOW_KAFKA_SASL_USERNAME"):
        check_values(environ, CommonSettings)


def test_passwords_and_keys_are_never_shown() -> None:
    assert shown("kafka_sasl_password", "secret") == shown("kafka_key", "secret") == "********"


def test_what_a_client_says_over_and_over_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("kafka")

    with caplog.at_level(logging.WARNING, logger="kafka"):
        for seconds in range(50):
            logger.error("FAIL [a#producer-1]: b:9092/1: Connect failed: Connection refused (after %dms)", seconds)
        logger.error("FAIL [a#producer-1]: b:9092/2: Connect failed: Connection refused (after 0ms)")

    assert len(caplog.records) == 2


# --- records ----------------------------------------------------------------------------------------------------


def test_an_event_survives_the_way_through_a_record() -> None:
    event = an_event(data={"amount_minor": 2**62, "reason": None, "path": ["A"]})

    record = to_record(event, position=7)
    delivery = from_record(record.value, record.headers, topic=record.topic)

    assert (delivery.event, delivery.position, delivery.source) == (event, 7, "payflow_confirm")
    assert record.key == event.subject.encode()


def test_a_record_without_the_position_of_its_batch_is_an_event_all_the_same() -> None:
    record = to_record(an_event(), position=7)

    assert from_record(record.value, None, topic="payments").position == 0
    assert from_record(record.value, [("payflow-position", b"x")], topic="payments").position == 0


def test_the_type_of_a_record_is_read_without_the_rest_of_it() -> None:
    assert type_in(to_record(an_event(), position=1).value) == "payment.completed"


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b'{"type": 1}', b"[" * 100_000], ids=range(6))
def test_what_is_no_event_has_no_type(value: bytes | None) -> None:
    assert type_in(value) is None


def test_an_event_without_a_trace_has_no_empty_attribute() -> None:
    event = Event(**{**{name: getattr(an_event(), name) for name in Event.__struct_fields__}, "traceparent": ""})

    record = to_record(event, position=1)

    assert b"traceparent" not in record.value
    assert from_record(record.value, record.headers, topic="payments").event == event


# --- the worker -------------------------------------------------------------------------------------------------


async def test_a_worker_does_one_thing_after_the_other_in_one_thread_and_tells_errors() -> None:
    worker = Worker("test")
    threads: list[int] = []

    def note() -> int:
        threads.append(threading.get_ident())
        return len(threads)

    results = await asyncio.gather(*(worker.do(note) for _ in range(5)))
    with pytest.raises(ZeroDivisionError):
        await worker.do(lambda: 1 // 0)
    worker.stop()

    assert results == [1, 2, 3, 4, 5]
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


# --- a Kafka of one's own ---------------------------------------------------------------------------------------


def test_without_maven_and_jars_it_is_said_how_to_have_kafka(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    with pytest.raises(StartError) as refused:
        prepare_broker(Instance(data_dir=tmp_path / "data"), None, readers=1)

    assert "mvn is not installed" in refused.value.message
    assert "PAYFLOW_KAFKA_BROKERS" in refused.value.message


def test_a_java_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(jars.ToolMissing, match="not Java 17 or newer"):
        jars.java()


def test_jars_that_are_not_what_was_expected_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = jars.cache_folder()
    folder.mkdir(parents=True)
    (folder / "kafka_2.13-4.4.0.jar").write_bytes(b"something else")

    with pytest.raises(jars.ToolMissing, match="does not hold the jars that were expected"):
        jars.fetch()


def _node(folder: Path, *, nodes: int) -> Node:
    return Node(
        number=1,
        port=21,
        controller_port=31,
        voters=[(number, 30 + number) for number in range(1, nodes + 1)],
        folder=folder / "node",
        jars=folder,
        java="java",
        cluster_id="id",
        password="secret",
    )


@pytest.mark.parametrize(("nodes", "copies", "in_step"), [(1, "1", "1"), (3, "3", "2")])
def test_as_many_copies_as_nodes_and_all_but_one_in_step(tmp_path: Path, nodes: int, copies: str, in_step: str) -> None:
    properties = _node(tmp_path, nodes=nodes).properties()

    assert (properties["default.replication.factor"], properties["min.insync.replicas"]) == (copies, in_step)
    assert ("log.flush.interval.messages" in properties) is (nodes == 1)


def test_only_its_user_may_read_a_nodes_configuration(tmp_path: Path) -> None:
    node = _node(tmp_path, nodes=1)

    node.write_configuration()

    written = node.folder / "server.properties"
    assert written.stat().st_mode & 0o777 == 0o600
    assert "secret" in written.read_text()
    assert not any("secret" in part for part in node.command())


def test_what_librdkafka_says_of_itself_is_not_written_over_the_terminal() -> None:
    says = "import logging, payflow.platform.eventlog.kafka.config; logging.getLogger('kafka').warning('FAIL')"

    done = subprocess.run([sys.executable, "-c", says], capture_output=True, text=True, check=True)

    assert done.stderr == ""


async def test_who_watches_while_the_broker_starts_is_told_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = _kafka(BROKERS="127.0.0.1:1")
    assert kafka is not None
    monkeypatch.setattr("payflow.platform.eventlog.kafka.reading._TIMEOUT_S", 0.2)

    with pytest.raises(StartError, match="if it is just starting, try again in a moment"):
        _ = [event async for event in tail_kafka(kafka, Wanted(), last=1, follow=False)]
