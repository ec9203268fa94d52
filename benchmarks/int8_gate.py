"""Which faults of an INT8 engine its gate stops: one table, made by one command.

    python benchmarks/int8_gate.py b0-onnxruntime-int8

One fault at a time is planted into the bundle's ONNX graph, at every place where it can be, and
ONNX Runtime's answers are held against those of PyTorch on the pictures of an export's gates. The
table tells how many of the faults that cost anything the limits of INT8 stop, these and others.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click
import numpy as np
import onnx
from onnx import numpy_helper
from rich.console import Console
from rich.progress import track

from effnet_edge.bundle import Bundle
from effnet_edge.graphs.editing import copied
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.parity import Gate
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.pictures.sets import ImageSet
from effnet_export.gate import INT8, ParityGate
from effnet_export.pictures import GATE_PICTURES

if TYPE_CHECKING:
    from collections.abc import Callable

    from effnet_edge.parity.comparison import ParityResult

GATES = {
    "8 dB, 0.2 nats": Gate(min_sqnr_db=8.0, max_kl=0.2),
    "12 dB, 0.05 nats": INT8["single-label"],
    "16 dB, 0.02 nats": Gate(min_sqnr_db=16.0, max_kl=0.02),
}
# A fault that costs less than a half more than the model without it is none to be stopped.
COSTS = 1.5

Change: TypeAlias = "Callable[[np.ndarray], np.ndarray]"


def off_by(step: int) -> Change:
    """Add so many to a zero point of uint8."""
    return lambda values: np.clip(values.astype(int) + step, 0, 255).astype(values.dtype)


def times(factor: float) -> Change:
    """Multiply a scale."""
    return lambda values: (values * factor).astype(values.dtype)


def reversed_order(values: np.ndarray) -> np.ndarray:
    """Give each channel another's scale."""
    return values[::-1].copy()


# What it is called; the constants that it changes, by the end of their names; how.
FAULTS: dict[str, tuple[str, Change]] = {
    "zero point of an activation off by 16": ("/input/zero_point", off_by(16)),
    "zero point of an activation off by 48": ("/input/zero_point", off_by(48)),
    "range of an activation clipped to a half": ("/input/scale", times(0.5)),
    "range of an activation clipped to a quarter": ("/input/scale", times(0.25)),
    "range of an activation four times too wide": ("/input/scale", times(4.0)),
    "scales of a layer's channels in reversed order": (".weight/scale", reversed_order),
    "weights of a layer a quarter too large": (".weight/scale", times(1.25)),
}


def planted(model: onnx.ModelProto, name: str, change: Change) -> onnx.ModelProto | None:
    """The model with one constant changed; None where that changes nothing."""
    result = copied(model)
    (constant,) = [each for each in result.graph.initializer if each.name == name]
    values = numpy_helper.to_array(constant)
    changed = change(values)
    if np.array_equal(changed, values):
        return None
    if name.endswith("/input/zero_point"):
        # Of a pair that agrees with itself a moved zero point only moves the range: one is wrong.
        other = f"{name}/wrong"
        result.graph.initializer.append(numpy_helper.from_array(changed, other))
        for node in result.graph.node:
            if node.op_type == "DequantizeLinear" and node.input[2] == name:
                node.input[2] = other
        return result
    constant.CopyFrom(numpy_helper.from_array(changed, name))
    return result


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--images", type=click.Path(exists=True, file_okay=False), help="Of one's own.")
@click.option("--nth", default=1, show_default=True, help="Plant in every so manieth place.")
def main(bundle: Path, images: str | None, nth: int) -> None:
    """Plant faults into BUNDLE, B0 in INT8 for onnxruntime."""
    source = load_source(NetworkRequest("b0"))
    model = onnx.load(Bundle.load(bundle).model_path)
    pictures = (
        EmbeddedPhotos(GATE_PICTURES)
        if images is None
        else ImageSet.from_folder(images).subset(GATE_PICTURES)
    )
    gate = ParityGate(
        TorchClassifier(source.network, source.preprocessing), pictures, source.preprocessing
    )

    def loss(candidate: onnx.ModelProto) -> ParityResult:
        return gate.loss(OnnxClassifier(candidate, source.preprocessing, "planted"))

    sound = loss(model)
    print_row("fault", "places", "cost", *GATES, "worst let through")
    print_row(*["---"] * (4 + len(GATES)))
    print_row("none", "", "", *[""] * len(GATES), told(sound))
    for fault, (end, change) in FAULTS.items():
        names = [each.name for each in model.graph.initializer if each.name.endswith(end)][::nth]
        models = (planted(model, name, change) for name in track(names, fault, console=CONSOLE))
        found = [loss(each) for each in models if each is not None]
        costly = [each for each in found if each.kl > COSTS * sound.kl]
        stopped = {name: [r for r in costly if limit.check(r)] for name, limit in GATES.items()}
        let = [each for each in costly if not INT8["single-label"].check(each)]
        print_row(
            fault,
            len(found),
            len(costly),
            *(len(each) for each in stopped.values()),
            told(max(let, key=lambda each: each.kl)) if let else "",
        )


CONSOLE = Console(stderr=True)


def told(result: ParityResult) -> str:
    """What a row says of a model's loss."""
    return (
        f"{result.sqnr_db:.1f} dB, {result.kl:.4f} nats, {100 * result.top1_agreement:.0f} % agree"
    )


def print_row(*cells: object) -> None:
    """One of a table in Markdown."""
    click.echo(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
