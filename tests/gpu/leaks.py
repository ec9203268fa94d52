"""Whether memory grows over many inferences: python tests/gpu/leaks.py BUNDLE [--runs N].

Batches from host memory, arrays on the GPU and futures, in turns, after a warmup that fills every
pool; then loading and closing the runner again and again. Needs no torch: it runs on a Jetson.
"""

from __future__ import annotations

import resource
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.tensorrt.cuda import Cuda

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
ALLOWED_MIB = 8
RELOADS = 20
WARMUP = 200


class OnGpu:
    """uint8 pixels (N, …) on the GPU, of whatever values, with the CUDA Array Interface."""

    def __init__(self, pointer: int, shape: tuple[int, ...]) -> None:
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": "|u1",
            "data": (pointer, True),
            "strides": None,
            "stream": None,
        }


@contextmanager
def pixels_on_gpu(images: int, image_shape: tuple[int, ...]) -> Iterator[list[OnGpu]]:
    """The first 1, 2, … of so many images, in the same memory."""
    cuda = Cuda()
    pointer = cuda.allocate(images * int(np.prod(image_shape)))
    try:
        yield [OnGpu(pointer, (count, *image_shape)) for count in range(1, images + 1)]
    finally:
        cuda.free(pointer)


def resident() -> float:
    """Memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def used_on_gpu() -> float:
    """Memory in use on the GPU, MiB."""
    from cuda.bindings import runtime

    status, free, total = runtime.cudaMemGetInfo()
    if int(status) != 0:
        raise RuntimeError(f"cudaMemGetInfo: error {int(status)}")
    return float(total - free) / MIB


def use(run: EngineRunner, rounds: int, on_gpu: list[OnGpu]) -> None:
    """Run it in every way that it has, three inferences a round."""
    side, batch = run.manifest.input, run.manifest.batch
    shape = (len(on_gpu), side.height, side.width, side.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for index in range(rounds):
        count = batch.minimum + index % (batch.maximum - batch.minimum + 1)
        resident_array: Any = on_gpu[count - 1]
        run.infer(pixels[:count])
        run.infer(resident_array)
        run.submit(pixels[:count]).result()


def growth(bundle: str, runs: int) -> dict[str, float]:
    """By how much memory grew, MiB, by what was done."""
    with EngineRunner.load(bundle) as run:
        side = run.manifest.input
        shape = (side.height, side.width, side.channels)
        with pixels_on_gpu(run.manifest.batch.maximum, shape) as on_gpu:
            use(run, WARMUP, on_gpu)
            before = resident(), used_on_gpu()
            use(run, -(-runs // 3), on_gpu)
            after = resident(), used_on_gpu()
    EngineRunner.load(bundle).close()
    before_reloads = resident(), used_on_gpu()
    for _ in range(RELOADS):
        EngineRunner.load(bundle).close()
    return {
        f"process, {runs} inferences": after[0] - before[0],
        f"GPU, {runs} inferences": after[1] - before[1],
        f"process, {RELOADS} times loaded": resident() - before_reloads[0],
        f"GPU, {RELOADS} times loaded": used_on_gpu() - before_reloads[1],
    }


@click.command()
@click.argument("bundle")
@click.option("--runs", default=10000, show_default=True, help="Inferences.")
def main(bundle: str, runs: int) -> None:
    """Exit with 1 if memory grew."""
    grown = growth(bundle, runs)
    for what, mib in grown.items():
        print(f"{what}: {mib:+.1f} MiB")
    sys.exit(1 if max(grown.values()) > ALLOWED_MIB else 0)


if __name__ == "__main__":
    main()
