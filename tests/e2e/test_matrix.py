"""Every variant in every precision of every target: exported, and through its gates.

At a small resolution, and with untrained weights that bear rounding. A few cells are in the sample,
all of them run with `--slow`, those of l2 only where there is memory for its 2 GB of weights.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conditioned_networks import save_conditioned

from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.variants import VARIANTS
from effnet_edge.runtime import EngineRunner
from effnet_edge.targets import TARGETS
from effnet_export.pipeline import export_bundle
from effnet_export.request import ExportRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIDE = 64
CLASSES = 10
COMPUTE_CAPABILITY = "8.6"
# For TensorRT in FP16, an export of l2 took 23.6 GB.
MEMORY = {"l2": 28 << 30}
SAMPLE = {
    ("lite0", "onnxruntime", "fp32"),
    ("v2-b0", "litert", "fp16"),
    ("b0", "litert", "int8"),
}
STAGES = ["export", "simplify"]
INT8_STAGES = [*STAGES, "weights", "quantize"]


def cells() -> Iterator[object]:
    for variant in VARIANTS:
        for target in TARGETS.values():
            for precision in sorted(target.precisions):
                cell = (variant, target.name, precision)
                yield pytest.param(*cell, id="-".join(cell), marks=_marks(cell))


def _marks(cell: tuple[str, str, str]) -> list[pytest.MarkDecorator]:
    return [pytest.mark.sample if cell in SAMPLE else pytest.mark.slow]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The variant's checkpoint file, made once."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def made(variant: str) -> Path:
        path = folder / f"{variant}.safetensors"
        return path if path.exists() else save_conditioned(variant, SIDE, path, classes=CLASSES)

    return made


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("variant", "target", "precision"), list(cells()))
def test_a_cell_exports_and_passes_its_gates(
    variant: str,
    target: str,
    precision: str,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    if target == "tensorrt-rtx" and importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("TensorRT-RTX is not installed here")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory < MEMORY.get(variant, 0):
        pytest.skip(f"{variant} takes {MEMORY[variant] >> 30} GiB of memory")
    capabilities = (COMPUTE_CAPABILITY,) if target == "tensorrt-rtx" else ()
    request = ExportRequest(
        NetworkRequest(variant, str(checkpoint(variant)), CLASSES, resolution=SIDE),
        target,
        precision,
        calibration_size=32 if precision == "int8" else 8,
        compute_capabilities=capabilities,
        output=tmp_path / "bundle",
    )

    bundle = export_bundle(request).bundle

    stages = bundle.manifest.parity
    *before, last = [stage.stage for stage in stages]
    assert before == (INT8_STAGES if precision == "int8" else STAGES)
    assert last == ("type" if TARGETS[target].built_on_device else target)
    assert all(stage.holds for stage in stages)
    if target == "tensorrt-rtx":
        assert [engine.compute_capability for engine in bundle.manifest.engines]
    if not TARGETS[target].built_on_device:
        with EngineRunner.load(bundle.path) as runner:
            logits = runner.infer(np.zeros((1, SIDE, SIDE, 3), np.uint8))
        assert logits.shape == (1, CLASSES)
        assert np.isfinite(logits).all()
