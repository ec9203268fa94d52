"""A picture of what quantization costs: the layers that cost most, and how it adds up."""

from __future__ import annotations

import importlib.util
import os
from itertools import accumulate
from typing import TYPE_CHECKING

from effnet_calibration.errors import CalibrationError
from effnet_edge.errors import BackendError, UsageError, first_line
from effnet_edge.extras import install_hint
from effnet_edge.files import probe_writable, replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

    from effnet_calibration.sensitivity import LayerCost

MAKER = "effnet-edge sensitivity"
"""What every plot names as its maker, in its metadata."""
_MAKER_KEYS = {".png": "Software", ".svg": "Creator", ".pdf": "Creator"}
FORMATS = tuple(_MAKER_KEYS)
TOP = 15
COLOURS = {"expand": "#2f6db5", "depthwise": "#d9730d", "project": "#2b8a57"}
OTHER_COLOUR = "#6b7280"
OTHERS = "others"


def plot_sensitivity(
    costs: Sequence[LayerCost], path: Path, title: str, measure: str = "KL, nats", top: int = TOP
) -> None:
    """Draw a bar for each of the `top` costliest layers, and how all costs add up.

    Written as PNG, SVG or PDF.

    Args:
        costs: as `sensitivity` gives them, the highest first.
        measure: what their divergence is.

    Raises:
        UsageError: the file's suffix is none of `FORMATS`, it is there and no plot of ours, or its
            folder does not exist or cannot be written.
        BackendError: matplotlib is not installed.
        CalibrationError: the file cannot be written.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    shown = min(top, len(costs))
    figure = Figure(figsize=(11.0, max(4.0, 1.6 + 0.26 * shown)), layout="constrained")
    bars, sums = figure.subplots(1, 2, width_ratios=[3, 2])
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    _draw_bars(bars, costs[:shown], _total(costs))
    bars.set_xlabel(f"{measure}, of quantizing it alone")
    _draw_sums(sums, costs, shown)
    try:
        with replacing(path) as staging:
            figure.savefig(staging, dpi=150, metadata={_MAKER_KEYS[path.suffix.lower()]: MAKER})
    except OSError as error:
        raise CalibrationError(f"{path} cannot be written: {first_line(error)}") from error


def cumulative_shares(costs: Sequence[LayerCost]) -> list[float]:
    """What the first, the first two, … of them make up of all, 0..1; zeros where all are free."""
    total = _total(costs)
    return [each / total if total else 0.0 for each in accumulate(c.divergence for c in costs)]


def check_plot(path: Path) -> None:
    """Refuse what cannot be drawn; raises what `plot_sensitivity` does."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--plot {path}: the name must end in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {path}: the folder {path.parent} does not exist")
    try:
        if os.path.lexists(path) and not _is_plot(path):
            raise UsageError(
                f"--plot {path}: is there and is no plot of effnet-edge: choose another"
            )
        probe_writable(path)
    except OSError as error:
        raise UsageError(f"--plot {path}: cannot be written: {first_line(error)}") from error
    if importlib.util.find_spec("matplotlib") is None:
        raise BackendError(
            f"a plot needs matplotlib, which is not installed: {install_hint('report')}"
        )


def _is_plot(path: Path) -> bool:
    return path.is_file() and MAKER.encode() in path.read_bytes()


def _total(costs: Sequence[LayerCost]) -> float:
    return sum(cost.divergence for cost in costs)


def _draw_bars(axes: Axes, costs: Sequence[LayerCost], total: float) -> None:
    """The costliest at the top; beside each bar its share of all."""
    places = range(len(costs))
    axes.barh(
        places,
        [cost.divergence for cost in costs],
        color=[COLOURS.get(cost.kind, OTHER_COLOUR) for cost in costs],
    )
    for place, cost in zip(places, costs, strict=True):
        share = 100 * cost.divergence / total if total else 0.0
        axes.annotate(
            f"{share:.1f} %",
            (cost.divergence, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(places, [cost.name for cost in costs], fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=8)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlim(0, 1.15 * max((cost.divergence for cost in costs), default=0.0) or 1.0)
    axes.spines[["top", "right"]].set_visible(False)
    # Below the axis, where there are no bars.
    axes.legend(
        handles=_legend(costs), loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4,
        frameon=False, fontsize=8,
    )  # fmt: skip


def _draw_sums(axes: Axes, costs: Sequence[LayerCost], shown: int) -> None:
    """What the costliest 1, 2, 3 … layers make up of the sum of all costs."""
    shares = [100 * share for share in cumulative_shares(costs)]
    axes.plot(range(1, len(costs) + 1), shares, color=OTHER_COLOUR)
    if shown:
        axes.plot([shown], [shares[shown - 1]], "o", color=OTHER_COLOUR)
        axes.annotate(
            f"the {shown} shown: {shares[shown - 1]:.0f} %",
            (shown, shares[shown - 1]),
            xytext=(8, -12),
            textcoords="offset points",
            fontsize=9,
        )
    axes.set_ylim(0, 104)
    axes.set_xlim(0, max(len(costs), 1) * 1.02)
    axes.set_xlabel("so many layers, the costliest first")
    axes.set_ylabel("of the sum of all costs, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)


def _legend(costs: Sequence[LayerCost]) -> list[Patch]:
    """Of the kinds that are drawn."""
    from matplotlib.patches import Patch

    kinds = {cost.kind if cost.kind in COLOURS else OTHERS for cost in costs}
    named = {**COLOURS, OTHERS: OTHER_COLOUR}
    return [Patch(color=colour, label=kind) for kind, colour in named.items() if kind in kinds]
