"""Edits of graphs, judged by the ONNX reference implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tiny_bundles import SIDE, tiny_model

from effnet_edge.graphs.editing import (
    copied,
    opened,
    rename_tensors,
    replace_nodes,
    without_initializers,
)
from effnet_edge.graphs.tensors import constants, dequantized, set_value, value

if TYPE_CHECKING:
    import onnx

PIXELS = np.random.default_rng(5).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)


def answer(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    return ReferenceEvaluator(model).run(None, {"pixels": PIXELS, **inputs})


def test_a_copy_is_changed_alone() -> None:
    model = tiny_model()
    before = model.SerializeToString()
    copy = copied(model)

    set_value(copy.graph, "kernel", value(copy.graph, "kernel") * 2)
    replace_nodes(copy.graph, list(copy.graph.node)[:3])

    assert model.SerializeToString() == before
    assert len(copy.graph.node) == 3


def test_what_is_copied_without_initializers_is_all_the_rest() -> None:
    model = tiny_model()
    model.doc_string = "a note"
    model.metadata_props.add(key="author", value="somebody")
    expected = copied(model)
    del expected.graph.initializer[:]

    assert without_initializers(model) == expected
    assert model.graph.initializer


def test_renamed_tensors_compute_the_same() -> None:
    model = tiny_model()
    renamed = copied(model)

    rename_tensors(renamed.graph, {"kernel": "weight", "relu": "activated"})

    names = {name for node in renamed.graph.node for name in (*node.input, *node.output)}
    assert {"weight", "activated"} <= names
    assert not {"kernel", "relu"} & names
    np.testing.assert_array_equal(answer(renamed)[0], answer(model)[0])


def test_an_opened_model_gives_inner_tensors_from_given_ones() -> None:
    model = tiny_model()
    conv, relu = answer(opened(model, ["conv", "relu"], {}))
    np.testing.assert_array_equal(np.maximum(conv, 0), relu)

    found = answer(opened(model, ["relu"], {"conv": "mine"}), mine=-conv)

    np.testing.assert_array_equal(found[0], np.maximum(-conv, 0))


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("zero_point", [False, True])
def test_a_dequantized_constant_is_what_its_node_gives(axis: int | None, zero_point: bool) -> None:
    random = np.random.default_rng(2)
    shape = () if axis is None else (3 + axis,)
    known: dict[str, np.ndarray] = {
        "integers": random.integers(-128, 128, (3, 4, 2), np.int8),
        "scale": random.uniform(0.1, 2, shape).astype(np.float32),
        "zero": random.integers(-9, 9, shape, np.int8),
    }
    names = [*known][: 3 if zero_point else 2]
    attributes = {} if axis is None else {"axis": axis}
    node = helper.make_node("DequantizeLinear", names, ["real"], **attributes)

    found = dequantized(node, known)

    model = helper.make_model(
        helper.make_graph(
            [node],
            "one",
            [],
            [helper.make_tensor_value_info("real", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.asarray(known[name]), name) for name in names],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
    )
    assert found is not None
    np.testing.assert_array_equal(found, ReferenceEvaluator(model).run(None, {})[0])
    assert dequantized(node, {"scale": known["scale"]}) is None


def test_values_of_constant_nodes_are_constants_too() -> None:
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [2], [1.0, 2.0])
    model = tiny_model()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["two"], value=tensor))

    assert constants(model.graph)["two"].tolist() == [1.0, 2.0]
