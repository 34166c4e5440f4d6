"""Sets up Elasticsearch (or OpenSearch) or Kibana from files; a repeat brings them up to date.

    python setup.py elasticsearch URL FOLDER    # template.json: fields; lifecycle.json: how long lines stay
    python setup.py kibana URL FILE             # the data view and the saved searches

Standard library only.
"""

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

STREAM = "payflow-logs"
WAIT_S = 600.0
PAUSE_S = 2.0
_BOUNDARY = "payflow-saved-objects"


class SetupError(Exception):
    """A server refused what it was told, or did not answer in time."""


def main(arguments: list[str]) -> int:
    """0 when everything is in place."""
    what, url, path = arguments[0], arguments[1].rstrip("/"), Path(arguments[2])
    try:
        {"elasticsearch": set_up_elasticsearch, "kibana": set_up_kibana}[what](url, path)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def set_up_elasticsearch(url: str, folder: Path) -> None:
    """The template first: a stream that is there before it would have guessed its fields. Raises SetupError."""
    wait_for(f"{url}/_cluster/health?wait_for_status=yellow&timeout=5s")
    template = json.loads((folder / "template.json").read_bytes())
    send("PUT", f"{url}/_index_template/{STREAM}", json.dumps(template).encode())
    if send("GET", f"{url}/_data_stream/{STREAM}", can_be=(404,)) is None:
        send("PUT", f"{url}/_data_stream/{STREAM}")
    else:
        bring_up_to_date(url, template["template"]["mappings"])
    server = send("GET", f"{url}/") or {}
    if server.get("version", {}).get("distribution") == "opensearch":
        print("OpenSearch keeps lines until a policy of yours (Index State Management) removes them.", file=sys.stderr)
    else:
        send("PUT", f"{url}/_data_stream/{STREAM}/_lifecycle", (folder / "lifecycle.json").read_bytes())
    print(f"The stream {STREAM} is set up.")


def bring_up_to_date(url: str, mappings: dict) -> None:
    """Let the stream take the fields of this release: it refuses those that it does not know. Raises SetupError.

    Where a field has another type than before, the stream goes on in a new index.
    """
    path = f"{url}/{STREAM}/_mapping?write_index_only=true"
    if send("PUT", path, json.dumps(mappings).encode(), can_be=(400,)) is None:
        send("POST", f"{url}/{STREAM}/_rollover")


def set_up_kibana(url: str, file: Path) -> None:
    """Raises SetupError."""
    wait_for(f"{url}/api/status")
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n\r\n'
    body = head.encode() + file.read_bytes() + f"\r\n--{_BOUNDARY}--\r\n".encode()
    answer = send(
        "POST",
        f"{url}/api/saved_objects/_import?overwrite=true",
        body,
        {"kbn-xsrf": "payflow", "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"},
    )
    if not answer or not answer.get("success"):
        raise SetupError(f"Kibana did not take the saved objects: {answer}")
    print(f"Kibana: {answer['successCount']} saved objects are there.")


def wait_for(url: str) -> None:
    """Return when a server answers 200. Raises SetupError after ten minutes."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise SetupError(f"{url}: {error}") from error
        time.sleep(PAUSE_S)


def send(
    method: str,
    url: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    *,
    can_be: tuple[int, ...] = (),
) -> dict | None:
    """The JSON of an answer; None for a status of `can_be`. Raises SetupError with the server's words."""
    request = urllib.request.Request(
        url, data=body, method=method, headers=headers or {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read() or b"{}")
    except urllib.error.HTTPError as error:
        if error.code in can_be:
            return None
        raise SetupError(f"{method} {url}: {error.code} {error.read()[:500].decode('utf-8', 'replace')}") from error
    except OSError as error:
        raise SetupError(f"{method} {url}: {error}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
