"""Model files of other people get the pixels that they take, and what they give is understood."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import openvino
import pytest
from foreign_models import FORMATS, SIDE, Foreign, normalized, opened, some_pixels, true_logits
from onnxruntime import quantization

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.model.request import NetworkRequest
from effnet_edge.parity.measures.metrics import softmax
from effnet_edge.runtime.openvino_core import openvino_core
from effnet_edge.size import Size
from effnet_export.model_files import Openings
from effnet_export.opening import open_models
from effnet_export.said import Said

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

OPEN = (None, None, None, None)


INPUTS = {
    "as PyTorch exports": Foreign(),
    "float64": Foreign("float64"),
    "0..1": Foreign(pixels="0..1"),
    "0..255": Foreign(pixels="0..255"),
    "NHWC": Foreign(layout="nhwc"),
    "NHWC of 0..255, as Keras": Foreign(layout="nhwc", pixels="0..255"),
    "uint8 NCHW": Foreign("uint8", pixels="0..255"),
    "uint8 NHWC": Foreign("uint8", "nhwc", "0..255"),
    "a batch of 1": Foreign(shape=(1, 3, SIDE, SIDE)),
    "a batch of 8": Foreign(shape=(8, 3, SIDE, SIDE)),
    "any size": Foreign(shape=("n", 3, "height", "width")),
    "all open": Foreign(shape=OPEN),
    "all open, NHWC": Foreign(layout="nhwc", shape=("n", "h", "w", "c")),
    "brackets": Foreign(name="images[0]"),
    "logits (N, C, 1, 1)": Foreign(end=("4d",)),
}


@pytest.mark.parametrize("file_name", FORMATS)
@pytest.mark.parametrize("kind", INPUTS)
def test_every_input_gets_the_pixels_that_it_takes(
    kind: str, file_name: str, tmp_path: Path, stack: ExitStack
) -> None:
    models = opened(stack, INPUTS[kind].saved(tmp_path / file_name))
    pixels = some_pixels()

    np.testing.assert_allclose(models.reference.infer(pixels), true_logits(pixels), atol=2e-5)
    assert not models.as_probabilities


@pytest.mark.parametrize("file_name", FORMATS)
def test_float16_in_and_out(file_name: str, tmp_path: Path, stack: ExitStack) -> None:
    models = opened(stack, Foreign("float16").saved(tmp_path / file_name))
    pixels = some_pixels()

    found = models.reference.infer(pixels)

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, true_logits(pixels), atol=0.02)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("file_name", FORMATS)
def test_a_rectangle_gets_its_height_and_width(
    file_name: str, layout: str, tmp_path: Path, stack: ExitStack
) -> None:
    shape = (1, 3, SIDE, 40) if layout == "nchw" else (1, SIDE, 40, 3)
    file = Foreign(layout=layout, shape=shape).saved(tmp_path / file_name)

    models = opened(stack, file, resolution=None)

    assert models.preprocessing.resolution == Size(SIDE, 40)
    pixels = some_pixels(width=40)
    np.testing.assert_allclose(models.reference.infer(pixels), true_logits(pixels), atol=2e-5)


def test_a_reference_computes_in_fp32_unless_told_otherwise(
    tmp_path: Path, stack: ExitStack
) -> None:
    """OpenVINO would choose BF16 where the processor has it; a candidate runs as it will run."""
    file, other = Foreign().saved(tmp_path / "a.xml"), Foreign().saved(tmp_path / "b.xml")
    as_it_chooses = openvino_core().get_property("CPU", "INFERENCE_PRECISION_HINT")

    models = opened(stack, file, other)

    assert models.reference.execution_precision == "FP32"
    expected = {"f32": "FP32", "bf16": "BF16"}[as_it_chooses.get_type_name()]
    assert models.candidates[0].execution_precision == expected
    if "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert opened(stack, file, precision="bf16").reference.execution_precision == "BF16"


def test_dimensions_of_minus_one_are_open(tmp_path: Path, stack: ExitStack) -> None:
    model = Foreign().model()
    for dimension in model.graph.input[0].type.tensor_type.shape.dim:
        dimension.dim_value = -1
    onnx.save(model, tmp_path / "model.onnx")

    models = opened(stack, tmp_path / "model.onnx")

    np.testing.assert_allclose(
        models.reference.infer(some_pixels()), true_logits(some_pixels()), atol=2e-5
    )


@pytest.mark.parametrize("file_name", FORMATS)
def test_one_of_several_outputs_is_chosen_by_its_name(
    file_name: str, tmp_path: Path, stack: ExitStack
) -> None:
    two = Foreign(end=("4d", "Softmax"), also_logits=True).saved(tmp_path / file_name)

    with pytest.raises(UsageError, match=r"has 2 outputs \('end0', 'logits'\): give --output"):
        opened(stack, two)
    with pytest.raises(UsageError, match="--output other: "):
        opened(stack, two, said=Said(outputs=(f"{file_name}=other",)))
    for said in ("logits", f"{two}=logits", f"{file_name}=logits"):
        models = opened(stack, two, said=Said(outputs=(said,)))
        np.testing.assert_allclose(
            models.reference.infer(some_pixels()), true_logits(some_pixels()), atol=2e-5
        )
    shares = opened(stack, two, said=Said(outputs=("end0",)))
    assert shares.files[0].ending == "softmax"


def test_each_model_of_a_comparison_has_an_output_of_its_own(
    tmp_path: Path, stack: ExitStack
) -> None:
    two = Foreign(end=("Softmax",), also_logits=True)
    one, other = two.saved(tmp_path / "one.onnx"), two.saved(tmp_path / "other.onnx")

    models = opened(stack, one, other, Said(outputs=("end0", "other.onnx=logits")))

    assert {each.model: each.output for each in models.files} == {
        "one.onnx": "end0",
        "other.onnx": "logits",
    }


class _Calibration(quantization.CalibrationDataReader):
    def __init__(self) -> None:
        self._batches = iter([{"images": normalized(some_pixels())}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


@pytest.mark.parametrize("nodes", ["QDQ", "QOperator"])
def test_models_that_onnx_runtime_quantized(nodes: str, tmp_path: Path, stack: ExitStack) -> None:
    shares = Foreign(end=("Softmax",)).saved(tmp_path / "float.onnx")
    quantized = tmp_path / "int8.onnx"
    how = quantization.QuantFormat[nodes]
    quantization.quantize_static(shares, quantized, _Calibration(), quant_format=how)

    models = opened(stack, shares, quantized)

    assert [each.ending for each in models.files] == ["softmax", "softmax"]
    answers = (each.infer(some_pixels()) for each in (models.reference, *models.candidates))
    expected, found = map(softmax, answers)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_name_that_two_models_have_is_refused(tmp_path: Path, stack: ExitStack) -> None:
    one, other = (tmp_path / folder / "model.onnx" for folder in ("one", "other"))
    for file in (one, other):
        file.parent.mkdir()
        Foreign().saved(file)

    with pytest.raises(UsageError, match="give the whole path"):
        opened(stack, one, other, Said(layouts=("model.onnx=nchw",)))
    assert opened(stack, one, other, Said(layouts=(f"{one}=nchw",))).files


def test_what_is_said_outweighs_what_the_file_shows(tmp_path: Path, stack: ExitStack) -> None:
    file = Foreign().saved(tmp_path / "model.onnx")
    forced = opened(stack, file, said=Said(pixels=("model.onnx=0..255",)))
    assert "pixels of 0..255" in str(forced.files[0].input)


def test_axes_that_a_file_names_count(tmp_path: Path, stack: ExitStack) -> None:
    """Both ends of (N, 3, H, 3) may be the channels."""
    model = Foreign(shape=("N", 3, SIDE, 3), layout="nhwc").model()
    model.graph.input[0].type.tensor_type.shape.dim[3].denotation = "DATA_CHANNEL"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(UsageError, match=rf"3×{SIDE} pixels"):
        opened(stack, tmp_path / "model.onnx")

    converted = openvino_core().read_model(Foreign(shape=OPEN).model().SerializeToString())
    converted.get_parameters()[0].set_layout(openvino.Layout("NHWC"))
    openvino.save_model(converted, tmp_path / "model.xml")
    told = opened(stack, tmp_path / "model.xml").files[0].input
    assert "NHWC" in told


def test_a_layout_that_nothing_tells_is_asked_for(tmp_path: Path, stack: ExitStack) -> None:
    model = Foreign(shape=OPEN).model()
    model.graph.node.insert(0, onnx.helper.make_node("Neg", ["images"], ["negative"]))
    model.graph.node[1].input[0] = "negative"
    onnx.save(model, tmp_path / "model.onnx")

    with pytest.raises(UsageError, match="give --layout nchw or nhwc"):
        opened(stack, tmp_path / "model.onnx")
    answers = opened(stack, tmp_path / "model.onnx", said=Said(layouts=("nchw",)))
    assert answers.reference.infer(some_pixels()).shape == (3, 5)


REFUSED = {
    "another size": (Foreign(), {"resolution": 32}, {}, "24×24 pixels"),
    "other channels": (
        Foreign(),
        {"mean": (0.5,), "std": (0.5,)},
        {},
        "3 channels and the options",
    ),
    "a softmax of features": (
        Foreign(end=("Softmax",)),
        {"output_kind": "features"},
        {},
        "ends in a softmax, gives single-label and --features gives features",
    ),
    "a sigmoid of features": (
        Foreign(end=("Sigmoid",)),
        {"output_kind": "features"},
        {},
        "ends in a sigmoid, gives multi-label",
    ),
    "no such layout": (Foreign(), {}, {"layouts": ("nchv",)}, "--layout nchv: choose nchw or nhwc"),
    "a wrong layout": (Foreign(), {}, {"layouts": ("nhwc",)}, "24 channels as NHWC"),
    "two layouts": (Foreign(), {}, {"layouts": ("nchw", "nhwc")}, "--layout says nchw and nhwc of"),
    "pixels of uint8": (
        Foreign("uint8", pixels="0..255"),
        {},
        {"pixels": ("0..1",)},
        "leave --pixels 0..1 out",
    ),
    "no such output": (Foreign(), {}, {"outputs": ("x",)}, "no model has an output of this name"),
    "idle weights": (Foreign(), {"weights": "x.pth"}, {}, "--weights x.pth goes with a PyTorch"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_contradictions_are_refused_by_name(kind: str, tmp_path: Path, stack: ExitStack) -> None:
    foreign, asked, said, told = REFUSED[kind]
    file = foreign.saved(tmp_path / "model.onnx")

    with pytest.raises(UsageError) as caught:
        opened(stack, file, said=Said(**said), **asked)

    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file_name", FORMATS)
def test_integers_are_no_pictures_and_no_logits(
    file_name: str, tmp_path: Path, stack: ExitStack
) -> None:
    with pytest.raises(BackendError, match="no input for a batch of pictures: 'images' is i(nt)?8"):
        opened(stack, Foreign("int8", pixels="0..255").saved(tmp_path / file_name))

    model = Foreign().model()
    model.graph.node.append(onnx.helper.make_node("ArgMax", ["flat"], ["best"], axis=1))
    model.graph.output[0].name = "best"
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    onnx.save(model, tmp_path / "best.onnx")
    with pytest.raises(BackendError, match="its output 'best' is int64"):
        opened(stack, tmp_path / "best.onnx").reference.infer(some_pixels())


def test_options_of_model_files_need_one(tmp_path: Path, stack: ExitStack) -> None:
    openings = Openings(NetworkRequest("b0"), said=Said(layouts=("nhwc",)))
    with pytest.raises(UsageError, match="--layout nhwc goes with model files"):
        open_models("torch", [str(tmp_path)], openings, stack)
