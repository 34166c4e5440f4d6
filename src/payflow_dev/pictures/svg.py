"""A small drawing: rectangles, lines and text, as an SVG that needs no font, script or style from anywhere else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from xml.sax.saxutils import escape

FONT: Final = "-apple-system, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif"
INK, FAINT, RULE, PAPER, GROUND = "#1f2933", "#66727f", "#dde3e8", "#ffffff", "#f3f5f7"
COLOURS: Final = (
    "#1f6f8b", "#e07a3f", "#5b8c5a", "#9b5094", "#c9a227", "#4a5899", "#b5483a", "#2a9d8f", "#8a6d4b", "#777777",
    "#c06c9c", "#34495e", "#8fa83b", "#5fa8d3", "#d1495b",
)  # fmt: skip
# The width of a letter as a share of its size, with room to spare: whichever font the reader has.
_LETTER: Final = 0.6


class Drawing:
    """What is drawn so far, on a page of so many pixels."""

    def __init__(self, width: int, height: int, *, title: str, ground: str = PAPER) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="{FONT}" role="img">',
            f"<title>{escape(title)}</title>",
        ]
        self.rectangle(0, 0, width, height, fill=ground)

    def rectangle(
        self, x: float, y: float, width: float, height: float, *, fill: str, edge: str = "", round_by: float = 0
    ) -> None:
        stroke = f' stroke="{edge}"' if edge else ""
        corner = f' rx="{_short(round_by)}"' if round_by else ""
        place = f'x="{_short(x)}" y="{_short(y)}" width="{_short(width)}" height="{_short(height)}"'
        self._parts.append(f'<rect {place} fill="{fill}"{stroke}{corner}/>')

    def line(self, points: Iterable[tuple[float, float]], *, colour: str, width: float = 1) -> None:
        """A line through points; one point alone is a dot."""
        found = [f"{_short(x)},{_short(y)}" for x, y in points]
        if len(found) == 1:
            found *= 2
        self._parts.append(
            f'<polyline points="{" ".join(found)}" fill="none" stroke="{colour}" stroke-width="{width}" '
            'stroke-linejoin="round" stroke-linecap="round"/>'
        )

    def area(self, points: Iterable[tuple[float, float]], *, fill: str) -> None:
        found = " ".join(f"{_short(x)},{_short(y)}" for x, y in points)
        self._parts.append(f'<polygon points="{found}" fill="{fill}" fill-opacity="0.15"/>')

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 12,
        colour: str = INK,
        anchor: str = "start",
        is_bold: bool = False,
    ) -> None:
        """Words on a base line; `anchor` is start, middle or end."""
        marks = (f' text-anchor="{anchor}"' if anchor != "start" else "") + (' font-weight="600"' if is_bold else "")
        place = f'x="{_short(x)}" y="{_short(y)}" font-size="{_short(size)}" fill="{colour}"'
        self._parts.append(f"<text {place}{marks}>{escape(words)}</text>")

    def svg(self) -> str:
        return "\n".join([*self._parts, "</svg>", ""])


def width_of(words: str, size: float) -> float:
    """How wide words are, at most, in most fonts."""
    return len(words) * size * _LETTER


def shortened(words: str, size: float, room: float) -> str:
    """Words that fit, with an ellipsis where they had to be cut."""
    letters = int(room / (size * _LETTER))
    return words if len(words) <= letters else words[: max(letters - 1, 1)] + "…"


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
