"""Draw a dashboard: `python -m payflow_dev.pictures.dashboard payments --prometheus http://localhost:9090`.

Reads the dashboard's file as Grafana does, asks a Prometheus each panel's queries over the last minutes, and draws the
panels where the file places them. It is no picture of Grafana, which draws the same figures in its own way.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from payflow.run.instance import repository_root
from payflow_dev.pictures.asking import data_of
from payflow_dev.pictures.panels import HEAD, WIDTH, Picture, Series, draw, height_of
from payflow_dev.pictures.svg import FAINT, GROUND, Drawing

DASHBOARDS: Final = Path("deploy/grafana/dashboards")
_POINTS: Final = 60


class Window(NamedTuple):
    """What time is drawn, in seconds, and how often Prometheus asks: a rate is taken over four times that."""

    ends_at: float
    length_s: float
    scrape_s: float

    @property
    def step_s(self) -> float:
        return max(self.length_s / _POINTS, 1.0)

    @property
    def rate_interval(self) -> str:
        """`$__rate_interval` as Grafana works it out."""
        return f"{max(self.step_s + self.scrape_s, 4 * self.scrape_s):.0f}s"


class Asked(Protocol):
    """Answers a range query with Prometheus' list of series: labels in `metric`, pairs of time and text in `values`."""

    def __call__(self, query: str, window: Window) -> list[dict[str, Any]]: ...


def pictures_of(dashboard: dict[str, Any], ask: Asked, window: Window) -> list[Picture]:
    """Each panel with the figures that its queries gave."""
    found = []
    for panel in dashboard["panels"]:
        series: list[Series] = []
        for target in panel["targets"]:
            for one in ask(as_asked(target["expr"], dashboard, window), window):
                series.append(Series(legend(target["legendFormat"], one["metric"]), points_of(one["values"])))
        place = panel["gridPos"]
        unit = panel["fieldConfig"]["defaults"]["unit"]
        at = (place["x"], place["y"], place["w"], place["h"])
        found.append(Picture(panel["title"], panel["type"] == "stat", unit, at, series))
    return found


def as_asked(query: str, dashboard: dict[str, Any], window: Window) -> str:
    """A query with Grafana's variables filled in, each of the dashboard's own with "All"."""
    query = query.replace("$__rate_interval", window.rate_interval)
    for variable in dashboard["templating"]["list"]:
        query = query.replace(f"${variable['name']}", ".+")
    return query


def legend(template: str, labels: dict[str, str]) -> str:
    """The name of a series: the template with the labels in it."""
    for name, value in labels.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    # A series that has no such label, as that of `or vector(0)`, is named by nothing.
    return " ".join(word for word in template.split() if not word.startswith("{{")) or "none"


def points_of(values: Sequence[Sequence[Any]]) -> list[tuple[float, float]]:
    """Time and value, without what is not a number."""
    numbers = [(float(at), float(text)) for at, text in values]
    return [(at, value) for at, value in numbers if value - value == 0]


def page(dashboard: dict[str, Any], pictures: Sequence[Picture], window: Window) -> str:
    """The whole picture, as SVG."""
    drawing = Drawing(WIDTH, height_of(pictures), title=dashboard["title"], ground=GROUND)
    drawing.text(16, 32, dashboard["title"], size=20, is_bold=True)
    until = time.strftime("%H:%M:%S UTC", time.gmtime(window.ends_at))
    drawing.text(WIDTH - 16, 32, f"{window.length_s / 60:g} minutes until {until}", colour=FAINT, anchor="end")
    for picture in pictures:
        draw(drawing, picture, HEAD, (window.ends_at - window.length_s, window.ends_at))
    return drawing.svg()


def asking(prometheus: str) -> Asked:
    """Asks a Prometheus at an address."""

    def ask(query: str, window: Window) -> list[dict[str, Any]]:
        found = data_of(
            f"{prometheus}/api/v1/query_range",
            query=query,
            start=window.ends_at - window.length_s,
            end=window.ends_at,
            step=window.step_s,
        )
        return list(found["result"])

    return ask


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, ask, draw, write."""
    folder = repository_root() / DASHBOARDS
    parser = argparse.ArgumentParser(prog="python -m payflow_dev.pictures.dashboard", description=__doc__)
    parser.add_argument("name", choices=sorted(path.stem for path in folder.glob("*.json")))
    parser.add_argument("--prometheus", default="http://localhost:9090", help="where Prometheus answers")
    parser.add_argument("--minutes", type=float, default=5, help="how much of the past is drawn")
    parser.add_argument("--scrape-s", type=float, default=10, help="how often Prometheus asks the services")
    parser.add_argument("--out", type=Path, help="the picture (NAME.svg)")
    given = parser.parse_args(arguments)
    dashboard = json.loads((folder / f"{given.name}.json").read_text(encoding="utf-8"))
    window = Window(time.time(), given.minutes * 60, given.scrape_s)
    pictures = pictures_of(dashboard, asking(given.prometheus), window)
    out = given.out or Path(f"{given.name}.svg")
    out.write_text(page(dashboard, pictures, window), encoding="utf-8")
    print(f"{out}: {len(pictures)} panels, {sum(not picture.series for picture in pictures)} without figures")


if __name__ == "__main__":
    main()
