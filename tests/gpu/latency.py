"""Latency of bundles against PyTorch in FP16, in turns: python tests/gpu/latency.py BUNDLE…

PyTorch runs the network of the first bundle in channels_last: eager, and on a GPU also compiled,
and compiled with CUDA graphs. All start from uint8 pixels in host memory and end with the logits
there; the bundles are also timed on pixels that are on the GPU already.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from effnet_edge.bench import compare
from effnet_edge.bundle import Bundle
from effnet_edge.runtime import EngineRunner
from effnet_export.origin import load_source_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from effnet_edge.bundle import Manifest

COMPILERS = {
    "compiled": "default",
    "compiled, CUDA graphs": "reduce-overhead",
}


class TorchOnGpu(torch.nn.Module):
    """Pixels → logits, with normalization on the device."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__()
        network = load_source_of(manifest, None).network.eval()
        self.network = network.half().to(memory_format=torch.channels_last)
        shape = (1, 3, 1, 1)
        preprocessing = manifest.preprocessing
        self.register_buffer("mean", 255 * torch.tensor(preprocessing.mean).view(shape).half())
        self.register_buffer("std", 255 * torch.tensor(preprocessing.std).view(shape).half())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (N, H, W, 3) → float32 (N, classes)."""
        values = pixels.permute(0, 3, 1, 2).half()
        return self.network((values - self.mean) / self.std).float()


def torch_calls(
    manifest: Manifest, pixels: npt.NDArray[np.uint8], device: str
) -> dict[str, Callable[[], object]]:
    """What PyTorch offers, by name."""
    module = TorchOnGpu(manifest).to(device)
    host = torch.from_numpy(pixels)
    host = host.pin_memory() if device == "cuda" else host

    def run(function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        with torch.inference_mode():
            return function(host.to(device, non_blocking=True)).cpu()

    calls = {f"torch FP16 on {device}, eager": partial(run, module)}
    for name, mode in COMPILERS.items() if device == "cuda" else ():
        calls[f"torch FP16 on cuda, {name}"] = partial(run, torch.compile(module, mode=mode))
    return calls


@click.command()
@click.argument("bundles", nargs=-1, required=True)
@click.option("--batch", default=1, show_default=True)
@click.option("--runs", default=300, show_default=True)
def main(bundles: tuple[str, ...], batch: int, runs: int) -> None:
    """Print medians and their ratios."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    manifest = Bundle.load(bundles[0]).manifest
    side = manifest.input.height
    pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
    calls = torch_calls(manifest, pixels, device)
    with ExitStack() as stack:
        for path in bundles:
            run = stack.enter_context(EngineRunner.load(path))
            name = f"{run.name}, {run.execution_precision}"
            calls[name] = partial(run.infer, pixels)
            if device == "cuda":
                on_gpu = torch.from_numpy(pixels).cuda()
                calls[f"{name}, pixels on the GPU"] = partial(run.infer, on_gpu)
        timings = compare(calls, runs, warmup=20)
    table = Table(title=f"batch {batch}, {runs} runs in turns")
    for heading in ("", "median ms", "p99 ms", "of eager"):
        table.add_column(heading)
    for each in timings:
        table.add_row(
            each.name, f"{1e3 * each.median:.3f}", f"{1e3 * each.p99:.3f}", f"{each.ratio:.2f}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
