"""Element types are those that onnx infers, found without a copy of the weights."""

from __future__ import annotations

import onnx
import pytest
from exported_b0 import exported_b0
from onnx import TensorProto

from effnet_edge.graphs.editing import copied
from effnet_edge.graphs.types import element_types, without_weights
from effnet_export.fp16_graph import write_types


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return exported_b0(tmp_path_factory)


def inferred_from_the_whole(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    constants = {constant.name: constant.data_type for constant in graph.initializer}
    return {value.name: value.type.tensor_type.elem_type for value in values} | constants


@pytest.mark.slow
def test_the_types_of_a_network_are_those_that_onnx_infers_from_all_of_it(
    exported: onnx.ModelProto,
) -> None:
    kept = {node.name for node in exported.graph.node if node.name.startswith("stages.3.")}
    typed = write_types(exported, kept)
    for model in (exported, typed):
        bare = copied(model)
        del bare.graph.value_info[:]

        found = element_types(bare)

        assert found == inferred_from_the_whole(bare)
        assert len(found) > 300
    assert {TensorProto.FLOAT, TensorProto.FLOAT16} <= set(element_types(typed).values())


def test_the_weights_are_left_out(exported: onnx.ModelProto) -> None:
    assert without_weights(exported).ByteSize() < exported.ByteSize() / 20
