"""INT8 weights of 8 bits are not run where the processor loses large sums of their products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from tiny_bundles import MODEL_FILES, tiny_model, write_bundle

from effnet_calibration.schemes import ASYMMETRIC_INT8_OUTPUTS, ASYMMETRIC_UINT8, SCHEMES
from effnet_edge.bundle import Calibration
from effnet_edge.cli.main import cli
from effnet_edge.errors import BackendError
from effnet_edge.machine import is_x86
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from pathlib import Path


def bundle(folder: Path, target: str, scheme: str, precision: str = "int8") -> Path:
    # The table is not read here, but has to be one of the files.
    table = MODEL_FILES.get(target, "model.onnx")
    calibration = Calibration(table, scheme, "photos", 200, "0" * 64)
    return write_bundle(
        folder / "b", target, tiny_model(), precision=precision, calibration=calibration
    )


@pytest.mark.parametrize("target", ["openvino", "onnxruntime"])
def test_eight_bits_are_refused_without_vnni(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    path = bundle(tmp_path, target, ASYMMETRIC_UINT8.name)
    monkeypatch.setattr("effnet_edge.runtime.backend.int8_overflows", lambda: True)
    with pytest.raises(BackendError, match="this processor has no VNNI") as caught:
        EngineRunner.load(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith("use a bundle made with --weight-bits 7")
    if target == "openvino":  # which may choose the processor, too
        with pytest.raises(BackendError, match="this processor has no VNNI"):
            EngineRunner.load(path, device="AUTO")
    done = CliRunner().invoke(cli, ["verify", str(path)])
    assert "this processor has no VNNI" in done.output


@pytest.mark.parametrize(
    ("target", "scheme", "precision", "lacks_vnni"),
    [
        ("openvino", "asymmetric-uint8-w7", "int8", True),
        ("onnxruntime", "asymmetric-uint8-w7", "int8", True),
        ("openvino", "asymmetric-uint8", "int8", False),
        ("openvino", "floating-point", "fp32", True),
        ("litert", ASYMMETRIC_INT8_OUTPUTS.name, "int8", True),
    ],
)
def test_what_loses_nothing_loads(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    scheme: str,
    precision: str,
    lacks_vnni: bool,
) -> None:
    path = bundle(tmp_path, target, scheme, precision)
    monkeypatch.setattr("effnet_edge.runtime.backend.int8_overflows", lambda: lacks_vnni)
    EngineRunner.load(path).close()


@pytest.mark.skipif(not is_x86(), reason="the setting is of x86 processors")
def test_a_setting_that_keeps_openvino_from_vnni_is_no_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO's kernels of that generation lose the same sums; ONNX Runtime does not read it."""
    monkeypatch.setattr("effnet_edge.runtime.backend.int8_overflows", lambda: False)
    path = bundle(tmp_path, "openvino", ASYMMETRIC_UINT8.name)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx512_core")
    with pytest.raises(BackendError, match="ONEDNN_MAX_CPU_ISA=avx512_core lets OpenVINO"):
        EngineRunner.load(path)
    EngineRunner.load(bundle(tmp_path / "7", "openvino", "asymmetric-uint8-w7")).close()
    EngineRunner.load(bundle(tmp_path / "o", "onnxruntime", ASYMMETRIC_UINT8.name)).close()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")
    EngineRunner.load(path).close()


@pytest.mark.parametrize("name", SCHEMES)
def test_the_bits_that_a_manifest_tells_are_those_of_the_scheme(name: str) -> None:
    bits = Calibration("t.json", name, "photos", 200, "0" * 64).weight_bits
    # 2·255·64 fits into 16 bit.
    assert (SCHEMES[name].weight_limit <= 64) == (bits == 7)
