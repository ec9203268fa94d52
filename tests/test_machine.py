from __future__ import annotations

import ctypes
import io
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from effnet_edge.machine import (
    Gpu,
    find_gpu,
    int8_overflows,
    is_arm_without_fp16,
    jetpack_version,
    setting_without_vnni,
)
from effnet_edge.runtime.openvino_core import openvino_core

if TYPE_CHECKING:
    from pathlib import Path

# As Linux tells it of both.
CORTEX_A72 = "Features\t: fp asimd evtstrm crc32 cpuid\n"
NEOVERSE_N1 = (
    "Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm "
    "lrcpc dcpop asimddp ssbs\n"
)


@pytest.mark.parametrize(
    ("machine", "text", "overflows"),
    [
        ("x86_64", "processor : 0\nflags\t\t: fpu avx2 fma\n", True),
        ("AMD64", "flags : avx512f avx512bw\n", True),
        ("x86_64", "flags\t\t: avx2 avx_vnni\n", False),
        ("x86_64", "flags\t\t: avx512f avx512_vnni\nflags\t\t: x\n", False),
        ("x86_64", "vendor_id: nobody\n", False),
        ("aarch64", "Features\t: fp asimd\n", False),
    ],
)
def test_what_the_flags_tell(tmp_path: Path, machine: str, text: str, overflows: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert int8_overflows(tmp_path / "cpuinfo", machine) == overflows


@pytest.mark.parametrize(
    ("environment", "setting"),
    [
        ({"ONEDNN_MAX_CPU_ISA": "avx512_core"}, "ONEDNN_MAX_CPU_ISA=avx512_core"),
        ({"DNNL_MAX_CPU_ISA": "AVX2"}, "DNNL_MAX_CPU_ISA=AVX2"),
        ({"ONEDNN_MAX_CPU_ISA": "", "DNNL_MAX_CPU_ISA": "SSE41"}, "DNNL_MAX_CPU_ISA=SSE41"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2_VNNI", "DNNL_MAX_CPU_ISA": "AVX2"}, None),
        ({"ONEDNN_MAX_CPU_ISA": "DEFAULT"}, None),
        ({}, None),
    ],
)
def test_which_settings_keep_openvino_from_vnni(
    environment: dict[str, str], setting: str | None
) -> None:
    assert setting_without_vnni(environment) == setting


def test_without_cpuinfo_nothing_is_claimed(tmp_path: Path) -> None:
    assert not int8_overflows(tmp_path / "missing", "x86_64")
    assert not is_arm_without_fp16(tmp_path / "missing", "aarch64")


@pytest.mark.parametrize(
    ("machine", "text", "lacks"),
    [
        ("aarch64", CORTEX_A72, True),
        ("arm64", NEOVERSE_N1, False),
        ("aarch64", "processor : 0\n", False),
        ("x86_64", "flags : avx2\n", False),
    ],
)
def test_which_arm_processors_compute_no_fp16(
    tmp_path: Path, machine: str, text: str, lacks: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert is_arm_without_fp16(tmp_path / "cpuinfo", machine) == lacks


def test_both_libraries_lose_large_sums_exactly_where_that_is_said() -> None:
    """64 products of 255 by 127: half of the sum is lost where pairs saturate in 16 bit."""
    largest = 64 * 127 / 128
    kept = largest / 2 if int8_overflows() else largest
    model = _convolution_of_largest_values().SerializeToString()
    pixels = np.ones((1, 64, 16, 16), np.float32)

    session = onnxruntime.InferenceSession(model)
    compiled = openvino_core().compile_model(openvino.convert_model(io.BytesIO(model)), "CPU")

    for answer in (session.run(None, {"x": pixels})[0], compiled({0: pixels})[0]):
        assert answer[0, 0, 8, 8] == pytest.approx(kept, abs=1)


def _convolution_of_largest_values() -> onnx.ModelProto:
    constants = {
        "scale": np.float32(1 / 255),
        "zero": np.uint8(0),
        "weight": np.full((64, 64, 1, 1), 127, np.int8),
        "weight_scale": np.full(64, 1 / 128, np.float32),
        "weight_zero": np.zeros(64, np.int8),
        "answer_scale": np.float32(1),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["quantized"]),
        helper.make_node("DequantizeLinear", ["quantized", "scale", "zero"], ["values"]),
        helper.make_node(
            "DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["kernel"], axis=0
        ),
        helper.make_node("Conv", ["values", "kernel"], ["sums"]),
        helper.make_node("QuantizeLinear", ["sums", "answer_scale", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "answer_scale", "zero"], ["y"]),
    ]
    shape = [1, 64, 16, 16]
    graph = helper.make_graph(
        nodes,
        "largest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_the_gpu_is_what_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {75: 8, 76: 7}

    def put(value: int) -> Any:
        def call(place: Any, *_: object) -> int:
            place._obj.value = value
            return 0

        return call

    def name(buffer: Any, size: int, _device: object) -> int:
        buffer.value = b"Orin"[:size]
        return 0

    def attribute(place: Any, number: int, _device: object) -> int:
        place._obj.value = numbers[number]
        return 0

    driver = SimpleNamespace(
        cuInit=lambda _: 0,
        cuDeviceGet=lambda _, index: 0 if index == 0 else 101,
        cuDriverGetVersion=put(12060),
        cuDeviceGetName=name,
        cuDeviceGetAttribute=attribute,
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda file: driver if file == "libcuda.so.1" else None)
    assert find_gpu() == Gpu("Orin", "8.7", "12.6")
    assert find_gpu(1) is None


def test_the_jetpack_version_is_the_packages(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(
        "Package: other\nVersion: 1.0\n\n"
        "Package: nvidia-jetpack\nStatus: install ok\nVersion: 6.2+b77\n\nPackage: last\n"
    )
    assert jetpack_version(status) == "6.2+b77"
    assert jetpack_version(tmp_path / "missing") is None
