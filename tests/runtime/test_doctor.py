from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from fake_cuda import FakeCuda
from fake_tensorrt import VERSION
from onnx.reference import ReferenceEvaluator

from effnet_edge.machine import find_gpu
from effnet_edge.runtime import available_backends, doctor
from effnet_edge.runtime.openvino import OpenVinoBackend
from effnet_edge.targets import TARGETS
from effnet_export.litert.writing import litert_file

if TYPE_CHECKING:
    from fake_tensorrt import FakeTensorRt

ROOT = Path(__file__).parents[2]


def test_backends_that_are_installed_work() -> None:
    statuses = {status.name: status for status in available_backends()}
    assert sorted(statuses) == [
        *("litert", "onnxruntime", "openvino"),
        *("tensorrt", "tensorrt-rtx"),
    ]
    for name in ("onnxruntime", "openvino", "litert"):
        status = statuses[name]
        library = pytest.importorskip(TARGETS[name].library)
        assert status.works, status.detail
        assert status.version is not None
        assert library.__version__.startswith(status.version)
        assert status.detail == "runs FP32 on CPU"


@pytest.mark.parametrize(
    ("lacks_fp16", "told"),
    [
        (False, "; convolutions of INT8 models run in FP16"),
        (True, "; INT8 models do not load: this processor has no FP16 arithmetic"),
    ],
)
def test_on_arm_it_is_said_what_becomes_of_int8(
    monkeypatch: pytest.MonkeyPatch, lacks_fp16: bool, told: str
) -> None:
    monkeypatch.setattr(doctor, "is_arm", lambda: True)
    monkeypatch.setattr(doctor, "is_arm_without_fp16", lambda: lacks_fp16)
    details = {status.name: status.detail for status in available_backends()}
    assert details["openvino"] == f"runs FP32 on CPU{told}"
    assert details["onnxruntime"] == "runs FP32 on CPU"


def test_without_vnni_it_is_said_which_int8_models_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "int8_overflows", lambda: True)
    details = {status.name: status.detail for status in available_backends()}
    for name in ("openvino", "onnxruntime"):
        assert details[name] == (
            "runs FP32 on CPU; INT8 models load with weights of 7 bits alone: this processor has "
            "no VNNI"
        )
    assert details["litert"] == "runs FP32 on CPU"


def test_a_setting_that_keeps_openvino_from_vnni_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "int8_overflows", lambda: False)
    monkeypatch.setattr(doctor, "is_x86", lambda: True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    details = {status.name: status.detail for status in available_backends()}
    assert details["openvino"] == (
        "runs FP32 on CPU; INT8 models load with weights of 7 bits alone: "
        "ONEDNN_MAX_CPU_ISA=AVX512_CORE keeps it from VNNI"
    )
    assert details["onnxruntime"] == "runs FP32 on CPU"


@pytest.mark.skipif(find_gpu() is not None, reason="there is a GPU")
def test_tensorrt_rtx_without_a_gpu_says_that() -> None:
    pytest.importorskip("tensorrt_rtx")
    status = next(s for s in available_backends() if s.name == "tensorrt-rtx")
    assert not status.works
    assert status.version is not None
    assert status.detail.startswith("there is no NVIDIA GPU here")


def test_a_library_that_cannot_be_imported_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    status = next(s for s in available_backends() if s.name == "openvino")
    assert not status.works
    assert "pip install 'effnet-edge[openvino]'" in status.detail


def test_a_package_that_is_absent_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> str:
        raise doctor.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(doctor.metadata, "version", absent)
    for status in available_backends():
        assert (status.works, status.version, status.detail) == (False, None, "not installed")


def test_wrong_numbers_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    infer = OpenVinoBackend.infer
    monkeypatch.setattr(OpenVinoBackend, "infer", lambda self, batch: infer(self, batch) + 1)
    status = next(s for s in available_backends() if s.name == "openvino")
    assert not status.works
    assert "wrong numbers" in status.detail


def test_the_probe_is_what_its_tool_makes_and_small() -> None:
    data = ROOT / "effnet_edge" / "data"
    packaged = (data / "probe.onnx").read_bytes()
    made = runpy.run_path(str(ROOT / "tools" / "make_probe.py"))["probe_model"]()
    assert len(packaged) < 1000
    assert onnx.load_model_from_string(packaged) == made
    assert (data / "probe.tflite").read_bytes() == litert_file(made)


def test_the_probes_answer_is_that_of_the_onnx_standard() -> None:
    model = onnx.load(ROOT / "effnet_edge" / "data" / "probe.onnx")
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    answer = ReferenceEvaluator(model).run(None, {"pixels": pixels})[0]
    np.testing.assert_allclose(answer, [[16.5, 12.0]])


def test_the_doctor_compiles_and_runs_its_probe(
    library: FakeTensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.metadata, "version", lambda _: VERSION)
    statuses = {each.name: each for each in doctor.available_backends()}
    assert statuses["tensorrt"].detail == "runs FP32 on Test GPU"
    assert statuses["tensorrt"].works
    (config,) = library.configs
    assert config.flags == set()
    assert isinstance(library.cuda, FakeCuda)
    assert library.cuda.alive == {}
