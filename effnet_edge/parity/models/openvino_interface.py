"""What an OpenVINO model tells of its input and of its output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effnet_edge.errors import told_as_one_line
from effnet_edge.parity.models.ending import Ending, WayOut
from effnet_edge.parity.models.entrance import Entrance, Port, Rescaling, WayIn, only_input
from effnet_edge.runtime.openvino_constants import constant_of

if TYPE_CHECKING:
    from effnet_edge.parity.models.reading import Layout, Reading

_CHANNELS_LAST_TO_FIRST = [0, 3, 1, 2]
_NUMPY_TYPES = {"u8": "uint8", "f16": "float16", "f32": "float32", "f64": "float64"}
_SAME_NUMBERS = frozenset({"Convert", "FakeQuantize", "Identity"})
_PASSED_IN = _SAME_NUMBERS | {"Gather", "Interpolate", "Pad", "Slice", "StridedSlice"}
_PASSED_OUT = _SAME_NUMBERS | {"Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_RESCALING = {"Add": "Add", "Subtract": "Sub", "Multiply": "Mul", "Divide": "Div"}
_CONVOLUTIONS = frozenset({"Convolution", "GroupConvolution"})
_ENDINGS: dict[str, Ending] = {
    "Softmax": "softmax",
    "SoftMax": "softmax",
    "LogSoftmax": "log-softmax",
    "Sigmoid": "sigmoid",
}
_CHANNELS_AT: dict[int, Layout] = {1: "nchw", 3: "nhwc"}


def entrance_of_openvino(model: Any, name: str, reading: Reading) -> Entrance:
    """How pictures go in; raises as `Entrance.of`, and BackendError where it has no one input."""
    only_input([_name(each) for each in model.inputs], name)
    port = model.input(0)
    element = port.get_element_type().get_type_name()
    with told_as_one_line(name, "its graph cannot be followed"):
        described = Port(
            _name(port),
            _NUMPY_TYPES.get(element, element),
            _sizes(port),
            _layout(port),
            _way_in(port),
        )
    return Entrance.of(described, name, reading)


def output_names(model: Any) -> list[str]:
    """A name of each output."""
    return [_name(port) for port in model.outputs]


def way_out_of_openvino(model: Any) -> tuple[WayOut, Any]:
    """What comes out at the first output, and the port with the logits."""
    output, result = _name(model.output(0)), model.output(0).get_node().input_value(0)
    port = result
    while port.get_node().get_type_name() in _PASSED_OUT:
        port = port.get_node().input_value(0)
    operation = port.get_node().get_type_name()
    if operation in _ENDINGS:
        return WayOut(output, _ENDINGS[operation], output), port.get_node().input_value(0)
    if operation == "Log":
        before = port.get_node().input_value(0).get_node()
        if _ENDINGS.get(before.get_type_name()) == "softmax":
            return WayOut(output, "log-softmax", output), before.input_value(0)
    return WayOut(output, None, output), result


def _name(port: Any) -> str:
    names = sorted(port.get_names())
    return str(names[0]) if names else str(port.get_node().get_friendly_name())


def _sizes(port: Any) -> tuple[int | None, ...]:
    shape = port.get_partial_shape()
    if not shape.rank.is_static:
        return ()
    return tuple(int(size.get_length()) if size.is_static else None for size in shape)


def _layout(port: Any) -> Layout | None:
    from openvino import layout_helpers

    layout = port.get_node().get_layout()
    if layout.empty or not layout_helpers.has_channels(layout):
        return None
    return _CHANNELS_AT.get(layout_helpers.channels_idx(layout))


def _way_in(port: Any) -> WayIn:
    """Follow the input to the first convolution, as far as there is one way."""
    rescaling, last = Rescaling(), False
    while len(readers := _computing_readers(port)) == 1:
        (reader,) = readers
        node, operation = reader.get_node(), reader.get_node().get_type_name()
        if operation in _CONVOLUTIONS:
            return rescaling.way("nhwc" if last else "nchw", _channels(node))
        if operation == "Transpose":
            order = constant_of(node.input_value(1))
            if last or order is None or order.tolist() != _CHANNELS_LAST_TO_FIRST:
                break
            last = True
        elif operation not in _PASSED_IN and not _rescales(reader, rescaling):
            break
        port = node.output(0)
    return rescaling.way()


def _computing_readers(port: Any) -> list[Any]:
    readers = port.get_target_inputs()
    return [each for each in readers if each.get_node().get_type_name() != "ShapeOf"]


def _rescales(reader: Any, rescaling: Rescaling) -> bool:
    node, index = reader.get_node(), reader.get_index()
    operation = _RESCALING.get(node.get_type_name())
    constant = constant_of(node.input_value(1 - index)) if operation else None
    return (
        operation is not None
        and constant is not None
        and rescaling.step(operation, constant, constant_first=index == 1)
    )


def _channels(convolution: Any) -> int | None:
    shape = convolution.input_value(1).get_partial_shape()
    if not shape.is_static:
        return None
    sizes = [int(size.get_length()) for size in shape]
    if convolution.get_type_name() == "GroupConvolution":  # groups, output, input, rows, columns
        return sizes[0] * sizes[2]
    return sizes[1]
