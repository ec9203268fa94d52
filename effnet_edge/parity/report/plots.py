"""The report's pictures, as SVG text that needs nothing from outside."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

from effnet_edge import nonfinite
from effnet_edge.extras import needed_for
from effnet_edge.parity.measures.table import limited_measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from effnet_edge.nonfinite import JsonNumber
    from effnet_edge.parity.report.document import Document

_SHOWN_HISTOGRAMS = 6
_TOP_DB = 140.0
_LOOK: Any = {
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "effnet-edge",
    "axes.spines.top": False,
    "axes.spines.right": False,
}

Drawn = TypeVar("Drawn", bound=Callable[..., str | None])


def _in_our_look(draw: Drawn) -> Drawn:
    """Leave the settings of matplotlib, which are the process's, as they were."""

    @wraps(draw)
    def drawn(*given: Any) -> str | None:
        with needed_for("a report", "report"):
            import matplotlib as mpl
        with mpl.rc_context(_LOOK):
            return draw(*given)

    return cast("Drawn", drawn)


@_in_our_look
def error_by_depth(candidates: Sequence[Document]) -> str | None:
    """SQNR of every compared tensor in the order of execution, a line a candidate."""
    compared = [each for each in candidates if each["layers"]]
    if not compared:
        return None
    figure, axes = _figure(7.2, 3.4)
    for index, each in enumerate(compared):
        colour = f"C{index}"
        layers = each["layers"]
        decibels = _decibels(layers, "sqnr_db")
        axes.plot(decibels, color=colour, label=each["candidate"])
        axes.plot(_decibels(layers, "added_sqnr_db"), ".", color=colour, markersize=3)
        broken = [at for at, layer in enumerate(layers) if layer["sqnr_db"] == "NaN"]
        if broken:
            label = f"{each['candidate']}: NaN"
            axes.plot(broken, [0.0] * len(broken), "x", color=colour, label=label)
    axes.set_xlabel("tensors in the order of execution")
    axes.set_ylabel("SQNR, dB")
    axes.legend(frameon=False, title="line: as it is; dots: added by the tensor's own nodes")
    return _svg(figure)


@_in_our_look
def ranges(candidate: Document) -> str | None:
    """Histograms of the tensors that are rounded with the largest added error, and their grids."""
    rounded = [
        (layer, saturation)
        for layer in candidate["layers"] or []
        for saturation in layer["saturation"]
        if saturation["histogram"]["counts"]
    ]
    if not rounded:
        return None
    worst = sorted(rounded, key=lambda pair: _rank(pair[0]["sqnr_db"]))[:_SHOWN_HISTOGRAMS]
    rows = math.ceil(len(worst) / 2)
    figure, _ = _figure(7.2, 1.9 * rows, empty=True)
    for position, (layer, saturation) in enumerate(worst):
        _range(figure.add_subplot(rows, 2, position + 1), layer, saturation)
    return _svg(figure)


@_in_our_look
def speed_against_drop(candidates: Sequence[Document]) -> str | None:
    """Time per picture against the top-1 drop with its interval, or against disagreement.

    None of a single candidate, and of features, which have no answers.
    """
    agreement = limited_measure("min_agreement", candidates[0]["output"])
    if len(candidates) < 2 or agreement is None:
        return None
    figure, axes = _figure(7.2, 3.0)
    labelled = all(each["accuracy"] for each in candidates)
    for each in candidates:
        milliseconds = 1000 * each["seconds_per_image"]
        if labelled:
            top1 = each["accuracy"]["top1"]
            value, (low, high) = top1["drop_points"], top1["drop_interval_95_points"]
            bar = [[max(value - low, 0)], [max(high - value, 0)]]
            axes.errorbar([milliseconds], [value], bar, fmt="o", capsize=3)
        else:
            value = 100 * (1 - each[agreement.key])
            axes.plot([milliseconds], [value], "o")
        axes.annotate(
            each["candidate"], (milliseconds, value), xytext=(6, 4), textcoords="offset points"
        )
    axes.set_xlabel("ms per picture in this run")
    axes.set_ylabel("top-1 drop, points (95 % interval)" if labelled else "other answers, %")
    axes.margins(x=0.25)
    return _svg(figure)


def _range(axes: Axes, layer: Document, saturation: Document) -> None:
    histogram = saturation["histogram"]
    counts, low, high = histogram["counts"], histogram["low"], histogram["high"]
    width = (high - low) / len(counts) or 1.0
    centres = [low + (index + 0.5) * width for index in range(len(counts))]
    axes.bar(centres, counts, width, color="C0", log=True)
    for end in (saturation["low"], saturation["high"]):
        axes.axvline(end, color="C3", linewidth=1)
    axes.set_title(f"{layer['name']}: {100 * saturation['clipped']:.2g} % clipped", fontsize=8)
    axes.set_yticks([])


def _decibels(layers: Sequence[Document], key: str) -> list[float]:
    """What a plot can show: equal tensors at the top, NaN (a gap) for NaN and not measured."""
    numbers = [nonfinite.decode(layer[key]) for layer in layers]
    return [
        math.nan if number is None else min(max(number, -_TOP_DB), _TOP_DB) for number in numbers
    ]


def _rank(decibels: JsonNumber) -> float:
    """Sorts what is NaN first, what was not measured last."""
    number = nonfinite.decode(decibels)
    return math.inf if number is None else -math.inf if math.isnan(number) else number


def _figure(width: float, height: float, *, empty: bool = False) -> tuple[Figure, Any]:
    """A figure in inches, without the global state of pyplot."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    return figure, None if empty else figure.add_subplot()


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
