"""Python with a scripted TensorRT, for as long as this folder is on its path.

CUDA and the GPU are scripted, too, unless there is one: then TensorRT works through its CUDA.

The inspector tells of each engine that it computes what its graph says.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path[1:1] = [str(TESTS), str(TESTS / "gpu")]

import fake_tensorrt  # noqa: E402
import fake_tensorrt_on_cuda  # noqa: E402
import gpu_or_fake  # noqa: E402
import onnx  # noqa: E402

from effnet_edge.machine import Gpu, find_gpu  # noqa: E402

WORDS = {"INT8": "Int8", "FP16": "Half", "FP32": "Float"}


def inspection(plan: bytes) -> str:
    """One layer for each node that has weights."""
    import layers

    model = onnx.load_model_from_string(plan.removeprefix(fake_tensorrt.PLAN))
    told = [
        {
            "Name": name,
            "LayerType": "kgen",
            "Inputs": [{"Format/Datatype": WORDS[precision]}],
            "Metadata": f"[ONNX Layer: {name}]",
        }
        for name, precision in layers.precisions_in(model.graph).items()
    ]
    return json.dumps({"Layers": told})


deserialize = fake_tensorrt.FakeRuntime.deserialize_cuda_engine


def deserialize_and_inspect(
    runtime: fake_tensorrt.FakeRuntime, plan: bytes
) -> fake_tensorrt.FakeEngine | None:
    """The engine, after which the inspector tells of its plan."""
    if plan.startswith(fake_tensorrt.PLAN):
        runtime.library.inspection = inspection(plan)
    return deserialize(runtime, plan)


fake_tensorrt.FakeRuntime.deserialize_cuda_engine = deserialize_and_inspect  # type: ignore[method-assign]
# torch's compiler asks where the module comes from.
fake_tensorrt.FakeTensorRt.__spec__ = ModuleSpec("tensorrt", None)
gpu = Gpu("Dry run", os.environ.get("DRY_RUN_CAPABILITY", "8.6"), "12.6")
installed = (
    gpu_or_fake.fake_nvidia(gpu_here=gpu)
    if find_gpu() is None
    else fake_tensorrt_on_cuda.scripted_on_cuda(gpu)
)
installed.__enter__()
atexit.register(installed.__exit__, None, None, None)
