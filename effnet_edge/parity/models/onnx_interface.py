"""What an ONNX graph tells of its input and of its output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.errors import told_as_one_line
from effnet_edge.graphs.editing import copied
from effnet_edge.parity.models.ending import Ending, WayOut
from effnet_edge.parity.models.entrance import Entrance, Port, Rescaling, WayIn, only_input

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from effnet_edge.parity.models.reading import Layout, Reading

_NOT_FOLLOWED = "its graph cannot be followed"
_CHANNELS_LAST_TO_FIRST = [0, 3, 1, 2]
_SAME_NUMBERS = frozenset({"Cast", "DequantizeLinear", "Identity", "QuantizeLinear"})
_PASSED_IN = _SAME_NUMBERS | {"Gather", "Pad", "Resize", "Slice"}
_PASSED_OUT = _SAME_NUMBERS | {"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_ENDINGS: dict[str, Ending] = {
    "Softmax": "softmax",
    "LogSoftmax": "log-softmax",
    "Sigmoid": "sigmoid",
}
# Of ONNX Runtime's quantizer; what they are given are integers.
_QUANTIZED_ENDINGS: dict[str, Ending] = {"QLinearSoftmax": "softmax", "QLinearSigmoid": "sigmoid"}
_CHANNELS_OF: dict[str, Layout] = {"1": "nchw", "3": "nhwc"}


def entrance_of_onnx(model: onnx.ModelProto, name: str, reading: Reading) -> Entrance:
    """How pictures go in; raises as `Entrance.of`, and BackendError where it has no one input."""
    constants = {each.name for each in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    only_input([each.name for each in inputs], name)
    with told_as_one_line(name, _NOT_FOLLOWED):
        port = _port(inputs[0], _Graph(model.graph).way_in(inputs[0].name))
    return Entrance.of(port, name, reading)


def with_chosen_output(model: onnx.ModelProto, name: str, reading: Reading) -> onnx.ModelProto:
    """The model with the one output that is compared; raises as `Reading.choose_output`."""
    outputs = model.graph.output
    index = reading.choose_output([each.name for each in outputs], name)
    if len(outputs) == 1:
        return model
    chosen = copied(model)
    del chosen.graph.output[:]
    chosen.graph.output.append(outputs[index])
    return chosen


def way_out_of_onnx(model: onnx.ModelProto, name: str) -> WayOut:
    """What comes out at the first output; raises BackendError where the graph is none."""
    with told_as_one_line(name, _NOT_FOLLOWED):
        return _Graph(model.graph).way_out(model.graph.output[0].name)


def batch_limits(model: onnx.ModelProto, input_name: str) -> tuple[int, int | None]:
    """The fewest and the most images of a call; None for any number."""
    value = next(each for each in model.graph.input if each.name == input_name)
    size = value.type.tensor_type.shape.dim[0].dim_value
    return (size, size) if size > 0 else (1, None)


def _port(value: onnx.ValueInfoProto, way: WayIn) -> Port:
    dimensions = value.type.tensor_type.shape.dim
    sizes = [each.dim_value if each.dim_value > 0 else None for each in dimensions]
    marked = [str(i) for i, each in enumerate(dimensions) if each.denotation == "DATA_CHANNEL"]
    layout = _CHANNELS_OF.get(marked[0]) if marked else None
    dtype = _numpy_name(value.type.tensor_type.elem_type)
    return Port(value.name, dtype, tuple(sizes), layout, way)


def _numpy_name(element: int) -> str:
    from onnx import TensorProto, helper

    try:
        return str(helper.tensor_dtype_to_np_dtype(element).name)
    except (KeyError, ValueError):  # a type that NumPy has not
        return str(TensorProto.DataType.Name(element)).lower()


class _Graph:
    """Nodes by what they read and by what they make."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        # A graph that is none may go round in circles.
        self._most_steps = len(graph.node)
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._makers = {name: node for node in graph.node for name in node.output if name}
        self._initializers = {each.name: each for each in graph.initializer}

    def way_in(self, tensor: str) -> WayIn:
        """Follow the input to the first convolution, as far as there is one way."""
        rescaling, last = Rescaling(), False
        for _ in range(self._most_steps):
            nodes = self._computing_readers(tensor)
            if len(nodes) != 1:
                break
            (node,) = nodes
            if node.op_type == "Conv":
                return rescaling.way("nhwc" if last else "nchw", self._channels(node))
            if node.op_type == "Transpose":
                if last or _permutation(node) != _CHANNELS_LAST_TO_FIRST:
                    break
                last = True
            elif node.op_type not in _PASSED_IN and not self._rescales(node, tensor, rescaling):
                break
            tensor = node.output[0]
        return rescaling.way()

    def way_out(self, output: str) -> WayOut:
        """Go back from an output to what made its numbers."""
        tensor, node = output, self._makers.get(output)
        for _ in range(self._most_steps):
            if node is None or node.op_type not in _PASSED_OUT:
                break
            tensor = node.input[0]
            node = self._makers.get(tensor)
        if node is None:
            return WayOut(output, None, output)
        if node.op_type in _ENDINGS:
            return WayOut(output, _ENDINGS[node.op_type], node.input[0])
        if node.op_type in _QUANTIZED_ENDINGS:
            return WayOut(output, _QUANTIZED_ENDINGS[node.op_type], output)
        before = self._makers.get(node.input[0]) if node.input else None
        if node.op_type == "Log" and before is not None and before.op_type == "Softmax":
            return WayOut(output, "log-softmax", before.input[0])
        if node.op_type == "Div" and before is not None and before.op_type == "Exp":
            divisor = self._makers.get(node.input[1])
            if divisor is not None and divisor.op_type == "ReduceSum":
                return WayOut(output, "softmax", self._unshifted(before.input[0]))
        return WayOut(output, None, output)

    def _computing_readers(self, tensor: str) -> list[onnx.NodeProto]:
        return [node for node in self._readers.get(tensor, []) if node.op_type != "Shape"]

    def _channels(self, convolution: onnx.NodeProto) -> int | None:
        weight = convolution.input[1]
        for _ in range(self._most_steps):
            maker = self._makers.get(weight)
            if weight in self._initializers or maker is None or not maker.input:
                break
            weight = maker.input[0]
        if weight not in self._initializers:
            return None
        groups = next((each.i for each in convolution.attribute if each.name == "group"), 1)
        return int(self._initializers[weight].dims[1]) * groups

    def _rescales(self, node: onnx.NodeProto, tensor: str, rescaling: Rescaling) -> bool:
        if len(node.input) != 2:
            return False
        index = list(node.input).index(tensor)
        constant = self._constant(node.input[1 - index])
        return constant is not None and rescaling.step(
            node.op_type, constant, constant_first=index == 1
        )

    def _constant(self, name: str) -> NDArray[np.generic] | None:
        from onnx import numpy_helper

        node = self._makers.get(name)
        if node is not None and node.op_type in ("Cast", "Identity"):
            name = node.input[0]
            node = self._makers.get(name)
        if name in self._initializers:
            return numpy_helper.to_array(self._initializers[name])
        if node is not None and node.op_type == "Constant" and node.attribute[0].name == "value":
            return numpy_helper.to_array(node.attribute[0].t)
        return None

    def _unshifted(self, tensor: str) -> str:
        """What a softmax in single steps subtracts its maximum from."""
        node = self._makers.get(tensor)
        return str(node.input[0]) if node is not None and node.op_type == "Sub" else tensor


def _permutation(node: onnx.NodeProto) -> list[int]:
    return next((list(each.ints) for each in node.attribute if each.name == "perm"), [])
