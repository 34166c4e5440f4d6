"""The store of logs knows every field that our code can write, with its type, and no other."""

from __future__ import annotations

import ast
import json
import re
import types
import typing
from pathlib import Path

import msgspec
import pytest
import yaml

from payflow.platform.lines import CallLine, EventsLine
from payflow.platform.telemetry import ecs_name
from payflow.services.confirm.measures import PaymentEnded
from payflow_dev.deploy import log_fields
from payflow_dev.deploy.log_fields import UnnamedFields, edge_fields, fields, service_fields, unused_types
from payflow_dev.deploy.logs import template

ROOT = Path(__file__).resolve().parents[2]
_KINDS = {int: "long", bool: "boolean", float: "float"}


def test_the_template_that_ships_takes_the_fields_that_are_written_and_no_other() -> None:
    shipped = json.loads((ROOT / "deploy/elastic/template.json").read_text(encoding="utf-8"))
    mappings = shipped["template"]["mappings"]

    assert mappings["dynamic"] == "strict"
    assert mappings["properties"].keys() == service_fields() | edge_fields() | set(log_fields.COLLECTED)
    assert shipped == json.loads(json.dumps(template()))


@pytest.mark.parametrize("field", ["payflow.payment_id", "error.code", "payflow.failures", "trace.id", "process.pid"])
def test_fields_are_found_in_the_code(field: str) -> None:
    assert field in service_fields()


def test_every_type_is_one_of_a_field_that_is_written() -> None:
    assert unused_types() == set()


@pytest.mark.parametrize("line", [CallLine, EventsLine, PaymentEnded])
def test_the_members_of_a_line_have_the_types_that_the_store_expects(line: type[msgspec.Struct]) -> None:
    for name, kind in typing.get_type_hints(line).items():
        options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        field = fields()[ecs_name(name)]
        is_counts = typing.get_origin(kind) is dict
        expected = "object" if is_counts else next((_KINDS[one] for one in options if one in _KINDS), None)

        assert field["type"] == (expected or ("text" if name == "message" else "keyword")), (line, name)


def test_a_value_has_one_type_wherever_it_is_written() -> None:
    """A field that is a number in one line and an object in another would be refused in one of them."""
    nested = {name for name, kind in fields().items() if kind.get("type") == "object" or "properties" in kind}
    dotted = {".".join(name.split(".")[:count]) for name in fields() for count in range(1, name.count(".") + 1)}

    assert not dotted & (set(fields()) - nested)


def test_fields_that_the_code_does_not_name_are_not_guessed(tmp_path: Path) -> None:
    call = ast.parse("log.info('x', **counts)").body[0]
    assert isinstance(call, ast.Expr)

    with pytest.raises(UnnamedFields, match="name the fields"):
        list(log_fields._said_by(call.value, tmp_path / "api.py"))


def test_the_collectors_fence_takes_none_of_our_fields_away() -> None:
    text = yaml.safe_load((ROOT / "deploy/otel/logs.yaml").read_text(encoding="utf-8"))
    statements = "\n".join(text["processors"]["transform/document"]["log_statements"][0]["statements"])
    (pattern,) = re.findall(r'delete_matching_keys\(body, "(.*)"\)', statements)

    assert [name for name in fields() if re.search(pattern, name)] == []
    for name in ("pan", "payflow.pan", "card_pan", "user.password", "otp", "payflow.otp.code", "IBAN", "e_mail"):
        assert re.search(pattern, name), name
    assert set(re.findall(r'set\(body\["([^"]+)"\]', statements)) == set(log_fields.COLLECTED) | {"service.name"}
