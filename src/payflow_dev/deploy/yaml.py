"""How generated YAML is written: by PyYAML, so that readers of YAML 1.1 and of 1.2 find the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import yaml

Block: TypeAlias = dict[str, Any]

_WIDTH: Final = 120
# Numbers to a reader of YAML 1.2 (Compose, Prometheus), texts to PyYAML, which speaks 1.1: `1e3`, `0o17`.
_NUMBER: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+")


class _Dumper(yaml.SafeDumper):
    """Lists stand beneath their key, indented, and nothing is written as an alias."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _NUMBER.fullmatch(text) else None)


_Dumper.add_representer(str, _write_text)


def dump(value: Mapping[str, Any]) -> str:
    """A map as a YAML document, its keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)
