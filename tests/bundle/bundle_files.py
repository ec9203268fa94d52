"""What the tests of bundles share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tiny_bundles import LABELS, manifest

from effnet_edge.bundle import (
    Bundle,
    BundleWriter,
    Measured,
    StageParity,
)
from effnet_edge.errors import BundleError, EffnetEdgeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from effnet_edge.labels import Label


STAGE = StageParity(
    stage="onnx",
    reference="torch",
    candidate="onnxruntime",
    execution_precision="FP32",
    images=8,
    measures={
        "relative_error": Measured(1e-6, at_most=1e-4),
        "sqnr_db": Measured(112.5),
        "kl": Measured(0.0),
        "top1_agreement": Measured(1.0, at_least=1.0),
    },
)


def write(path: Path, labels: list[Label] | None = LABELS, **changes: Any) -> Bundle:
    with BundleWriter(path) as writer:
        (writer.staging / "model.xml").write_text("<net/>")
        (writer.staging / "model.bin").write_bytes(bytes(range(256)) * 10)
        return writer.commit(manifest(**changes), labels)


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def refusal(path: Path, kind: type[EffnetEdgeError] = BundleError) -> str:
    with pytest.raises(kind) as caught:
        Bundle.load(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
