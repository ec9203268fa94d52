"""How far each kind of layer of an OpenVINO model stands from what this processor can do.

    python benchmarks/roofline.py b0-openvino-fp32 b0-openvino-int8 [--threads 1] [--picture SVG]

Two roofs (Williams et al. 2009, "Roofline: an insightful visual performance model"): the most
multiply-adds a second that OpenVINO's own kernels reach here, on products that stay in the cache,
in each precision that the processor computes in; and the most bytes a second that a kernel reads
and writes, which depends on how many there are. No layer can be done before its multiply-adds and
its bytes are; how long that takes is held against OpenVINO's counters. A layer's bytes are its
input, its weights and its output, once each.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import openvino
from int8_layers import compiled, noise, read
from openvino import opset13
from rich.console import Console
from rich.table import Table

from effnet_edge.bench.other_work import ProcessorTime, told_other_work
from effnet_edge.bundle import Bundle
from effnet_edge.runtime.openvino_engines import CompiledEngine

SIDES = (256, 512, 768)
WORKING_SETS = tuple(2**power for power in range(17, 29))
ROOF_RUNS = 50
BYTES = {"I8": 1, "BF16": 2, "FP16": 2, "FP32": 4}
KINDS = {
    "stem": "stem",
    "depthwise": "depthwise",
    "se.": "squeeze-excitation",
    "expand": "expansion",
    "project": "projection",
    "head": "head",
    "classifier": "classifier",
    "logits": "classifier",
}
ORDER = (*dict.fromkeys(KINDS.values()), "other")
MARKERS = ("o", "s", "^", "D", "v", "P")
COMPUTING = {"Convolution", "GroupConvolution", "FullyConnected", "MatMul"}


@dataclass(frozen=True)
class Roofs:
    """What the processor can do.

    Attributes:
        products: multiply-adds a second by precision, where it computes in it at all.
        bytes: bytes read and written a second by how many there are, ascending.
    """

    products: dict[str, float]
    bytes: dict[int, float]

    def bandwidth(self, size: float) -> float:
        """Bytes a second where a kernel touches so many, interpolated between the measured ones."""
        sizes = np.log(list(self.bytes))
        return float(np.interp(np.log(max(size, 1)), sizes, list(self.bytes.values())))

    def seconds(self, node: Node) -> tuple[float, float]:
        """The least time for a node's multiply-adds, and for its bytes."""
        peak = self.products.get(node.precision) or self.products["FP32"]
        return node.products / peak, node.size / self.bandwidth(node.size)


@dataclass(frozen=True)
class Node:
    """One node of an execution graph: multiply-adds, bytes, and the seconds that it took."""

    kind: str
    precision: str
    products: float
    size: float
    seconds: float


def precision_of(kernel: str) -> str:
    """What a kernel such as "brgconv_avx2_f32" computes in."""
    told = kernel.rsplit("_", 1)[-1].upper()
    return {"F32": "FP32", "F16": "FP16", "U8": "I8"}.get(told, told)


def fastest(model: openvino.Model, config: dict[str, str | int]) -> tuple[str, float]:
    """The precision of the longest node of a model, and its least time in seconds."""
    engine = compiled(model, PERF_COUNT=True, **config)
    timed, given = CompiledEngine(engine), noise(engine)
    runs = [timed.layer_times(given, 1) for _ in range(ROOF_RUNS)]
    longest = max(timed.layer_times(given, ROOF_RUNS), key=lambda node: node.seconds)
    least = min(node.seconds for run in runs for node in run if node.name == longest.name)
    return precision_of(longest.kernel), least


def product(side: int, *, integers: bool, convolution: bool) -> openvino.Model:
    """A square matrix product with constant weights, as a dense layer or as a 1×1 convolution."""
    width = 32
    shape = [1, side, width, side // width] if convolution else [side, side]
    values = opset13.parameter(shape, np.float32)
    weights = np.random.default_rng(0).integers(-63, 64, (side, side), np.int8)
    if integers:
        given = opset13.fake_quantize(values, *map(np.float32, (0, 2.55, 0, 2.55)), 256)
        scaled = opset13.multiply(opset13.convert(weights, "f32"), np.float32(0.01))
    else:
        given, scaled = values, opset13.constant(weights.astype(np.float32) / 100)
    if convolution:
        shaped = opset13.reshape(scaled, np.array([side, side, 1, 1]), special_zero=False)
        result = opset13.convolution(given, shaped, [1, 1], [0, 0], [0, 0], [1, 1])
    else:
        result = opset13.matmul(given, scaled, transpose_a=False, transpose_b=True)
    return openvino.Model([result], [values])


def passing(size: int) -> openvino.Model:
    """A kernel that reads and writes so many bytes, and hardly computes."""
    values = opset13.parameter([1, 64, size // (2 * 4 * 64)], np.float32)
    return openvino.Model([opset13.relu(values)], [values])


def measured_roofs(threads: int) -> Roofs:
    """On so many threads. A precision counts where OpenVINO has a kernel in it here."""
    config: dict[str, str | int] = {"INFERENCE_NUM_THREADS": threads}
    hints = {"FP32": "f32", "BF16": "bf16", "FP16": "f16", "I8": "f32"}
    products: dict[str, float] = {}
    for wanted, hint in hints.items():
        for side in SIDES:
            for convolution in (False, True):
                model = product(side, integers=wanted == "I8", convolution=convolution)
                found, seconds = fastest(model, {**config, "INFERENCE_PRECISION_HINT": hint})
                if found == wanted:
                    products[wanted] = max(products.get(wanted, 0), side**3 / seconds)
    floats = {**config, "INFERENCE_PRECISION_HINT": hints["FP32"]}
    rates = {size: size / fastest(passing(size), floats)[1] for size in WORKING_SETS}
    return Roofs(products, rates)


def nodes_of(bundle: Bundle, threads: int, runs: int) -> list[Node]:
    """All nodes of a bundle's model that take time, each with its median of `runs`.

    In the precision that the runner takes: FP32 for FP32, otherwise what OpenVINO chooses.
    """
    config: dict[str, str | int] = {"INFERENCE_NUM_THREADS": threads}
    if bundle.manifest.precision == "fp32":
        config["INFERENCE_PRECISION_HINT"] = "f32"
    engine = compiled(read(str(bundle.model_path)), PERF_COUNT=True, **config)
    times = {each.name: each for each in CompiledEngine(engine).layer_times(noise(engine), runs)}
    found = []
    for node in engine.get_runtime_model().get_ordered_ops():
        timed = times.get(node.get_friendly_name())
        if timed is not None and timed.seconds:
            precision = precision_of(timed.kernel)
            size, products = size_of(node, precision), products_of(node)
            found.append(Node(named_kind(node), precision, products, size, timed.seconds))
    return found


def told(node: openvino.Node, key: str) -> str:
    """What the execution graph says of a node."""
    info = node.get_rt_info()
    return str(info[key].astype(str)) if key in info else ""


def named_kind(node: openvino.Node) -> str:
    """The kind of layer that a node belongs to, by the names of what was fused into it."""
    names = [f"{name}." for name in told(node, "originalLayersNames").split(",")]
    named = (kind for name in names for part, kind in KINDS.items() if part in name)
    return next(named, "other")


def products_of(node: openvino.Node) -> float:
    """Multiply-adds: the outputs, times the weights of each."""
    if told(node, "layerType") not in COMPUTING:
        return 0.0
    weights, outputs = list(node.input(1).get_shape()), list(node.output(0).get_shape())
    channels = outputs[1]
    return float(np.prod(outputs) * np.prod(weights) / channels)


def size_of(node: openvino.Node, precision: str) -> float:
    """Bytes of its inputs, weights and outputs; weights are in the kernel's precision."""
    total = 0.0
    for port in node.inputs():
        source = port.get_source_output().get_node()
        constant = told(source, "layerType") == "Const"
        width = BYTES.get(precision, 4) if constant else width_of(source)
        total += np.prod(list(port.get_shape())) * width
    return float(total + np.prod(list(node.output(0).get_shape())) * width_of(node))


def width_of(node: openvino.Node) -> int:
    """Bytes of a value that it gives."""
    given = told(node, "outputPrecisions").split(",")[0].upper()
    return {"U8": 1, "I8": 1, "BF16": 2, "F16": 2}.get(given, 4)


def report(name: str, nodes: list[Node], roofs: Roofs, console: Console) -> None:
    """Print a row for each kind of layer, and one for all."""
    table = Table(
        *(
            "layers",
            "nodes",
            "M mult-adds",
            "MB",
            "ms",
            "G mult-adds/s",
            "GB/s",
            "bound by",
            "of roof",
        ),
        title=name,
        title_justify="left",
    )
    for kind in (*ORDER, "all"):
        own = [node for node in nodes if kind in (node.kind, "all")]
        if not own:
            continue
        products, size, taken = (sum(column) for column in columns(own))
        least = [roofs.seconds(node) for node in own]
        by_compute = sum(compute for compute, memory in least if compute >= memory)
        by_memory = sum(memory for compute, memory in least if compute < memory)
        table.add_row(
            kind,
            str(len(own)),
            f"{products / 1e6:.1f}",
            f"{size / 1e6:.2f}",
            f"{taken * 1e3:.3f}",
            f"{products / taken / 1e9:.1f}",
            f"{size / taken / 1e9:.1f}",
            "arithmetic" if by_compute >= by_memory else "memory",
            f"{100 * (by_compute + by_memory) / taken:.0f} %",
        )
    console.print(table)


def columns(nodes: list[Node]) -> tuple[list[float], list[float], list[float]]:
    """Multiply-adds, bytes and seconds."""
    return (
        [node.products for node in nodes],
        [node.size for node in nodes],
        [node.seconds for node in nodes],
    )


def report_roofs(roofs: Roofs, threads: int, console: Console) -> None:
    """Print what the processor can do."""
    table = Table("roof", "a second", title=f"threads: {threads}", title_justify="left")
    for precision, rate in roofs.products.items():
        table.add_row(f"{precision} multiply-adds", f"{rate / 1e9:.1f} G")
    for size, rate in roofs.bytes.items():
        table.add_row(f"bytes, of {size / 1e6:.2g} MB", f"{rate / 1e9:.1f} GB")
    console.print(table)


def draw(models: dict[str, list[Node]], roofs: Roofs, picture: Path) -> None:
    """Each kind of layer of each model under the roofs, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    intensity = np.geomspace(0.2, 300, 100)
    slopes = {"memory": roofs.bytes[max(roofs.bytes)], "cache": max(roofs.bytes.values())}
    for precision, peak in roofs.products.items():
        for where, rate in slopes.items():
            style = "-" if where == "memory" else "--"
            axes.plot(intensity, np.minimum(peak, rate * intensity) / 1e9, style, c="grey", lw=1)
        axes.annotate(precision, (intensity[-1], peak / 1e9), ha="right", va="bottom")
    for marker, (name, nodes) in zip(MARKERS, models.items(), strict=False):
        for color, kind in enumerate(ORDER):
            own = [node for node in nodes if node.kind == kind and node.products]
            if own:
                products, size, taken = (sum(column) for column in columns(own))
                point = products / size, products / taken / 1e9
                label = kind if nodes is next(iter(models.values())) else None
                axes.plot(*point, marker, c=f"C{color}", label=label)
        axes.plot([], [], marker, c="black", label=name)
    axes.set(xscale="log", yscale="log", xlabel="multiply-adds a byte (memory: —, cache: - -)")
    axes.set_ylabel("G multiply-adds a second")
    figure.legend(loc="outside right upper")
    figure.savefig(picture, dpi=110)


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--threads", default=len(os.sched_getaffinity(0)), show_default="all")
@click.option("--runs", default=100, show_default=True)
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path))
def main(bundles: tuple[Path, ...], threads: int, runs: int, picture: Path | None) -> None:
    """Hold the layers of OpenVINO BUNDLES, a single picture at a time, against this processor."""
    console, before = Console(width=120), ProcessorTime.now()
    roofs = measured_roofs(threads)
    report_roofs(roofs, threads, console)
    models = {}
    for path in bundles:
        models[path.name] = nodes_of(Bundle.load(path), threads, runs)
        report(path.name, models[path.name], roofs, console)
    after = ProcessorTime.now()
    if before is not None and after is not None:
        console.print(told_other_work(before.others_until(after)))
    if picture is not None:
        draw(models, roofs, picture)


if __name__ == "__main__":
    main()
