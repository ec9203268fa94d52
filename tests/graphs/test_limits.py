"""A graph that would run for ever or fill the memory is refused before anything runs it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_bundles import tiny_model

from effnet_edge.errors import BackendError
from effnet_edge.graphs.files import load_onnx

if TYPE_CHECKING:
    from pathlib import Path

LOGITS = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
PIXELS = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3])


def saved(folder: Path, nodes: list[onnx.NodeProto], **constants: object) -> Path:
    tensors = [numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items()]
    graph = helper.make_graph(nodes, "greedy", [PIXELS], [LOGITS], tensors)
    path = folder / "greedy.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def endless() -> onnx.NodeProto:
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    step = helper.make_tensor_value_info("step", TensorProto.INT64, [])
    again = helper.make_tensor_value_info("again", TensorProto.BOOL, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["flag"], ["again"])], "body", [step, flag], [again]
    )
    return helper.make_node("Loop", ["", "true"], [], name="for ever", body=body)


@pytest.mark.parametrize("hidden", [False, True])
def test_loops_are_refused_wherever_they_are(tmp_path: Path, hidden: bool) -> None:
    node = endless()
    if hidden:
        branch = helper.make_graph([node], "branch", [], [])
        node = helper.make_node("If", ["true"], [], then_branch=branch, else_branch=branch)
    end = helper.make_node("Identity", ["pixels"], ["logits"])
    path = saved(tmp_path, [node, end], true=np.array(True))
    with pytest.raises(BackendError, match=r"greedy\.onnx: the node 'for ever' is a loop"):
        load_onnx(path)


def test_a_constant_beyond_the_memory_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("ConstantOfShape", ["size"], ["logits"])
    with pytest.raises(BackendError, match=r"greedy\.onnx: the tensor 'logits' has 37\.3 GiB"):
        load_onnx(saved(tmp_path, [node], size=np.array([10**10])))


def test_a_tensor_that_doubles_at_every_node_is_refused(tmp_path: Path) -> None:
    names = ["pixels", *(f"x{index}" for index in range(39)), "logits"]
    nodes = [
        helper.make_node("Concat", [before, before], [after], axis=0)
        for before, after in itertools.pairwise(names)
    ]
    with pytest.raises(BackendError, match="GiB, more than the 2 GiB that one may have"):
        load_onnx(saved(tmp_path, nodes))


def test_an_honest_model_is_as_it_was(tmp_path: Path) -> None:
    onnx.save(tiny_model(batch="N"), tmp_path / "tiny.onnx")
    assert load_onnx(tmp_path / "tiny.onnx") == tiny_model(batch="N")
