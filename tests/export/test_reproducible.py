"""The same inputs and versions give the same bytes, wherever and with whatever threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conditioned_networks import save_conditioned
from exports_to_compare import SIDE, TINY
from tiny_bundles import quantized_model

from effnet_edge.bundle import BatchRange
from effnet_edge.model.variants import VARIANTS
from effnet_export.openvino_ir import write_openvino_ir

SCRIPT = Path(__file__).with_name("exports_to_compare.py")
TIME = "1700000000"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, TINY.name, TINY)
        return save_conditioned(TINY.name, SIDE, path)


def exported(
    checkpoint: Path, folder: Path, asked: tuple[str, ...], cores: set[int], **environment: str
) -> dict[str, bytes]:
    """What a process that may use these cores exports."""
    folder.mkdir(parents=True)
    subprocess.run(
        [sys.executable, SCRIPT, checkpoint, folder, *asked],
        cwd=folder,
        env={**os.environ, "SOURCE_DATE_EPOCH": TIME, **environment},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        check=True,
        timeout=1700,
    )
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_the_same_bytes(checkpoint: Path, folder: Path, asked: tuple[str, ...]) -> None:
    cores = os.sched_getaffinity(0)
    first = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1"}
    second = {"OMP_NUM_THREADS": "3", "PYTHONHASHSEED": "2"}
    once = exported(checkpoint, folder / "one", asked, {min(cores)}, **first)
    again = exported(checkpoint, folder / "another" / "place", asked, cores, **second)
    assert {f"{each}/manifest.json" for each in asked} <= once.keys()
    assert {name for name in once if once[name] != again.get(name)} == set()
    assert once.keys() == again.keys()


def test_openvino_does_not_number_by_what_was_made_before(tmp_path: Path) -> None:
    model = quantized_model(tmp_path)
    for name in ("one", "another"):
        (tmp_path / name).mkdir()
        write_openvino_ir(model, tmp_path / name, batch=BatchRange(1, 1, 1), fp16_weights=False)
    for file in ("model.xml", "model.bin"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "another" / file).read_bytes()


@pytest.mark.sample
@pytest.mark.timeout(1800)  # two processes, each waiting for the cores that others use
def test_bundles_are_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    asked = ("openvino-fp32", "tensorrt-fp16", "openvino-int8")
    assert_the_same_bytes(checkpoint, tmp_path, asked)


@pytest.mark.slow
def test_bundles_of_the_other_targets_are_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    asked = ("openvino-fp16", "onnxruntime-fp32", "onnxruntime-int8", "tensorrt-int8")
    assert_the_same_bytes(checkpoint, tmp_path, asked)
