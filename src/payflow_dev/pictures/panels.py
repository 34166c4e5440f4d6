"""Panels of a dashboard: a number with its course behind it, or lines over time with their names below."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from payflow_dev.pictures.svg import COLOURS, FAINT, PAPER, RULE, Drawing, shortened, width_of

# Pixels: the page, a cell of Grafana's grid of 24 columns, and what is free around a panel.
WIDTH, HEAD = 1248, 48
_CELL_X, _CELL_Y, _GAP, _SIDE = 50, 27, 8, 24
_TITLE, _FOOT, _LEGEND_ROW, _AXIS = 30, 18, 15, 52
_ROWS_MAX: Final = 4
_SMALL, _TITLE_SIZE = 10.5, 12


class Series(NamedTuple):
    """One line: its name, and pairs of time (Unix seconds) and value."""

    name: str
    points: list[tuple[float, float]]


class Picture(NamedTuple):
    """A panel with its figures. `unit` is Grafana's word; `at` its column, row, width and height in the grid."""

    title: str
    is_stat: bool
    unit: str
    at: tuple[int, int, int, int]
    series: Sequence[Series]


class Box(NamedTuple):
    """A place on the page."""

    left: float
    top: float
    width: float
    height: float


def height_of(pictures: Sequence[Picture]) -> int:
    """The height of a page with these panels."""
    return HEAD + max(picture.at[1] + picture.at[3] for picture in pictures) * _CELL_Y + _GAP * 2


def draw(drawing: Drawing, picture: Picture, head: float, span: tuple[float, float]) -> None:
    """Draw a panel where it belongs, over the time from `span[0]` to `span[1]`."""
    column, row, columns, rows = picture.at
    left, top = _SIDE + column * _CELL_X, head + row * _CELL_Y
    box = Box(left + _GAP / 2, top + _GAP / 2, columns * _CELL_X - _GAP, rows * _CELL_Y - _GAP)
    drawing.rectangle(*box, fill=PAPER, edge=RULE, round_by=4)
    for number, words in enumerate(_wrapped(picture.title, box.width - 26)):
        drawing.text(box.left + 10, box.top + 20 + 14 * number, words, size=_TITLE_SIZE, is_bold=True)
    if not any(series.points for series in picture.series):
        middle = (box.left + box.width / 2, box.top + box.height / 2 + 8)
        drawing.text(*middle, "no data", colour=FAINT, anchor="middle")
    elif picture.is_stat:
        _stat(drawing, picture, box, span)
    else:
        _lines(drawing, picture, box, span)


def _wrapped(words: str, room: float) -> list[str]:
    """A title in lines that fit, two at most."""
    first: list[str] = []
    rest = words.split()
    while rest and (not first or width_of(" ".join([*first, rest[0]]), _TITLE_SIZE) <= room):
        first.append(rest.pop(0))
    return [" ".join(first), *([shortened(" ".join(rest), _TITLE_SIZE, room)] if rest else [])]


def _stat(drawing: Drawing, picture: Picture, box: Box, span: tuple[float, float]) -> None:
    """The last value of each series, and the course of the first behind it."""
    points = picture.series[0].points
    top_value = max((value for _, value in points), default=0) or 1
    inner = Box(box.left + 1, box.top + box.height * 0.74, box.width - 2, box.height * 0.26 - 1)
    course = [(_x(at, inner, span), inner.top + inner.height * (1 - value / top_value * 0.9)) for at, value in points]
    bottom = inner.top + inner.height
    drawing.area([(course[0][0], bottom), *course, (course[-1][0], bottom)], fill=COLOURS[0])
    drawing.line(course, colour=COLOURS[0], width=1.2)
    shown = " / ".join(in_unit(series.points[-1][1], picture.unit) for series in picture.series if series.points)
    drawing.text(box.left + box.width / 2, box.top + box.height * 0.66, shown, size=24, anchor="middle", is_bold=True)


def _lines(drawing: Drawing, picture: Picture, box: Box, span: tuple[float, float]) -> None:
    """Every series as a line, with the axes, and the names below."""
    drawn = [series for series in picture.series if series.points]
    rows = _legend_rows([series.name for series in drawn], box.width - 20)
    legend_height = len(rows) * _LEGEND_ROW
    plot = Box(
        box.left + _AXIS,
        box.top + _TITLE + 4,
        box.width - _AXIS - 12,
        box.height - _TITLE - _FOOT - legend_height - 12,
    )
    values = [value for series in drawn for _, value in series.points]
    scale = _scale(max(map(abs, values)), picture.unit)
    ticks = [tick * scale for tick in ticks_of(min(values) / scale, max(values) / scale)]
    low, high = ticks[0], ticks[-1]

    def y(value: float) -> float:
        return plot.top + plot.height * (1 - (value - low) / (high - low))

    for tick in ticks:
        drawing.line([(plot.left, y(tick)), (plot.left + plot.width, y(tick))], colour=RULE)
        drawing.text(plot.left - 6, y(tick) + 4, in_unit(tick, picture.unit), size=_SMALL, colour=FAINT, anchor="end")
    _times(drawing, plot, span)
    for number, series in enumerate(drawn):
        points = [(_x(at, plot, span), y(value)) for at, value in series.points]
        for stretch in _stretches(points):
            drawing.line(stretch, colour=COLOURS[number % len(COLOURS)], width=1.6)
    _legend(drawing, rows, box)


def _times(drawing: Drawing, plot: Box, span: tuple[float, float]) -> None:
    """Full minutes below the plot, no more than there is room for."""
    minutes = max(1, math.ceil((span[1] - span[0]) / 60 / (plot.width / 70)))
    at = math.ceil(span[0] / 60 / minutes) * 60 * minutes
    while at <= span[1]:
        words = time.strftime("%H:%M", time.gmtime(at))
        x = min(max(_x(at, plot, span), plot.left + 14), plot.left + plot.width - 14)
        drawing.text(x, plot.top + plot.height + 15, words, size=_SMALL, colour=FAINT, anchor="middle")
        at += 60 * minutes


def _stretches(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """A line without a bridge over the time in which there was no value."""
    gaps = [after[0] - before[0] for before, after in pairwise(points)]
    usual = min(gaps, default=0.0)
    stretches = [[points[0]]]
    for gap, point in zip(gaps, points[1:], strict=True):
        if gap > 1.5 * usual:
            stretches.append([])
        stretches[-1].append(point)
    return stretches


def _legend_rows(names: Sequence[str], room: float) -> list[list[tuple[float, str, int]]]:
    """Rows of names: how far from the left each is, what is written, which colour; the last says how many are left."""
    rows: list[list[tuple[float, str, int]]] = [[]]
    left = 0.0
    for number, name in enumerate(names):
        shown = shortened(name, _SMALL, room - 20)
        width = 14 + width_of(shown, _SMALL) + 10
        if left + width > room and left:
            if len(rows) == _ROWS_MAX:
                last = rows[-1][-1]
                rows[-1][-1] = (last[0], f"and {len(names) - number + 1} more", -1)
                break
            rows.append([])
            left = 0.0
        rows[-1].append((left, shown, number))
        left += width
    return rows


def _legend(drawing: Drawing, rows: Sequence[Sequence[tuple[float, str, int]]], box: Box) -> None:
    top = box.top + box.height - len(rows) * _LEGEND_ROW - 2
    for index, row in enumerate(rows):
        base = top + index * _LEGEND_ROW + 9
        for left, words, number in row:
            x = box.left + 10 + left
            if number >= 0:
                drawing.rectangle(x, base - 5, 10, 3, fill=COLOURS[number % len(COLOURS)])
            drawing.text(x + 14, base, words, size=_SMALL)


def _x(at: float, box: Box, span: tuple[float, float]) -> float:
    return box.left + box.width * (at - span[0]) / (span[1] - span[0])


def ticks_of(low: float, high: float) -> list[float]:
    """Three to six round numbers around all values; 0 is among them unless all are far from it on the other side."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        high = 1.0
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _scale(most: float, unit: str) -> float:
    """What an axis counts in, so that its round numbers are round as they are written."""
    if unit == "bytes":
        return next((size for size in (2.0**30, 2.0**20, 2.0**10) if most >= size), 1.0)
    return next((size for size in (3600.0, 60.0) if unit == "s" and most >= 2 * size), 1.0)


def in_unit(value: float, unit: str) -> str:
    """A value as Grafana writes it in a unit: short, s, reqps, percentunit or bytes."""
    return _UNITS.get(unit, _counted)(value)


def _counted(value: float) -> str:
    for limit, name in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{name}"
    return f"{value:.3g}"


def _lasting(value: float) -> str:
    if value == 0:
        return "0"
    for limit, factor, name in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (120, 1, "s"), (7200, 1 / 60, "min")):
        if abs(value) < limit:
            return f"{value * factor:.3g} {name}"
    return f"{value / 3600:.3g} h"


def _bytes(value: float) -> str:
    for limit, name in ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {name}"
    return f"{value:.0f} B"


_UNITS: Final[dict[str, Callable[[float], str]]] = {
    "s": _lasting,
    "reqps": lambda value: f"{_counted(value)}/s",
    "percentunit": lambda value: f"{value * 100:.3g}%",
    "bytes": _bytes,
}
