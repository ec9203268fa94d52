"""Names beside points, so that none covers another name or a point, however wide the chart is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from effnet_edge.parity.report.charts.svg import LINE, NARROWEST, width_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDTHS = (NARROWEST, 1.5 * NARROWEST, 3.3 * NARROWEST)
"""Pixels for which the names are kept apart: a telephone, a printed page, a screen."""

_APART = 9.0
_DOT = 6.0


@dataclass(frozen=True)
class Label:
    """A name at (dx, dy) pixels from its point, growing from there to the right or the left."""

    text: str
    dx: float
    dy: float

    @property
    def anchor(self) -> str:
        """The SVG text-anchor."""
        return "start" if self.dx > 0 else "end"

    def box(self, place: tuple[float, float], width: float) -> Box:
        """What it covers in a chart of that width; `place` of the point as per cent and pixels."""
        x, y = place[0] / 100 * width + self.dx, place[1] + self.dy
        long = width_of(self.text)
        left = x if self.dx > 0 else x - long
        return Box(left, y - LINE / 2, left + long, y + LINE / 2)


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def touches(self, other: Box) -> bool:
        """Whether the two have more than an edge in common."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def placed(
    places: Sequence[tuple[float, float]], texts: Sequence[str], height: float
) -> list[Label]:
    """A label for each point, as close to it as there is room.

    Args:
        places: per cent across, pixels down.
        height: of the chart in pixels; a name may only leave it where there is no room inside.
    """
    dots = [[_dot(place, width) for place in places] for width in WIDTHS]
    taken: list[list[Box]] = [[] for _ in WIDTHS]
    labels = []
    for place, text in zip(places, texts, strict=True):
        for label in _nearest_first(text):
            boxes = [label.box(place, width) for width in WIDTHS]
            inside = boxes[0].left >= 0 and boxes[0].right <= WIDTHS[0]
            low_enough = boxes[0].top >= 0 and boxes[0].bottom <= height
            within = inside and (low_enough or abs(label.dy) > height)
            if within and not any(
                box.touches(other)
                for box, points, names in zip(boxes, dots, taken, strict=True)
                for other in (*points, *names)
            ):
                break
        for names, box in zip(taken, boxes, strict=True):
            names.append(box)
        labels.append(label)
    return labels


def _nearest_first(text: str) -> Iterator[Label]:
    for lines in count():
        for dy in dict.fromkeys((-lines * LINE, lines * LINE)):
            yield Label(text, _APART, dy)
            yield Label(text, -_APART, dy)


def _dot(place: tuple[float, float], width: float) -> Box:
    x, y = place[0] / 100 * width, place[1]
    return Box(x - _DOT, y - _DOT, x + _DOT, y + _DOT)
