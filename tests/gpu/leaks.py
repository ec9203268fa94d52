"""Whether memory grows over many inferences: python tests/gpu/leaks.py BUNDLE [--runs N].

Batches from host memory, arrays on the GPU and futures, in turns, after a warmup that fills every
pool; then loading and closing the runner again and again.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import click
import numpy as np
import torch

from effnet_edge.runtime import EngineRunner

MIB = 1 << 20
ALLOWED_MIB = 8
RELOADS = 20


def resident() -> float:
    """Memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def used_on_gpu() -> float:
    """Memory in use on the GPU, MiB."""
    free, total = torch.cuda.mem_get_info()
    return (total - free) / MIB


def use(run: EngineRunner, runs: int) -> None:
    """Run it in every way that it has."""
    side = run.manifest.input.height
    pixels = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), np.uint8)
    on_gpu = torch.from_numpy(pixels).cuda()
    for index in range(runs):
        count = 1 + index % run.manifest.batch.maximum
        run.infer(pixels[:count])
        run.infer(on_gpu[:count])
        run.submit(pixels[:count]).result()


@click.command()
@click.argument("bundle")
@click.option("--runs", default=10000, show_default=True)
def main(bundle: str, runs: int) -> None:
    """Exit with 1 if memory grew."""
    with EngineRunner.load(bundle) as run:
        use(run, 200)
        before = resident(), used_on_gpu()
        use(run, runs // 3)
        after = resident(), used_on_gpu()
    EngineRunner.load(bundle).close()
    before_reloads = used_on_gpu()
    for _ in range(RELOADS):
        EngineRunner.load(bundle).close()
    grown = {
        "process": after[0] - before[0],
        "GPU": after[1] - before[1],
        f"GPU, {RELOADS} times loaded": used_on_gpu() - before_reloads,
    }
    for what, mib in grown.items():
        print(f"{what}: {mib:+.1f} MiB")
    sys.exit(1 if max(grown.values()) > ALLOWED_MIB else 0)


if __name__ == "__main__":
    main()
