"""The program that sets up Elasticsearch and Kibana, against a server that answers as they do."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ELASTIC = ROOT / "deploy" / "elastic"
SAVED_OBJECTS = ROOT / "deploy" / "kibana" / "saved_objects.ndjson"
TEMPLATE: dict[str, Any] = json.loads((ELASTIC / "template.json").read_text(encoding="utf-8"))


class Servers:
    """Elasticsearch and Kibana as far as the program speaks with them."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.bodies: dict[str, bytes] = {}
        self.streams: set[str] = set()
        self.refuses = ""
        self.distribution = ""
        self.url = ""

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, Any]]:
        path = path.split("?")[0]
        self.heard.append((method, path))
        self.bodies[path] = body
        if path == self.refuses:
            return 400, {"error": {"type": "illegal_argument_exception"}}
        if path.startswith("/_data_stream/") and not path.endswith("/_lifecycle"):
            if method == "PUT":
                self.streams.add(path)
            return (200, {"data_streams": []}) if path in self.streams else (404, {"error": "not found"})
        if path == "/":
            return 200, {"version": {"distribution": self.distribution}}
        if path == "/api/saved_objects/_import":
            return self._import(headers, body)
        return 200, {"acknowledged": True}

    def _import(self, headers: Any, body: bytes) -> tuple[int, dict[str, Any]]:
        if headers["kbn-xsrf"] is None:
            return 400, {"message": "Request must contain a kbn-xsrf header."}
        message = BytesParser().parsebytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body)
        (part,) = message.get_payload()
        assert part.get_param("name", header="content-disposition") == "file"
        assert part.get_filename().endswith(".ndjson")
        lines = part.get_payload(decode=True).splitlines()
        objects = [json.loads(line) for line in lines if line]
        return 200, {"success": True, "successCount": len(objects)}


@pytest.fixture
def servers() -> Iterator[Servers]:
    both = Servers()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            status, document = both.answer(self.command, self.path, self.headers, body)
            answer = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST = _serve

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    both.url = f"http://127.0.0.1:{server.server_port}/"
    yield both
    server.shutdown()
    thread.join()
    server.server_close()


def set_up(what: str, servers: Servers, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(ELASTIC / "setup.py"), what, servers.url, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_the_fields_are_told_before_the_stream_is_there(servers: Servers) -> None:
    done = set_up("elasticsearch", servers, ELASTIC)

    assert done.returncode == 0, done.stderr
    assert [heard for heard in servers.heard if heard[0] == "PUT"] == [
        ("PUT", "/_index_template/payflow-logs"),
        ("PUT", "/_data_stream/payflow-logs"),
        ("PUT", "/_data_stream/payflow-logs/_lifecycle"),
    ]
    assert json.loads(servers.bodies["/_index_template/payflow-logs"]) == TEMPLATE
    assert json.loads(servers.bodies["/_data_stream/payflow-logs/_lifecycle"]) == {"data_retention": "14d"}


def test_a_repeat_leaves_the_stream_as_it_is(servers: Servers) -> None:
    set_up("elasticsearch", servers, ELASTIC)
    again = set_up("elasticsearch", servers, ELASTIC)

    assert again.returncode == 0
    assert servers.heard.count(("PUT", "/_data_stream/payflow-logs")) == 1
    assert servers.heard.count(("PUT", "/_index_template/payflow-logs")) == 2


def test_a_repeat_tells_the_stream_of_new_fields(servers: Servers) -> None:
    set_up("elasticsearch", servers, ELASTIC)
    set_up("elasticsearch", servers, ELASTIC)

    assert servers.heard.count(("PUT", "/payflow-logs/_mapping")) == 1
    assert json.loads(servers.bodies["/payflow-logs/_mapping"]) == TEMPLATE["template"]["mappings"]
    assert ("POST", "/payflow-logs/_rollover") not in servers.heard


def test_where_a_field_has_another_type_the_stream_goes_on_in_a_new_index(servers: Servers) -> None:
    set_up("elasticsearch", servers, ELASTIC)
    servers.refuses = "/payflow-logs/_mapping"

    again = set_up("elasticsearch", servers, ELASTIC)

    assert again.returncode == 0, again.stderr
    assert ("POST", "/payflow-logs/_rollover") in servers.heard


def test_opensearch_which_has_no_lifecycle_of_its_own_is_told_none(servers: Servers) -> None:
    servers.distribution = "opensearch"

    done = set_up("elasticsearch", servers, ELASTIC)

    assert done.returncode == 0, done.stderr
    assert "until a policy of yours" in done.stderr
    assert ("PUT", "/_data_stream/payflow-logs/_lifecycle") not in servers.heard


def test_a_refusal_is_told_in_the_servers_words(servers: Servers) -> None:
    servers.refuses = "/_index_template/payflow-logs"

    done = set_up("elasticsearch", servers, ELASTIC)

    assert done.returncode == 1
    assert "400" in done.stderr
    assert "illegal_argument_exception" in done.stderr
    assert ("PUT", "/_data_stream/payflow-logs") not in servers.heard


def test_kibana_takes_every_saved_object(servers: Servers) -> None:
    done = set_up("kibana", servers, SAVED_OBJECTS)

    assert done.returncode == 0, done.stderr
    assert "6 saved objects" in done.stdout


def test_saved_searches_ask_for_fields_that_there_are() -> None:
    objects = [json.loads(line) for line in SAVED_OBJECTS.read_text(encoding="utf-8").splitlines()]
    fields = set(TEMPLATE["template"]["mappings"]["properties"])
    ids = {one["id"] for one in objects}

    for one in objects:
        assert {reference["id"] for reference in one["references"]} <= ids
        if one["type"] == "search":
            source = json.loads(one["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
            asked = set(re.findall(r"([a-z_.]+) (?::|>=|>)", source["query"]["query"]))
            assert asked
            assert asked | set(one["attributes"]["columns"]) <= fields
