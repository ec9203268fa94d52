"""What `EngineRunner.warmup`'s huge pages gain: BUNDLES on the CPU, at batch 1.

    python benchmarks/huge_pages.py b0-openvino-int8 b0-openvino-fp16 b0-openvino-fp32 --threads 2

A process that warms its runners up and one that calls `infer` as often instead take turns. In each
all bundles are timed twice: in turns after every call, when each finds the caches full of
another's weights, and one after the other.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from statistics import median

import click
import numpy as np

from effnet_edge.runtime import EngineRunner

WARMUP = 3
MANNERS = ("in turns", "by itself")
KINDS = ("small pages", "huge pages")


def timed(run: EngineRunner, pixels: np.ndarray) -> float:
    """Give the seconds of one call."""
    start = time.perf_counter()
    run.infer(pixels)
    return time.perf_counter() - start


def times_here(bundles: list[str], kind: str, calls: int, threads: int | None) -> list[list[float]]:
    """The median seconds of a call, a row for each of `MANNERS`, a number a bundle."""
    runs = []
    for bundle in bundles:
        run = EngineRunner.load(bundle, threads=threads)
        size = run.manifest.preprocessing.resolution
        noise = np.random.default_rng(0).integers(0, 256, (size.height, size.width, 3), np.uint8)
        pixels = run.prepare(noise)
        for _ in range(WARMUP):
            run.infer(pixels)
        if kind == "huge pages":
            run.warmup(WARMUP)
        else:
            for _ in range(WARMUP):
                run.infer(pixels)
        runs.append((run, pixels))
    rounds = [[timed(*each) for each in runs] for _ in range(calls)]
    in_turns = [median(each) for each in zip(*rounds, strict=True)]
    return [in_turns, [median(timed(*each) for _ in range(calls)) for each in runs]]


def times_in_a_process(*arguments: object) -> list[list[float]]:
    """Give what `times_here` gives of a process of its own; `arguments` are the command's."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    times: list[list[float]] = json.loads(done.stdout)
    return times


@click.command()
@click.argument("bundles", nargs=-1, required=True)
@click.option("--threads", type=int, help="CPU threads; the engine's choice by default.")
@click.option("--rounds", default=10, show_default=True, help="Processes of each kind.")
@click.option("--calls", default=100, show_default=True, help="Timed calls in each process.")
@click.option("--kind", type=click.Choice(KINDS), hidden=True)
def main(
    bundles: tuple[str, ...], threads: int | None, rounds: int, calls: int, kind: str | None
) -> None:
    """Print the milliseconds with small and with huge pages, and the ratio, of each of BUNDLES."""
    if kind:
        click.echo(json.dumps(times_here(list(bundles), kind, calls, threads)))
        return
    options = ["--calls", calls, *(["--threads", threads] if threads else [])]
    found = defaultdict(list)
    for _ in range(rounds):
        for each in KINDS:
            found[each].append(times_in_a_process(*bundles, *options, "--kind", each))
    small, huge = (1e3 * np.asarray(found[each]) for each in KINDS)
    for row, manner in enumerate(MANNERS):
        for column, bundle in enumerate(bundles):
            before, after = small[:, row, column], huge[:, row, column]
            click.echo(
                f"{bundle}, {manner}: {np.median(before):.2f} ms, {np.median(after):.2f} ms, "
                f"ratio {np.median(after / before):.3f} "
                f"({np.min(after / before):.3f} to {np.max(after / before):.3f})"
            )


if __name__ == "__main__":
    main()
