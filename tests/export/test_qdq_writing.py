"""What Q/DQ pairs and integer weights make of a graph of a stem and two layers that read it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper

from effnet_calibration.path import STEM
from effnet_calibration.pixel_stem import PixelStem
from effnet_calibration.quantization import PixelNormalization
from effnet_calibration.schemes import (
    ASYMMETRIC_INT8_OUTPUTS,
    ASYMMETRIC_UINT8,
    QuantizationScheme,
    TensorQuantization,
)
from effnet_edge.graphs.sessions import Session
from effnet_export.qdq import quantize_graph

CHANNELS, SIDE = 3, 4
GRID = TensorQuantization(0.05, 100, 0, 255)
OTHER_GRID = TensorQuantization(0.1, 100, 0, 255)
NORMALIZATION = PixelNormalization((0.5, 0.4, 0.3), (0.25, 0.2, 0.5))


STEPS = np.array([[127, -64, 3], [10, 127, -90], [-127, 5, 77]])
# Divided by the deviation it is a number of steps: nothing is lost when it is rounded.
STEM_WEIGHT = (STEPS / 127 * NORMALIZATION.std).astype(np.float32)[..., None, None]


def graph() -> onnx.ModelProto:
    """Pixels less their mean, over their deviation, to the stem, and to both `a` and `b`."""
    mean, std = (
        (255 * np.array(each, np.float32)).reshape(1, CHANNELS, 1, 1)
        for each in (NORMALIZATION.mean, NORMALIZATION.std)
    )
    constants = {"mean": mean, "std": std}
    for name in (STEM, "a", "b"):
        constants[f"{name}.weight"] = STEM_WEIGHT
        constants[f"{name}.bias"] = np.arange(CHANNELS, dtype=np.float32)
    nodes = [
        helper.make_node(
            "Transpose", ["image"], ["preprocess/t"], "preprocess/t", perm=[0, 3, 1, 2]
        ),
        helper.make_node("Cast", ["preprocess/t"], ["preprocess/c"], "preprocess/c", to=1),
        helper.make_node("Sub", ["preprocess/c", "mean"], ["preprocess/s"], "preprocess/s"),
        helper.make_node("Div", ["preprocess/s", "std"], ["preprocess"], "preprocess"),
        helper.make_node("Conv", ["preprocess", f"{STEM}.weight", f"{STEM}.bias"], [STEM], STEM),
        helper.make_node("Conv", [STEM, "a.weight", "a.bias"], ["a"], "a"),
        helper.make_node("Conv", [STEM, "b.weight", "b.bias"], ["b"], "b"),
        helper.make_node("Add", ["a", "b"], ["logits"], "logits"),
    ]
    shape = [1, CHANNELS, SIDE, SIDE]
    made = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIDE, SIDE, CHANNELS])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def stem(scheme: QuantizationScheme) -> PixelStem:
    conv = SimpleNamespace(weight=torch.from_numpy(STEM_WEIGHT))
    network: Any = SimpleNamespace(stem=SimpleNamespace(conv=conv))
    return PixelStem.of(network, NORMALIZATION, scheme)


def quantized(scheme: QuantizationScheme = ASYMMETRIC_UINT8, **changes: Any) -> Any:
    own = {"weights": {}, "inputs": {}, "outputs": {}, "pixel_stem": None}
    return SimpleNamespace(scheme=scheme, **own | changes)


def answers(model: onnx.ModelProto) -> np.ndarray:
    image = np.random.default_rng(9).integers(0, 256, (1, SIDE, SIDE, CHANNELS), np.uint8)
    session = Session(model.SerializeToString(), "layers", optimized=False)
    return np.asarray(session.run({"image": image})[0])


@pytest.mark.parametrize(
    "scheme", [ASYMMETRIC_UINT8, ASYMMETRIC_INT8_OUTPUTS], ids=lambda each: each.name
)
def test_a_stem_that_reads_pixels_gives_what_it_gave(scheme: QuantizationScheme) -> None:
    made = quantize_graph(graph(), quantized(scheme, pixel_stem=stem(scheme)))
    assert_allclose(answers(made), answers(graph()), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("grid", "pairs"), [(GRID, 1), (OTHER_GRID, 2)])
def test_readers_of_one_tensor_on_one_grid_share_its_pair(
    grid: TensorQuantization, pairs: int
) -> None:
    made = quantize_graph(graph(), quantized(inputs={"a": GRID, "b": grid}))
    operations = [node.op_type for node in made.graph.node]
    assert operations.count("QuantizeLinear") == operations.count("DequantizeLinear") == pairs
