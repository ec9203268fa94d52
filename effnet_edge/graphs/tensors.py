"""Reads and makes the constant tensors of an ONNX graph as NumPy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray


def initializers(graph: onnx.GraphProto) -> dict[str, NDArray[np.generic]]:
    """The values of all initializers by name; read-only."""
    from onnx import numpy_helper

    return {each.name: numpy_helper.to_array(each) for each in graph.initializer}


def constants(graph: onnx.GraphProto) -> dict[str, NDArray[np.generic]]:
    """The values of all initializers and of the tensors of Constant nodes, by name; read-only."""
    from onnx import numpy_helper

    made = {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    return initializers(graph) | made


def value(graph: onnx.GraphProto, name: str) -> NDArray[np.generic]:
    """A copy of one initializer's value; KeyError where there is none of this name."""
    from onnx import numpy_helper

    return numpy_helper.to_array(_initializer(graph, name)).copy()


def set_value(graph: onnx.GraphProto, name: str, new: NDArray[np.generic]) -> None:
    """Replace an initializer's value, its type and shape too; KeyError where there is none."""
    from onnx import numpy_helper

    tensor = numpy_helper.from_array(np.asarray(new, order="C"), name)
    _initializer(graph, name).CopyFrom(tensor)


def add_constant(graph: onnx.GraphProto, name: str, new: NDArray[np.generic]) -> None:
    """Append an initializer of the array's type and shape."""
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.asarray(new, order="C"), name))


def dequantized(
    node: onnx.NodeProto, known: Mapping[str, NDArray[np.generic]]
) -> NDArray[np.float32] | None:
    """What a DequantizeLinear gives, float32; None unless all that it reads is in `known`."""
    values = [known[name].astype(np.float32) for name in node.input if name and name in known]
    if len(values) != sum(1 for name in node.input if name):
        return None
    integers, scale, *zero_point = values
    axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
    shape = [1] * integers.ndim
    if scale.size > 1:
        shape[axis] = -1
    zero = zero_point[0].reshape(shape) if zero_point else np.float32(0)
    real: NDArray[np.float32] = (integers - zero) * scale.reshape(shape)
    return real


def _initializer(graph: onnx.GraphProto, name: str) -> onnx.TensorProto:
    found: dict[str, onnx.TensorProto] = {each.name: each for each in graph.initializer}
    return found[name]
