"""What a person is told while an export is in one of its stages."""

from __future__ import annotations

from effnet_edge.targets import TARGETS

STAGES = {
    "load": "loading the network",
    "original": "comparing with the original",
    "calibrate": "calibrating",
    "quantize": "writing INT8 and comparing with PyTorch",
    "export": "exporting to ONNX and comparing with PyTorch",
    "simplify": "simplifying and comparing with PyTorch",
    "type": "typing the graph and comparing with PyTorch",
    **{
        row.name: f"writing for {row.title}"
        + ("" if row.built_on_device else " and comparing with PyTorch")
        for row in TARGETS.values()
    },
    "build": "building the engine",
    "latency": "timing against the model without the budget",
}
