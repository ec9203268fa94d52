"""Where an OpenVINO model's time goes, and how much of it is SiLU.

    python benchmarks/int8_layers.py b0-openvino-int8/model.xml [OTHER.xml …]

For each model: the time of every part of the network, as `effnet-edge bench --layers` tells it of a
bundle; in turns with the model itself, the same model with every SiLU replaced by what OpenVINO
fuses into a convolution, too; and the throughput at several batch sizes. Those models are wrong:
with a ReLU they show what no choice of precision or of Q/DQ positions can save, with the others
what a closer stand-in for SiLU than a hard-swish would cost.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import openvino
from openvino import opset13
from rich.console import Console
from rich.table import Table

from effnet_edge.bench import compare
from effnet_edge.bench.parts import PartTime, by_part
from effnet_edge.machine import is_x86
from effnet_edge.runtime.openvino_engines import CompiledEngine
from effnet_edge.runtime.openvino_gates import with_converted_gates

if TYPE_CHECKING:
    from collections.abc import Callable

BATCHES = (1, 4, 16)
SECONDS = 3.0


def read(path: str, batch: int = 1) -> openvino.Model:
    """The model, for that batch size."""
    model = openvino.Core().read_model(path)
    shape = model.input(0).partial_shape
    shape[0] = batch
    model.reshape(shape)
    return model


def _bent(values: openvino.Output) -> openvino.Node:
    """A hard-swish whose lowest part is made flatter."""
    return opset13.prelu(opset13.hswish(values), opset13.constant(np.array([0.5], np.float32)))


def _two_hard_swishes(values: openvino.Output) -> openvino.Node:
    inner = opset13.multiply(opset13.hswish(values), np.array([[[[1.1]]]], np.float32))
    return opset13.hswish(inner)


STAND_INS = {
    "ReLU": opset13.relu,
    "hard-swish": opset13.hswish,
    "hard-swish, then PReLU": _bent,
    "two hard-swishes": _two_hard_swishes,
    "GELU": lambda values: opset13.gelu(values, "erf"),
    "GELU by tanh": lambda values: opset13.gelu(values, "tanh"),
    "Mish": opset13.mish,
}


def without_silu(model: openvino.Model, stand_in: Callable[..., openvino.Node]) -> openvino.Model:
    """Replace every SiLU."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Swish":
            other = stand_in(node.input_value(0))
            other.set_friendly_name(node.get_friendly_name())
            openvino.utils.replace_node(node, other)
    return model


def compiled(model: openvino.Model, **config: str | bool | int) -> openvino.CompiledModel:
    """For the CPU, for latency unless told otherwise, with the gates that our runner makes."""
    model = with_converted_gates(model) if is_x86() else model
    return openvino.Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", **config})


def noise(engine: openvino.CompiledModel) -> np.ndarray:
    """Random input; values do not change the time."""
    port = engine.input(0)
    generator = np.random.default_rng(0)
    if port.get_element_type() == openvino.Type.u8:
        return generator.integers(0, 256, tuple(port.shape), np.uint8)
    return generator.standard_normal(tuple(port.shape), np.float32)


def part_times(path: str, runs: int) -> list[PartTime]:
    """What each part of the network takes, by OpenVINO's own counters, medians of `runs`."""
    engine = compiled(read(path), PERF_COUNT=True)
    return by_part(CompiledEngine(engine).layer_times(noise(engine), runs))


def images_a_second(path: str, batch: int) -> float:
    """With as many requests in flight as the throughput hint asks for."""
    engine = compiled(read(path, batch), PERFORMANCE_HINT="THROUGHPUT")
    queue = openvino.AsyncInferQueue(engine)
    pixels = noise(engine)
    for _ in range(len(queue)):
        queue.start_async([pixels])
    queue.wait_all()
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        queue.start_async([pixels])
        done += batch
    queue.wait_all()
    return done / (time.perf_counter() - started)


def report(paths: tuple[str, ...], runs: int) -> None:
    """Print the tables of every model."""
    console = Console()
    for path in paths:
        table = Table("part", "operator", "kernel", "ms", title=path, title_justify="left")
        for part in part_times(path, runs):
            table.add_row(part.part, part.operator, part.kernel, f"{part.seconds * 1e3:.3f}")
        console.print(table)
    calls = {}
    for path in paths:
        changed = {
            f", {name} for SiLU": without_silu(read(path), stand_in)
            for name, stand_in in STAND_INS.items()
        }
        for suffix, model in {"": read(path), **changed}.items():
            engine = compiled(model)
            request, pixels = engine.create_infer_request(), noise(engine)
            calls[Path(path).parent.name + "/" + Path(path).name + suffix] = (
                lambda request=request, pixels=pixels: request.infer([pixels])
            )
    timings = compare(calls, runs, 20)
    table = Table("model", "median ms", "ratio", title="batch 1, in turns", title_justify="left")
    for timing in timings:
        table.add_row(timing.name, f"{timing.median * 1e3:.3f}", f"{timing.ratio:.3f}")
    console.print(table)
    table = Table("model", *(f"batch {batch}" for batch in BATCHES), title="images a second")
    for path in paths:
        table.add_row(path, *(f"{images_a_second(path, batch):.0f}" for batch in BATCHES))
    console.print(table)


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--runs", default=200, show_default=True)
def main(models: tuple[str, ...], runs: int) -> None:
    """Profile MODELS, each an OpenVINO .xml file."""
    report(models, runs)


if __name__ == "__main__":
    main()
