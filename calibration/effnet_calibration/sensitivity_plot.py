"""A picture of what each layer's quantization costs."""

from __future__ import annotations

import importlib.util
import os
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
HIGHLIGHTED = 5
COLOURS = {"expand": "#2f6db5", "depthwise": "#d9730d", "project": "#2b8a57"}
OTHER_COLOUR = "#6b7280"
OTHERS = "stem, head, classifier"


def plot_sensitivity(
    costs: Sequence[LayerCost], path: Path, title: str, measure: str = "KL, nats"
) -> None:
    """Draw a bar a layer, in the order of execution, and write it as PNG, SVG or PDF.

    Args:
        costs: as `sensitivity` gives them; those of least cost may be missing.
        measure: what their divergence is.

    Raises:
        UsageError: the file's suffix is none of `FORMATS`, it is there and no plot of ours, or its
            folder does not exist or cannot be written.
        BackendError: matplotlib is not installed.
        CalibrationError: the file cannot be written.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    in_order = sorted(costs, key=lambda cost: cost.depth)
    width = min(max(9.0, 0.2 * len(in_order)), 18.0)
    figure = Figure(figsize=(width, 4.8), layout="constrained")
    axes = figure.subplots()
    _draw(axes, in_order)
    axes.set_ylabel(f"{measure}, of quantizing it alone")
    axes.set_title(title, loc="left", fontsize=11)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=4, frameon=False)
    try:
        with replacing(path) as staging:
            figure.savefig(staging, dpi=150, metadata={_MAKER_KEYS[path.suffix.lower()]: MAKER})
    except OSError as error:
        raise CalibrationError(f"{path} cannot be written: {first_line(error)}") from error


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


def _draw(axes: Axes, costs: Sequence[LayerCost]) -> None:
    costliest = sorted(range(len(costs)), key=lambda index: costs[index].divergence)[-HIGHLIGHTED:]
    total = sum(cost.divergence for cost in costs)
    for index, cost in enumerate(costs):
        colour = COLOURS.get(cost.kind, OTHER_COLOUR)
        axes.bar(
            index,
            cost.divergence,
            width=0.85,
            color=colour,
            alpha=1 if index in costliest else 0.45,
        )
    for index in costliest:
        share = costs[index].divergence / total if total else 0.0
        axes.annotate(
            f"{costs[index].short_name}  {100 * share:.0f} %",
            (index, costs[index].divergence),
            xytext=(0, 4),
            textcoords="offset points",
            rotation=90,
            fontsize=9,
            ha="center",
            va="bottom",
        )
    _label_blocks(axes, costs)
    # The labels of the costliest stand above their bars.
    axes.set_ylim(0, 1.7 * max(cost.divergence for cost in costs) or 1.0)
    axes.margins(x=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _legend() -> list[Patch]:
    from matplotlib.patches import Patch

    named = {**COLOURS, OTHERS: OTHER_COLOUR}
    return [Patch(color=colour, label=kind) for kind, colour in named.items()]


def _label_blocks(axes: Axes, costs: Sequence[LayerCost]) -> None:
    """One label a block, in the middle of its bars, and a line between blocks."""
    places: dict[str, list[int]] = {}
    for index, cost in enumerate(costs):
        places.setdefault(cost.block, []).append(index)
    axes.set_xticks(
        [sum(indices) / len(indices) for indices in places.values()],
        list(places),
        rotation=90,
        fontsize=9,
    )
    for indices in list(places.values())[1:]:
        axes.axvline(indices[0] - 0.5, color="0.9", linewidth=0.8, zorder=0)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("block (stage.index), from the input to the classifier")
