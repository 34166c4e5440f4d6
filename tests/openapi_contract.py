"""Compares real answers with the OpenAPI document: a status, media type or body that it does not tell is an error."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

_ROOT = "urn:payflow:openapi"


class OpenApiContract:
    """An OpenAPI document to hold answers against.

    `check` raises AssertionError for an answer that the document does not allow; a journey may call it with every
    answer that it gets: `contract.check("GET", "/accounts/ACC001", status=200, headers=..., body=...)`.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        resource = Resource(contents=dict(document), specification=DRAFT202012)
        self._registry: Any = Registry().with_resource(_ROOT, resource)
        self._paths = sorted(
            ((_pattern(path), path) for path in document["paths"]), key=lambda pair: pair[1].count("{")
        )

    def operation_at(self, method: str, path: str) -> tuple[str, dict[str, Any]] | None:
        """The documented path and operation of an address, None where there is none."""
        for pattern, template in self._paths:
            if pattern.fullmatch(path) and method.lower() in self.document["paths"][template]:
                return template, self.document["paths"][template][method.lower()]
        return None

    def check(self, method: str, path: str, *, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Raises AssertionError when the document does not allow the answer. Unknown addresses may only be refused."""
        path = path.partition("?")[0]
        found = self.operation_at(method, path)
        if found is None:
            assert status in (404, 405), f"{method} {path} is not documented and answered {status}"
            return
        template, operation = found
        response, place = self.response_of(operation, template, method, str(status))
        assert response is not None, f"{method} {template} answered {status}, which is not documented"
        for name in ("WWW-Authenticate", "ETag", "RateLimit", "traceresponse"):
            if name in response.get("headers", {}):
                assert name.lower() in headers, f"{method} {template} answered {status} without {name}"
        if "content" not in response:
            assert body == b"", f"{method} {template} answered {status} with a body"
            return
        media_type = headers["content-type"].partition(";")[0]
        content = response["content"]
        kind = media_type if media_type in content else "*/*"
        assert kind in content, f"{method} {template} answered {status} as {media_type}"
        value = json.loads(body) if media_type.endswith("json") else body.decode("utf-8", "replace")
        self.check_value(value, *place, "content", kind, "schema")
        if media_type.endswith("problem+json"):
            codes = content[kind]["examples"]
            assert value["error"] in codes, f"{method} {template} answered {value['error']}: not documented"

    def response_of(
        self, operation: dict[str, Any], template: str, method: str, status: str
    ) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
        """A documented response, behind its reference where it has one, and its place in the document."""
        response = operation["responses"].get(status)
        if response is not None and "$ref" in response:
            name = response["$ref"].rsplit("/", 1)[1]
            return self.document["components"]["responses"][name], ("components", "responses", name)
        return response, ("paths", template, method.lower(), "responses", status)

    def check_value(self, value: Any, *place: str) -> None:
        """Raises AssertionError when a value does not fit the schema at this place of the document."""
        pointer = "/".join(part.replace("~", "~0").replace("/", "~1") for part in place)
        validator = Draft202012Validator(
            {"$ref": f"{_ROOT}#/{pointer}"}, registry=self._registry, format_checker=FormatChecker()
        )
        errors = [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(value)]
        assert not errors, f"{'/'.join(place)}: {errors}"


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("[^/]+".join(re.escape(part) for part in re.split(r"\{[^}]+\}", path)))
