"""deploy/elastic/template.json: the fields of a log line in Elasticsearch or OpenSearch, and no others."""

from __future__ import annotations

import json
from typing import Any, Final

from payflow_dev.deploy.log_fields import fields
from payflow_dev.deploy.names import GENERATED

STREAM: Final = "payflow-logs"


def template_json() -> str:
    """The whole file: an index template for the stream of log lines."""
    return json.dumps(template(), indent=2) + "\n"


def template() -> dict[str, Any]:
    """The index template. `dynamic: strict`: a line with a field that no code of ours writes is refused as a whole."""
    known = fields()
    return {
        "_meta": {
            "generated": GENERATED.removeprefix("# "),
            "description": "Log lines of Payflow's containers, see deploy/README.md",
        },
        "index_patterns": [f"{STREAM}*"],
        "data_stream": {},
        "priority": 300,
        "template": {
            "settings": {
                "number_of_shards": 1,
                "number_of_replicas": 0,
                "index.refresh_interval": "5s",
                "index.mapping.total_fields.limit": 3 * len(known),
                "index.mapping.ignore_malformed": True,
            },
            "mappings": {"dynamic": "strict", "properties": known},
        },
    }
