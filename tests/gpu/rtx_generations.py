"""What of TensorRT-RTX runs on a GPU that it does not list: python tests/gpu/rtx_generations.py.

`doctor`'s tiny model is compiled for every compute capability that the library lists, and for none
by name, which the library calls every GPU that it supports; and run here. The exit code is 1 if
none runs.
"""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

import numpy as np

from effnet_edge.errors import EffnetEdgeError
from effnet_edge.runtime.backend import EngineSpec
from effnet_edge.runtime.tensorrt.backend import TensorRtRtxBackend
from effnet_edge.runtime.tensorrt.gpu import need_gpu
from effnet_edge.runtime.tensorrt.library import library_of
from effnet_edge.runtime.tensorrt.plan import (
    BuildOptions,
    UncompiledGraph,
    build_plan,
    known_generations,
)

if TYPE_CHECKING:
    from effnet_edge.runtime.tensorrt.api import TensorRtRtx

PIXELS = np.zeros((1, 2, 2, 3), np.uint8)


UNNAMED = "no compute capability by name"


def attempt(generation: str, folder: Path) -> str:
    """What came of it, in words; "runs" if it did."""
    graph = resources.files("effnet_edge").joinpath("data", "probe.onnx").read_bytes()
    source = UncompiledGraph(graph, "the probe", "", None)
    file = folder / f"{generation}.plan"
    try:
        named = () if generation == UNNAMED else (generation,)
        file.write_bytes(build_plan("tensorrt-rtx", source, named, BuildOptions()))
        backend = TensorRtRtxBackend(EngineSpec(file, "fp32"))
    except EffnetEdgeError as error:
        return str(error)
    try:
        backend.infer(PIXELS)
    except EffnetEdgeError as error:
        return str(error)
    finally:
        backend.close()
    return "runs"


def main() -> int:
    """Print a line a compute capability."""
    gpu = need_gpu()
    print(f"{gpu.name}, compute capability {gpu.compute_capability}")
    with TemporaryDirectory() as folder:
        listed = known_generations(cast("TensorRtRtx", library_of("tensorrt-rtx")))
        said = {each: attempt(each, Path(folder)) for each in (*listed, UNNAMED)}
    for generation, text in said.items():
        print(f"compiled for {generation}: {text}")
    return 0 if "runs" in said.values() else 1


if __name__ == "__main__":
    sys.exit(main())
