"""The layers of exported networks against PyTorch's, and against sums done in float64."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import openvino
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from tiny_bundles import PREPROCESSING, SIDE, quantized_model, tiny_model

from effnet_edge.errors import UsageError
from effnet_edge.graphs.editing import copied, rename_tensors
from effnet_edge.graphs.tensors import set_value, value
from effnet_edge.parity.inside.layers import LayerError, compare_layers, layer_batch_size
from effnet_edge.parity.inside.tracing import LOGITS, shared_tensors
from effnet_edge.parity.measures import metrics
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_edge.parity.models.openvino import OpenVinoClassifier
from effnet_edge.runtime.openvino_core import openvino_core

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIXELS = np.random.default_rng(7).integers(0, 256, (10, SIDE, SIDE, 3), np.uint8)


class Pictures:
    source = "random pixels"

    def __init__(self, pixels: np.ndarray = PIXELS) -> None:
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._pixels)

    def batches(self, _preprocessing, _size, _skipped=None) -> Iterator[tuple[np.ndarray, None]]:
        """In pieces of another size than asked for: the result must not depend on it."""
        for start in range(0, len(self._pixels), 3):
            yield self._pixels[start : start + 3], None


def changed(model: onnx.ModelProto, name: str, change) -> onnx.ModelProto:
    copy = copied(model)
    new = change(value(copy.graph, name))
    set_value(copy.graph, name, np.asarray(new, np.float32))
    return copy


def layers_of(reference: onnx.ModelProto, candidate: onnx.ModelProto) -> dict[str, LayerError]:
    pair = (OnnxClassifier(each, PREPROCESSING) for each in (reference, candidate))
    return {layer.name: layer for layer in compare_layers(*pair, Pictures(), PREPROCESSING)}


def tensor(model: onnx.ModelProto, name: str, batch: np.ndarray) -> np.ndarray:
    """By the reference implementation of the ONNX standard, an image at a time."""
    shown = copied(model)
    shown.graph.output.extend([helper.make_empty_tensor_value_info(name)])
    evaluator = ReferenceEvaluator(shown)
    return np.concatenate([evaluator.run([name], {"pixels": image[None]})[0] for image in batch])


def test_measures_are_those_of_all_pictures_at_once() -> None:
    right = tiny_model()
    wrong = changed(right, "kernel", lambda w: w * 1.02)

    layer = layers_of(right, wrong)["relu"]

    expected, found = tensor(right, "relu", PIXELS), tensor(wrong, "relu", PIXELS)
    assert layer.sqnr_db == pytest.approx(metrics.sqnr_db(expected, found), abs=0.01)
    assert layer.cosine == pytest.approx(metrics.cosine(expected, found), abs=1e-5)
    assert layer.max_abs_error == pytest.approx(metrics.max_abs_error(expected, found), rel=1e-3)
    assert layer.channels == 8


def test_what_a_layer_adds_is_told_from_what_it_inherits() -> None:
    right = tiny_model()
    layers = layers_of(right, changed(right, "kernel", lambda w: w * 1.5))

    assert layers["conv"].added_sqnr_db == pytest.approx(20 * np.log10(2), abs=0.01)
    assert layers["conv"].inherited_sqnr_db == np.inf
    for name in ("relu", "mean", LOGITS):
        assert layers[name].added_sqnr_db > 100
        assert layers[name].inherited_sqnr_db == pytest.approx(layers[name].sqnr_db, abs=0.01)


def test_equal_models_differ_nowhere() -> None:
    layers = layers_of(tiny_model(), tiny_model())

    assert set(layers) == {"cast", "scaled", "values", "conv", "relu", "mean", LOGITS}
    assert all(layer.sqnr_db == layer.added_sqnr_db == np.inf for layer in layers.values())


def test_dead_channels_are_counted() -> None:
    def without_two(kernel: np.ndarray) -> np.ndarray:
        kernel[[1, 5]] = 0
        return kernel

    layers = layers_of(tiny_model(), changed(tiny_model(), "kernel", without_two))

    assert layers["conv"].dead_channels == 2
    assert layers["values"].dead_channels == 0


def test_saturation_is_the_share_outside_of_the_grid(tmp_path: Path) -> None:
    quantized = quantized_model(tmp_path)
    pair = next(
        node
        for node in quantized.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] == "values"
    )
    narrow = changed(quantized, pair.input[1], lambda scale: scale / 2)

    layer = layers_of(quantized, narrow)["values"]

    grid = layer.saturation[0]
    half_step = (grid.high - grid.low) / 255 / 2
    values = PIXELS / 255
    outside = (values < grid.low - half_step) | (values > grid.high + half_step)
    assert layer.clipped == pytest.approx(outside.mean(), abs=1e-3)
    assert 0.3 < outside.mean() < 0.7
    assert sum(grid.histogram.counts) > 0


def test_fused_kernels_of_openvino_are_compared_at_their_end(tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    converted = openvino_core().read_model(tiny_model().SerializeToString())
    openvino.save_model(converted, path, compress_to_fp16=False)
    reference = OnnxClassifier(tiny_model(), PREPROCESSING)
    candidate = OpenVinoClassifier(path, PREPROCESSING, precision="fp32")

    layers = compare_layers(reference, candidate, Pictures(), PREPROCESSING)

    names = [layer.name for layer in layers]
    assert "relu" in names
    assert "conv" not in names  # in the same kernel as the ReLU
    assert names[-1] == LOGITS
    assert all(layer.sqnr_db > 90 for layer in layers)


def test_a_shape_of_its_own_is_no_number() -> None:
    right = tiny_model()
    small = changed(right, "kernel", lambda w: w[:, :, :2, :2])

    assert np.isnan(layers_of(right, small)["conv"].sqnr_db)


def test_models_without_common_names_are_refused() -> None:
    foreign = tiny_model()
    rename_tensors(foreign.graph, {"conv": "conv_x", "relu": "relu_x"})
    reference = OnnxClassifier(tiny_model(), PREPROCESSING)

    shared = shared_tensors(reference, OnnxClassifier(foreign, PREPROCESSING))

    assert "conv" not in shared
    assert LOGITS in shared


def test_no_pictures_are_an_error() -> None:
    model = OnnxClassifier(tiny_model(), PREPROCESSING)

    with pytest.raises(UsageError, match="random pixels that can be read"):
        compare_layers(model, model, Pictures(PIXELS[:0]), PREPROCESSING)


def test_a_batch_shrinks_as_the_resolution_grows() -> None:
    sizes = [layer_batch_size(replace(PREPROCESSING, resolution=r)) for r in (224, 380, 600)]

    assert sizes == [4, 1, 1]


def test_a_layer_is_strict_json() -> None:
    layers = layers_of(tiny_model(), changed(tiny_model(), "kernel", lambda w: w * np.nan))

    text = json.dumps([layer.to_dict() for layer in layers.values()], allow_nan=False)

    assert json.loads(text)[-1]["sqnr_db"] == "NaN"
