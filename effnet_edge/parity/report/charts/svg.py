"""What all charts are made of: elements, scales, ticks, and labels that keep apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count, pairwise
from typing import TYPE_CHECKING

from effnet_edge.extras import needed_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from markupsafe import Markup

NARROWEST = 270.0
"""Pixels that a chart has at least, on a screen of 390: labels must keep apart there."""
LINE = 15.0
"""Pixels from one line of a chart's text to the next."""
_CHARACTER = 7.0


def element(tag: str, content: object = "", **attributes: object) -> Markup:
    """One SVG element; text is escaped. In attributes an underscore stands for a hyphen.

    `classes` is the attribute class; one that is None is left out.
    """
    with needed_for("a report", "report"):
        from markupsafe import Markup, escape
    written = Markup("").join(
        Markup(' {}="{}"').format("class" if key == "classes" else key.replace("_", "-"), value)
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), written, escape(content))


def joined(parts: Sequence[Markup]) -> Markup:
    """Elements one after the other."""
    with needed_for("a report", "report"):
        from markupsafe import Markup
    return Markup("").join(parts)


def chart(parts: Sequence[Markup], height: float, title: str, classes: str = "chart") -> Markup:
    """A whole SVG as wide as its place; `title` says to everyone what is to be seen."""
    content = joined([element("title", title), *parts])
    return element(
        "svg",
        content,
        classes=classes,
        width="100%",
        height=f"{height:g}",
        role="img",
        aria_label=title,
    )


def stretched(parts: Sequence[Markup], height: float) -> Markup:
    """A drawing in a box 100 wide and `height` high that is pulled to the width there is."""
    return element(
        "svg",
        joined(parts),
        viewBox=f"0 0 100 {height:g}",
        preserveAspectRatio="none",
        width="100%",
        height=f"{height:g}",
        aria_hidden="true",
    )


def text(at: float, y: float, content: str, classes: str, *, anchor: str | None = None) -> Markup:
    """Text around `at` per cent; where it would leave the narrowest chart, it grows inwards.

    If `anchor` says nothing else.
    """
    near = 50 * width_of(content) / NARROWEST
    inwards = "start" if at < near else "end" if at > 100 - near else "middle"
    return element(
        "text",
        content,
        x=percent(at),
        y=f"{y:g}",
        classes=classes,
        text_anchor=anchor or inwards,
    )


def ticks_across(scale: Scale, most: int) -> list[float]:
    """As many ticks, at most `most`, as have room for their labels in the narrowest chart."""
    for fewer in range(most, 1, -1):
        ticks = scale.ticks(fewer)
        # At the ends of the chart labels grow inwards, half of their width.
        needed = 1.5 * max((width_of(f"{told(tick)} ×") for tick in ticks), default=0.0)
        if all((scale.at(b) - scale.at(a)) / 100 * NARROWEST >= needed for a, b in pairwise(ticks)):
            return ticks
    return scale.ticks(1)


def told(value: float) -> str:
    """A round value beside an axis, with a minus sign."""
    return f"{value:g}".replace("-", "−")


def percent(value: float) -> str:
    """A position across."""
    return f"{value:.2f}%"


@dataclass(frozen=True)
class Scale:
    """From values to 0..100; values outside land on the ends."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float], margin: float = 0.08) -> Scale:
        """One that holds all values, of which there is at least one, with room at both ends."""
        low, high = min(values), max(values)
        room = margin * (high - low) or 1.0
        return cls(low - room, high + room)

    def at(self, value: float) -> float:
        """Where a value is, 0..100."""
        share = (value - self.low) / (self.high - self.low)
        return 100 * min(max(share, 0.0), 1.0)

    def down(self, value: float, height: float) -> float:
        """Where a value is in a drawing of that height, whose y grows downwards."""
        return height * (1 - self.at(value) / 100)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values inside, one to `most`, evenly spaced: steps of 1, 2 or 5 times 10ⁿ."""
        found: list[float] = []
        # The first step is short enough for more than `most`.
        for step in _round_steps((self.high - self.low) / (most + 1) / 2.5):
            first = math.ceil(self.low / step)
            last = math.floor(self.high / step)
            if last < first:
                break
            found = [step * each for each in range(first, last + 1)]
            if len(found) <= most:
                break
        return found[:most]


def _round_steps(least: float) -> Iterator[float]:
    exponent = math.floor(math.log10(least))
    for more in count():
        for factor in (1, 2, 5):
            step = factor * 10.0 ** (exponent + more)
            if step >= least * (1 - 1e-9):
                yield step


def width_of(content: str) -> float:
    """About how many pixels wide a label is, rather too many."""
    return _CHARACTER * len(content)


def shortened(content: str, most: int) -> str:
    """Text of at most `most` characters: what is left out of its middle is an ellipsis."""
    if len(content) <= most:
        return content
    tail = (most - 1) // 2
    return f"{content[: most - 1 - tail]}…{content[len(content) - tail :]}"
