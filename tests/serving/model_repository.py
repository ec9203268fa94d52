"""Triton models around bundles, written by hand: no part of the project makes them."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

from effnet_edge.bundle import Bundle

if TYPE_CHECKING:
    from pathlib import Path

_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
_MODEL = """
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from effnet_edge import EngineRunner

class TritonPythonModel:
    def initialize(self, args):
        version = Path(args["model_repository"]) / args["model_version"]
        self.runner = EngineRunner.load(version / "bundle", threads=1)

    def execute(self, requests):
        responses = []
        for request in requests:
            given = pb_utils.get_input_tensor_by_name(request, "{input}")
            logits = self.runner.infer(np.from_dlpack(given))
            tensor = pb_utils.Tensor.from_dlpack("{output}", logits.copy())
            responses.append(pb_utils.InferenceResponse([tensor]))
        return responses
"""


def add_model(
    repository: Path,
    name: str,
    bundle: Path,
    *,
    max_batch_size: int = 8,
    told_bundle: Path | None = None,
    version: int = 1,
) -> Path:
    """Serve a bundle; Triton tells the hash of `told_bundle`'s manifest, if one is given."""
    manifest = Bundle.load(bundle).manifest
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    shutil.copytree(bundle, folder / "bundle")
    source = _MODEL.replace("{input}", manifest.input.name).replace(
        "{output}", manifest.output.name
    )
    (folder / "model.py").write_text(source)
    side = manifest.input
    dims = [side.height, side.width, side.channels]
    if side.layout == "NCHW":
        dims = [side.channels, side.height, side.width]
    parameters = ""
    if told_bundle is not None:
        sha256 = hashlib.sha256((told_bundle / "manifest.json").read_bytes()).hexdigest()
        parameters = (
            'parameters [ { key: "effnet_edge_manifest_sha256" '
            f'value: {{ string_value: "{sha256}" }} }} ]'
        )
    output = f'name: "{manifest.output.name}" dims: [ {manifest.output.classes} ]'
    (repository / name / "config.pbtxt").write_text(f"""
name: "{name}"
backend: "python"
max_batch_size: {max_batch_size}
input [ {{ name: "{side.name}" data_type: {_TYPES[side.dtype]} dims: {dims} }} ]
output [ {{ {output} data_type: TYPE_FP32 }} ]
version_policy {{ all {{ }} }}
{parameters}
""")
    return folder.parent
