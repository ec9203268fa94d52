"""What is in 16 bit in bundles for OpenVINO, there in FP16 on the disk: the last blocks, and small
depthwise convolutions. And what is signed in the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import openvino
import pytest
from conditioned_networks import save_conditioned
from exports_to_compare import SIDE, TINY
from hypothesis import given
from hypothesis import strategies as st

from effnet_calibration.quantization import ACTIVATIONS, SLOPES
from effnet_calibration.table import CalibrationTable
from effnet_edge.machine import instruction_sets
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.variants import VARIANTS
from effnet_edge.runtime.openvino_core import openvino_core
from effnet_edge.targets import TARGETS
from effnet_export.openvino_kernels import DEPTHWISE, POINTWISE
from effnet_export.openvino_weights import halve_float_weights
from effnet_export.pipeline import export_bundle
from effnet_export.request import ExportRequest
from effnet_export.targets import target_for

if TYPE_CHECKING:
    from effnet_edge.bundle import Bundle

KEPT = (
    # Of maps with at most 16 × 16 pixels.
    *(f"stages.{stage}.0.depthwise.conv" for stage in range(7)),
    *(f"stages.{stage}.0.project.conv" for stage in range(3, 7)),
    "stages.6.0.se.reduce",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, TINY.name, TINY)
        checkpoint = save_conditioned(TINY.name, SIDE, folder / "tiny.safetensors")
        network = NetworkRequest(
            TINY.name, weights=str(checkpoint), num_classes=10, resolution=SIDE
        )
        output = folder / "bundle"
        request = ExportRequest(network, "openvino", "int8", calibration_size=32, output=output)
        return export_bundle(request).bundle


def executed(bundle: Bundle) -> list[dict[str, str]]:
    """What OpenVINO tells of each node that it runs."""
    compiled = openvino_core().compile_model(bundle.path / "model.xml", "CPU")
    return [
        {name: value.astype(str) for name, value in node.get_rt_info().items()}
        for node in compiled.get_runtime_model().get_ordered_ops()
    ]


def convolutions(bundle: Bundle) -> dict[str, dict[str, str]]:
    """The same of its convolutions, by the name of the first operation that is in each."""
    return {
        node["originalLayersNames"].split(",")[0]: node
        for node in executed(bundle)
        if node["layerType"] == "Convolution"
    }


def test_openvino_alone_keeps_it() -> None:
    for bits in (7, 8):
        assert target_for("openvino", bits).settings.keep_last_blocks
        assert target_for("openvino", bits).settings.keep_depthwise == "small"
    for name in TARGETS.keys() - {"openvino"}:
        settings = target_for(name).settings
        assert not settings.keep_last_blocks
        assert settings.keep_depthwise == "none"


@pytest.mark.sample
def test_the_table_and_the_manifest_tell_it(bundle: Bundle) -> None:
    calibration = bundle.manifest.calibration
    assert calibration is not None
    assert set(calibration.kept) == set(KEPT)
    assert (
        CalibrationTable.of_bundle(bundle).quantization(calibration.scheme).kept == calibration.kept
    )


@pytest.mark.sample
def test_its_weights_alone_are_floats_on_the_disk_and_they_are_fp16(
    bundle: Bundle,
) -> None:
    model = openvino_core().read_model(bundle.path / "model.xml")
    constants = {
        node.get_friendly_name(): node.get_element_type().get_type_name()
        for node in model.get_ops()
        if node.get_type_name() == "Constant"
    }
    weights = {name: kind for name, kind in constants.items() if ".weight" in name}

    halved = [name for name, kind in constants.items() if kind == "f16"]
    assert len(halved) == len(KEPT)
    # OpenVINO gives the depthwise convolution's, which it reshapes, a name of its own.
    regular = {f"{name}.weight_compressed" for name in KEPT if "depthwise" not in name}
    assert {name for name, kind in weights.items() if kind == "f16"} == regular
    scales = {name for name, kind in weights.items() if kind == "f32"}
    assert all(name.endswith("scale") for name in scales)


@pytest.mark.sample
def test_it_runs_in_floats_and_its_weights_are_restored_when_it_is_loaded(
    bundle: Bundle,
) -> None:
    kernels = {name: node["primitiveType"].upper() for name, node in convolutions(bundle).items()}

    kept = {name for name in kernels if name.startswith(KEPT)}
    assert len(kept) == len(KEPT)
    assert {name for name, kernel in kernels.items() if not kernel.endswith("I8")} == kept
    assert "Convert" not in {node["layerType"] for node in executed(bundle)}


def test_openvino_alone_and_with_weights_of_8_bits_reads_signed_bytes() -> None:
    signed = {name for name in TARGETS if target_for(name, None).settings.zero_in_middle}
    assert signed <= {"openvino"}
    assert target_for("openvino", 8).settings.zero_in_middle
    assert not target_for("openvino", 7).settings.zero_in_middle


@pytest.mark.sample
def test_with_amx_convolutions_over_all_channels_run_without_a_zero_point(bundle: Bundle) -> None:
    """OpenVINO makes unsigned bytes of them on processors without AMX."""
    types = {
        name.removesuffix("/WithoutBiases"): node["runtimePrecision"]
        for name, node in convolutions(bundle).items()
    }
    pointwise = {
        name: kind
        for name, kind in types.items()
        if name.endswith(("expand.conv", "project.conv", "head.conv")) and name not in KEPT
    }
    assert len(pointwise) == 6 + 3 + 1
    assert set(pointwise.values()) == {"i8" if "amx_int8" in instruction_sets() else "u8"}


@pytest.mark.sample
def test_layers_ask_for_the_kernel_that_is_faster_behind_them(bundle: Bundle) -> None:
    calibration = bundle.manifest.calibration
    table = CalibrationTable.of_bundle(bundle).quantization(calibration.scheme)
    layers = ElementTree.parse(bundle.path / "model.xml").getroot().iter("layer")
    asking = {
        layer.get("name"): [each.get("value") for each in layer.iterfind("rt_info/attribute")]
        for layer in layers
        if layer.find("rt_info/attribute[@name='primitives_priority']") is not None
    }
    # That of the last stage reads 192 channels.
    expansions = [f"stages.{stage}.0.expand.conv" for stage in range(1, 6)]
    bent = [name for name in table.changes(SLOPES) if ".depthwise." in name]
    assert bent
    kernels = {**dict.fromkeys(expansions, POINTWISE), **dict.fromkeys(bent, DEPTHWISE)}
    assert asking == {f"{name}/WithoutBiases": [kernel] for name, kernel in kernels.items()}


def test_bent_hard_swishes_are_fused_into_the_convolutions_before_them(bundle: Bundle) -> None:
    calibration = bundle.manifest.calibration
    table = CalibrationTable.of_bundle(bundle).quantization(calibration.scheme)
    model = openvino_core().read_model(bundle.path / "model.xml")
    kinds = [node.get_type_name() for node in model.get_ops()]
    assert kinds.count("PRelu") == len(table.changes(SLOPES)) > 0
    assert kinds.count("HSwish") == len(table.changes(ACTIVATIONS))

    own = {node["layerType"] for node in executed(bundle)}
    assert not own & {"Eltwise", "HSwish", "PRelu", "Swish"}


def convolution(weights: np.ndarray) -> openvino.Model:
    operations = openvino.opset13
    channels = weights.shape[1]
    given = operations.parameter([1, channels, 4, 4], np.float32)
    constant = operations.constant(weights, name="weights")
    ones = [1, 1]
    answer = operations.convolution(given, constant, ones, [0, 0], [0, 0], ones)
    return openvino.Model([answer], [given])


def constant_of(model: openvino.Model) -> openvino.Node:
    (constant,) = (node for node in model.get_ops() if node.get_type_name() == "Constant")
    return constant


@given(st.integers(-12, 14), st.integers(0, 2**32 - 1))
def test_weights_are_halved_where_they_keep_ten_bits(exponent: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = (random.uniform(0.5, 1, (3, 8, 1, 1)) * 2.0**exponent).astype(np.float32)
    model = convolution(weights)

    halve_float_weights(model)

    halved = constant_of(model)
    assert halved.get_element_type() == openvino.Type.f16
    np.testing.assert_allclose(halved.get_data().astype(np.float32), weights, rtol=2.0**-10)


def test_halved_weights_give_the_same_answers() -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=(3, 8, 1, 1)).astype(np.float32)
    pixels = random.uniform(0, 1, (1, 8, 4, 4)).astype(np.float32)
    model = convolution(weights)

    halve_float_weights(model)
    (found,) = openvino_core().compile_model(model, "CPU")(pixels).values()

    expected = np.einsum("oc,nchw->nohw", weights[:, :, 0, 0], pixels)
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("scale", [1e5, 1e-7])
def test_weights_that_fp16_cannot_hold_stay_as_they_are(scale: float) -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=(3, 8, 1, 1)).astype(np.float32)
    weights[1] *= scale
    model = convolution(weights)

    halve_float_weights(model)

    assert constant_of(model).get_element_type() == openvino.Type.f32
    np.testing.assert_array_equal(constant_of(model).get_data(), weights)
