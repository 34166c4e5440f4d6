"""Pictures of a running system: what Jaeger and Prometheus answered is in them, in its place and in words that fit."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from payflow_dev.pictures.asking import data_of
from payflow_dev.pictures.dashboard import Window, as_asked, legend, page, pictures_of, points_of
from payflow_dev.pictures.panels import Picture, Series, in_unit, ticks_of
from payflow_dev.pictures.trace import duration, spans_of, waterfall

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
SVG = "{http://www.w3.org/2000/svg}"
WINDOW = Window(ends_at=1_000_300.0, length_s=300.0, scrape_s=10.0)


def span(span_id: str, name: str, process: str, began: int, took: int, *, parent: str = "", **tags: Any) -> Any:
    return {
        "spanID": span_id,
        "operationName": name,
        "processID": process,
        "startTime": 5_000_000 + began,
        "duration": took,
        "references": [{"refType": "CHILD_OF", "spanID": parent}] if parent else [],
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }


TRACE = {
    "processes": {"p1": {"serviceName": "gateway"}, "p2": {"serviceName": "confirm"}},
    "spans": [
        span("c", "account/transfer", "p2", 9_000, 2_000, parent="b", error=True),
        span("b", "confirm/confirm", "p2", 1_000, 30_000, parent="a"),
        span("a", "POST /payment/confirm", "p1", 0, 40_000),
        span("d", "event log process", "p1", 35_000, 1_000, parent="gone"),
    ],
}


def texts(svg: str) -> list[str]:
    return [str(found.text) for found in ET.fromstring(svg).iter(f"{SVG}text")]


def test_spans_come_parents_first_and_one_whose_parent_is_missing_stands_by_itself() -> None:
    spans = spans_of(TRACE)

    assert [(one.name, one.depth) for one in spans] == [
        ("POST /payment/confirm", 0),
        ("confirm/confirm", 1),
        ("account/transfer", 2),
        ("event log process", 0),
    ]
    assert [one.began_us for one in spans] == [0, 1_000, 9_000, 35_000]
    assert [one.has_failed for one in spans] == [False, False, True, False]


def test_a_waterfall_tells_every_span_and_how_long_it_took_within_the_page() -> None:
    svg = waterfall("abc", spans_of(TRACE))

    told = texts(svg)
    assert {"POST /payment/confirm", "confirm/confirm", "account/transfer", "40.0 ms", "30.0 ms", "2.0 ms"} <= set(told)
    assert "4 spans of 2 services, 40.0 ms" in told
    root = ET.fromstring(svg)
    width = float(root.attrib["viewBox"].split()[2])
    bars = [(float(one.attrib["x"]), float(one.attrib["width"])) for one in root.iter(f"{SVG}rect")]
    assert all(x >= 0 and x + wide <= width for x, wide in bars)


@pytest.mark.parametrize(("us", "told"), [(12, "12 µs"), (1_500, "1.5 ms"), (2_340_000, "2.34 s")])
def test_a_duration_is_told_in_the_unit_that_a_person_would_take(us: int, told: str) -> None:
    assert duration(us) == told


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_of_a_dashboard_is_drawn_with_the_figures_that_its_queries_gave(path: Path) -> None:
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    asked: list[str] = []

    def ask(query: str, window: Window) -> list[dict[str, Any]]:
        asked.append(query)
        values = [[window.ends_at - 300 + 5 * number, str(number)] for number in range(61)]
        return [{"metric": {"service": "confirm", "state": "SUBMITTED"}, "values": values}]

    pictures = pictures_of(dashboard, ask, WINDOW)
    svg = page(dashboard, pictures, WINDOW)

    assert len(asked) == sum(len(panel["targets"]) for panel in dashboard["panels"])
    assert not any("$" in query for query in asked)
    told = texts(svg)
    assert all(any(words.rstrip("…") in panel["title"] for words in told) for panel in dashboard["panels"])
    assert "no data" not in told
    assert len(list(ET.fromstring(svg).iter(f"{SVG}polyline"))) >= len(asked)


def test_a_panel_without_figures_says_so() -> None:
    picture = Picture("Calls of webhooks", False, "reqps", (0, 0, 12, 8), [Series("none", [])])

    assert "no data" in texts(page({"title": "Payments"}, [picture], WINDOW))


def test_a_line_has_a_gap_where_there_was_no_value() -> None:
    points = points_of([[0, "1"], [5, "2"], [10, "NaN"], [15, "+Inf"], [20, "3"], [25, "4"]])
    picture = Picture("Time", False, "s", (0, 0, 12, 8), [Series("p99", points)])
    drawn = ET.fromstring(page({"title": "Payments"}, [picture], Window(25.0, 25.0, 1.0)))

    coloured = [one for one in drawn.iter(f"{SVG}polyline") if one.attrib["stroke-width"] == "1.6"]
    assert points == [(0, 1), (5, 2), (20, 3), (25, 4)]
    assert len(coloured) == 2


def test_variables_are_filled_in_as_grafana_does_with_everything_chosen() -> None:
    dashboard = {"templating": {"list": [{"name": "service"}]}}

    asked = as_asked('rate(x{service=~"$service"}[$__rate_interval])', dashboard, WINDOW)

    assert asked == 'rate(x{service=~".+"}[40s])'


@pytest.mark.parametrize(
    ("template", "told"),
    [("{{code}}", "OK"), ("{{service}} {{code}}", "OK"), ("p99", "p99"), ("{{missing}}", "none")],
)
def test_a_line_is_named_by_its_labels(template: str, told: str) -> None:
    assert legend(template, {"code": "OK"}) == told


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 0, [0, 0.25, 0.5, 0.75, 1.0]),
        (0, 9.7, [0, 2.5, 5, 7.5, 10]),
        (-1, 3, [-1, 0, 1, 2, 3]),
        (5, 5, [0, 2, 4, 6]),
    ],
)
def test_an_axis_has_few_round_numbers_around_all_values(low: float, high: float, ticks: list[float]) -> None:
    assert ticks_of(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (0.0123, "s", "12.3 ms"), (0.00004, "s", "40 µs"), (90, "s", "90 s"), (0, "s", "0"), (9000, "s", "2.5 h"),
        (4.25, "reqps", "4.25/s"), (0.5, "percentunit", "50%"), (3 * 2**20, "bytes", "3 MiB"), (1234, "short", "1.23K"),
    ],
)  # fmt: skip
def test_a_value_is_told_in_its_unit(value: float, unit: str, told: str) -> None:
    assert in_unit(value, unit) == told


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///etc/passwd", "begins with http"),
        ("http://127.0.0.1:9", "cannot be reached"),
    ],
)
def test_a_server_that_cannot_be_asked_is_told_in_words(url: str, words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        data_of(url)
