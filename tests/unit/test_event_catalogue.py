"""The catalogue of events: complete, told as it is, and never changed under a reader's feet."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from payflow.contracts.topics import TOPIC_BY_NAME, TOPIC_BY_TYPE, TOPICS, PaymentChanged, Topic, consumers_of
from payflow.run.registry import service_names
from payflow.services.audit.consumer import EVERY_TOPIC
from payflow.services.notification.consumer import TOPICS as NOTIFICATION_TOPICS
from payflow.services.notification.consumer import WEBHOOK_CONSUMER, WEBHOOK_TOPICS
from payflow.services.risk.consumer import TOPICS as RISK_TOPICS
from payflow.services.risk.usecases import REFUSED, RETURNS
from payflow_dev.events.asyncapi import asyncapi_document
from payflow_dev.events.published import WHAT_TO_DO, breaking_changes, current_forms

ROOT = Path(__file__).resolve().parents[2]
PAYMENTS = TOPIC_BY_NAME["payments"]


def _types(*topics: str) -> set[str]:
    return {type_ for name in topics for type_ in TOPIC_BY_NAME[name].types}


# --- what it says -----------------------------------------------------------------------------------------------


def test_every_type_is_in_one_topic_and_has_a_sentence() -> None:
    every = [event for topic in TOPICS for event in topic.events]

    assert len({event.name for event in every}) == len(every)
    assert all(event.summary.endswith(".") for event in every)


def test_owners_are_services() -> None:
    assert {topic.owner for topic in TOPICS} - {"*"} <= set(service_names())


@pytest.mark.parametrize(
    ("consumer", "heard"),
    [
        ("audit", _types(*EVERY_TOPIC)),
        ("notification", _types(*NOTIFICATION_TOPICS)),
        (WEBHOOK_CONSUMER, _types(*WEBHOOK_TOPICS)),
        ("risk", _types(*RISK_TOPICS) & (REFUSED | RETURNS)),
    ],
)
def test_a_consumer_hears_what_the_catalogue_says(consumer: str, heard: set[str]) -> None:
    assert {type_ for type_ in TOPIC_BY_TYPE if consumer in consumers_of(type_)} == heard


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_key_is_a_field_that_every_event_of_the_topic_has(topic: Topic) -> None:
    required = {field.name for field in msgspec.structs.fields(topic.data) if field.required}

    assert topic.key == "subject" or topic.key in required


def test_events_of_one_payment_have_one_key() -> None:
    payment = {"payment_id": "p-1", "return_id": "r-1"}

    keys = {
        TOPIC_BY_NAME[name].key_of(subject=subject, data=payment)
        for name, subject in [("payments", "p-1"), ("returns", "r-1"), ("reviews.opened", "c-1"), ("incoming", "p-1")]
    }

    assert keys == {"p-1"}


def test_an_event_without_the_field_of_its_key_is_keyed_by_its_subject() -> None:
    assert PAYMENTS.key_of(subject="p-1", data={}) == "p-1"


# --- for programs -----------------------------------------------------------------------------------------------


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi_document()

    def resolve(reference: str) -> Any:
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        return found

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for entry in value.values() for found in references(entry)]
        return [found for entry in value for found in references(entry)] if isinstance(value, list) else []

    found = references(document)

    assert len(found) > 100
    assert all(resolve(reference) for reference in found)


def test_every_type_is_sent_and_received_in_the_asyncapi_document() -> None:
    operations = asyncapi_document()["operations"].values()

    for action in ("send", "receive"):
        told = {
            message["$ref"].rpartition("/")[2]
            for operation in operations
            if operation["action"] == action
            for message in operation["messages"]
        }
        assert told == set(TOPIC_BY_TYPE), action


# --- change -----------------------------------------------------------------------------------------------------


def test_the_events_of_the_code_break_no_reader_of_the_published_ones() -> None:
    files = sorted((ROOT / "docs" / "events" / "schemas").glob("*.json"))
    published = {form["topic"]: form for form in (msgspec.json.decode(file.read_bytes()) for file in files)}

    assert set(published) == set(TOPIC_BY_NAME)
    assert breaking_changes(published=published, current=current_forms()) == []


def _data(forms: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = forms["payments"]["data"]
    return data


def _remove_field(forms: dict[str, Any]) -> None:
    del _data(forms)["properties"]["amount_minor"]
    _data(forms)["required"].remove("amount_minor")


def _change_type(forms: dict[str, Any]) -> None:
    _data(forms)["properties"]["amount_minor"] = {"type": "string"}


def _change_inner_type(forms: dict[str, Any]) -> None:
    _data(forms)["properties"]["path"]["items"] = {"type": "integer"}


def _add_required(forms: dict[str, Any]) -> None:
    _data(forms)["properties"]["channel"] = {"type": "string"}
    _data(forms)["required"].append("channel")


def _require_optional(forms: dict[str, Any]) -> None:
    _data(forms)["required"].append("reason")


def _loosen_required(forms: dict[str, Any]) -> None:
    _data(forms)["required"].remove("state")


def _remove_type(forms: dict[str, Any]) -> None:
    forms["payments"]["types"].remove("payment.expired")


def _remove_topic(forms: dict[str, Any]) -> None:
    del forms["payments"]


def _change_key(forms: dict[str, Any]) -> None:
    forms["payments"]["key"] = "customer_id"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_remove_field, "Topic payments: `data.amount_minor` was removed."),
        (_change_type, "`data.amount_minor` changed its type from integer or null to string."),
        (_change_inner_type, "`data.path` changed its type"),
        (_add_required, "`data.channel` is new and required; events in the log lack it."),
        (_require_optional, "`data.reason` is required now; events in the log may lack it."),
        (_loosen_required, "`data.state` was always there and is optional now."),
        (_remove_type, "Topic payments: payment.expired was removed."),
        (_remove_topic, "Topic payments was removed."),
        (_change_key, "Topic payments: `key` was payment_id and is customer_id."),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_change_that_would_break_a_reader_is_refused_and_says_what_to_do(
    change: Callable[[dict[str, Any]], None], told: str
) -> None:
    changed = copy.deepcopy(current_forms())
    change(changed)

    (sentence,) = breaking_changes(published=current_forms(), current=changed)

    assert told in sentence
    assert sentence.endswith(WHAT_TO_DO)


def test_growth_is_no_breaking_change() -> None:
    grown = copy.deepcopy(current_forms())
    _data(grown)["properties"]["channel"] = {"type": "string", "default": "api"}
    _data(grown)["properties"]["state"]["description"] = "The state."
    grown["payments"]["types"].append("payment.recalled")
    grown["recalls"] = grown["payments"]

    assert breaking_changes(published=current_forms(), current=grown) == []


def test_a_struct_with_another_field_is_seen_as_the_change_that_it_is() -> None:
    class Narrower(msgspec.Struct, frozen=True, kw_only=True):
        payment_id: str

    topics = [msgspec.structs.replace(PAYMENTS, data=Narrower)]
    found = breaking_changes(
        published={"payments": current_forms([PAYMENTS])["payments"]}, current=current_forms(topics)
    )

    assert any("`data.payment_id` changed its type from uuid to string" in sentence for sentence in found)
    assert any("`data.state` was removed" in sentence for sentence in found)
    assert {field.name for field in msgspec.structs.fields(PaymentChanged)} > {"payment_id"}
