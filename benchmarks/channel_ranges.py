"""What the equalization of depthwise inputs does to the ranges of their channels, as a picture.

    python benchmarks/channel_ranges.py b0-openvino-int8/calibration.json channel-ranges.svg

One panel a block: what each channel reached on the calibration pictures, before and after, and one
step of the grid that all channels of the tensor share.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from matplotlib.figure import Figure

from effnet_calibration.path import short_block
from effnet_calibration.quantization import DEPTHWISE
from effnet_calibration.table import CalibrationTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from effnet_calibration.quantization import Quantization

PANELS = 4
COLUMNS = 2
LEVELS = 255


@click.command()
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("picture", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--scheme", default="asymmetric-uint8", show_default=True)
def main(table: Path, picture: Path, scheme: str) -> None:
    """Draw the channels of the first, the last and two blocks between, of TABLE, into PICTURE."""
    read = CalibrationTable.load(table)
    quantization = read.quantization(scheme)
    layers = list(quantization.changes(DEPTHWISE))
    chosen = [layers[index] for index in np.linspace(0, len(layers) - 1, PANELS).astype(int)]
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    for axes, layer in zip(figure.subplots(PANELS // COLUMNS, COLUMNS).flat, chosen, strict=True):
        _draw(axes, layer, _reach(read, layer), quantization)
    figure.supxlabel("channels, widest first", fontsize=9)
    figure.supylabel("largest magnitude on the calibration pictures", fontsize=9)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.savefig(picture, dpi=110)


def _reach(table: CalibrationTable, layer: str) -> NDArray[np.float64]:
    """The largest magnitude of each channel of the layer's input."""
    found = table.ranges[layer]
    return np.maximum(np.abs(found.minimum), np.abs(found.maximum))


def _draw(axes: Axes, layer: str, reach: NDArray[np.float64], quantization: Quantization) -> None:
    order = np.argsort(-reach)
    equalized = reach * np.asarray(quantization.changes(DEPTHWISE)[layer])
    axes.plot(reach[order], color="#d9730d", lw=1.6, label="before")
    axes.plot(equalized[order], ".", color="#2f6db5", ms=3, label="equalized")
    axes.axhline(reach.max() / LEVELS, color="#d9730d", ls="--", lw=1, label="a step before")
    step = quantization.grids[layer].scale
    axes.axhline(step, color="#2f6db5", ls="--", lw=1, label="a step, equalized")
    axes.set_yscale("log")
    axes.set_title(f"{short_block(layer)}: {len(reach)} channels", fontsize=9, loc="left")
    axes.tick_params(labelsize=8)


if __name__ == "__main__":
    main()
