"""What EngineRunner.infer costs over a bare OpenVINO infer request: BUNDLE, at batch 1.

    python benchmarks/runner_overhead.py b0-openvino-fp32

Both run the same bundle in the same precision, in turns, in one process.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import click
import numpy as np
import openvino
from rich.console import Console
from rich.table import Table

from effnet_edge.bench import Timing, compare
from effnet_edge.errors import EffnetEdgeError, UsageError
from effnet_edge.runtime import EngineRunner


def measure(bundle: str, runs: int, warmup: int, threads: int | None) -> list[Timing]:
    """Time the bare request, then the runner.

    Raises:
        UsageError: the bundle is not one of OpenVINO with uint8 input and batch 1.

    """
    with EngineRunner.load(bundle, threads=threads) as runner:
        manifest = runner.manifest
        if (manifest.target, manifest.input.dtype) != ("openvino", "uint8"):
            raise UsageError(f"{bundle}: needs an OpenVINO bundle that takes uint8 pixels")
        if manifest.batch.minimum > 1:
            raise UsageError(f"{bundle}: needs a bundle that takes batches of 1")
        config: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY"}
        if manifest.precision == "fp32":
            config["INFERENCE_PRECISION_HINT"] = "f32"
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        compiled = openvino.Core().compile_model(str(runner.bundle.model_path), "CPU", config)
        request = compiled.create_infer_request()
        shape = (1, manifest.input.height, manifest.input.width, 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        calls = {
            "bare request": lambda: request.infer({0: pixels}, share_inputs=True)[0],
            "EngineRunner": lambda: runner.infer(pixels),
        }
        return compare(calls, runs, warmup)


@click.command()
@click.argument("bundle")
@click.option("--runs", default=500, show_default=True, help="Timed calls of each.")
@click.option("--warmup", default=20, show_default=True, help="Untimed calls of each.")
@click.option("--threads", type=int, help="CPU threads; OpenVINO's choice by default.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(bundle: str, runs: int, warmup: int, threads: int | None, as_json: bool) -> None:
    """Compare EngineRunner.infer on BUNDLE with a bare OpenVINO infer request."""
    try:
        timings = measure(bundle, runs, warmup, threads)
    except EffnetEdgeError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps([asdict(timing) for timing in timings], indent=2))
        return
    table = Table("", "median ms", "p90 ms", "min ms", "ratio", title=f"{bundle}, {runs} runs")
    for timing in timings:
        times = (f"{1e3 * s:.3f}" for s in (timing.median, timing.p90, timing.minimum))
        table.add_row(timing.name, *times, f"{timing.ratio:.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
