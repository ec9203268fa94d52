"""Imports what commands import slowest; for `forked_commands`, once in the process that forks."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module

# As the command line sets it: OpenMP reads it when PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# With the parts that PyTorch's exporter and onnxruntime import at first use.
for name in (
    "effnet_export.pipeline",
    "torch._dynamo",
    "torch.export._trace",
    "torch.onnx._internal.exporter._compat",
    "onnxscript",
    "onnxsim",
    "onnxruntime",
    "cattrs",
    "fastjsonschema",
):
    with suppress(ImportError):
        import_module(name)

with suppress(ImportError):
    from effnet_edge.runtime.openvino_core import import_openvino

    import_openvino()
