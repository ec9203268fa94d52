"""An engine is what its manifest says, it runs what was hashed, and it never answers from NaN."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from fake_backends import SummingBackend
from later import quick
from onnx import TensorProto, numpy_helper
from runner_answers import INT8_TARGETS, assert_close, expected, pixels
from tiny_bundles import CLASSES, SIDE, quantized_model, tiny_model, write_bundle

from effnet_edge.bundle import BatchRange, Bundle, InputSpec, OutputSpec
from effnet_edge.errors import BackendError, BundleError, ImageError, NotFiniteError
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("gpu")


def with_classes(model: onnx.ModelProto, classes: int, bias: float = 0) -> onnx.ModelProto:
    """The tiny model with another number of classes."""
    values = {
        "dense": np.ones((8, classes), np.float32),
        "bias": np.full(classes, bias, np.float32),
    }
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = classes
    return model


@pytest.mark.parametrize("classes", [2, 9])
def test_another_number_of_classes_is_refused(tmp_path: Path, target: str, classes: int) -> None:
    path = write_bundle(tmp_path / "b", target, with_classes(tiny_model(batch="N"), classes))
    with pytest.raises(BundleError, match=rf"its output is float32 .*, {classes}\), and manifest"):
        EngineRunner.load(path)


def test_every_answer_has_the_manifests_shape(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "b", "openvino", tiny_model())
    bundle = Bundle.load(path)
    lying = replace(bundle.manifest, output=OutputSpec("logits", CLASSES - 1))
    refused = pytest.raises(BackendError, match=r"gives \(1, 5\) for 1 images of 4 classes")
    with EngineRunner(replace(bundle, manifest=lying), SummingBackend()) as run, refused:
        run.infer(pixels(1))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch": BatchRange(1, 1, 9)}, r"its input is uint8 \(1, 8, 8, 3\)"),
        ({"batch": BatchRange(2, 2, 2)}, r"its input is uint8 \(1, 8, 8, 3\)"),
        ({"input": InputSpec("pixels", "float32", "NCHW", SIDE, SIDE, 3)}, "its input is uint8"),
        ({"input": InputSpec("image", "uint8", "NHWC", SIDE, SIDE, 3)}, "no input .* 'image'"),
        ({"output": OutputSpec("scores", CLASSES)}, "no output of it is called 'scores'"),
    ],
)
def test_another_input_or_output_is_refused(
    tmp_path: Path, cpu_target: str, changes: dict[str, Any], says: str
) -> None:
    path = write_bundle(tmp_path / "b", cpu_target, tiny_model(), **changes)
    with pytest.raises(BundleError, match=says) as caught:
        EngineRunner.load(path)
    assert "\n" not in str(caught.value)


def test_another_side_is_refused(tmp_path: Path, cpu_target: str) -> None:
    path = write_bundle(tmp_path / "b", cpu_target, tiny_model())
    manifest = path / "manifest.json"
    document = json.loads(manifest.read_text())
    document["input"].update(height=16, width=16)
    document["preprocessing"]["resolution"] = {"height": 16, "width": 16}
    manifest.write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"manifest.json says uint8 \(1, 16, 16, 3\)"):
        EngineRunner.load(path)


@pytest.mark.parametrize("value", quick({np.nan}, [np.nan, np.inf, -np.inf], others="sample"))
def test_an_answer_that_is_no_number_is_an_error_that_names_the_picture(
    tmp_path: Path, cpu_target: str, value: float
) -> None:
    from PIL import Image

    path = write_bundle(
        tmp_path / "b", cpu_target, with_classes(tiny_model(batch="N"), CLASSES, value)
    )
    Image.new("RGB", (9, 9)).save(tmp_path / "cat.png")
    with EngineRunner.load(path) as run:
        assert not np.isfinite(run.infer(pixels(1))).any()
        with pytest.raises(NotFiniteError, match=r"cat\.png: the model's answer is no number"):
            run.classify([tmp_path / "cat.png"])
        with pytest.raises(NotFiniteError, match="picture 1: "):
            run.classify(np.zeros((9, 9, 3), np.uint8))
        told = run.classify([b"x", tmp_path / "cat.png"], return_exceptions=True)
        assert [type(each) for each in told] == [ImageError, NotFiniteError]


@pytest.mark.parametrize("int8", [False, True])
def test_what_is_swapped_after_the_check_does_not_run(
    tmp_path: Path, target: str, int8: bool
) -> None:
    if int8 and target not in INT8_TARGETS:
        pytest.skip("it has no INT8")
    model = quantized_model(tmp_path, "N") if int8 else tiny_model(batch="N")
    precision = "int8" if int8 else "fp32"
    path = write_bundle(tmp_path / "b", target, model, precision=precision)
    checked = Bundle.load(path)
    names = {
        "openvino": "model.bin",
        "onnxruntime": "model.onnx",
        "litert": "model.tflite",
        "tensorrt": "engine.plan",
    }
    victim = path / next(iter({names[target]} & set(checked.manifest.files)), "")
    if not victim.is_file():
        victim = path / checked.manifest.engines[0].file
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with pytest.raises(BundleError, match="is not the file that was exported"):
        EngineRunner.of(checked)


def test_what_is_swapped_while_it_runs_changes_nothing(tmp_path: Path, target: str) -> None:
    path = write_bundle(tmp_path / "b", target, tiny_model(batch="N"))
    with EngineRunner.load(path) as run:
        for file in path.iterdir():
            file.write_bytes(bytes(file.stat().st_size))
        assert_close(run.infer(pixels(3)), expected(3))


def test_a_model_with_weights_elsewhere_reads_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    kernel = next(each for each in model.graph.initializer if each.name == "kernel")
    (tmp_path / "weights.bin").write_bytes(kernel.raw_data)
    kernel.ClearField("raw_data")
    kernel.data_location = TensorProto.EXTERNAL
    kernel.external_data.add(key="location", value="weights.bin")
    path = write_bundle(tmp_path / "b", "onnxruntime", tiny_model())
    content = model.SerializeToString()
    (path / "model.onnx").write_bytes(content)
    manifest = path / "manifest.json"
    document = json.loads(manifest.read_text())
    document["files"]["model.onnx"] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    manifest.write_text(json.dumps(document))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendError, match=r"model\.onnx: cannot be loaded"):
        EngineRunner.load(path)
