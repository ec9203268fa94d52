"""How each ONNX operator of an EfficientNet is said in LiteRT's: one rule an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_export.litert.conversion import (
    TO_CHANNELS_FIRST,
    Conversion,
    Laid,
    attribute,
    unknown,
)
from effnet_export.litert.graph import HYBRID_VERSIONS, Grid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx
    from numpy.typing import NDArray

    from effnet_export.litert.graph import Tensor

    Rule = Callable[[Conversion, onnx.NodeProto], None]

_SAME, _VALID = 0, 1  # of the schema's enum Padding
_UINT8_TO_INT8 = 128
_FEWEST_CHANNELS = 8  # that XNNPACK's kernels for integers take at once, of one tap
_PLACE_OF_AXIS = (0, 3, 1, 2)  # of ONNX's axes N, C, H, W in N, H, W, C


def convert_node(conversion: Conversion, node: onnx.NodeProto) -> None:
    """Append what the node does.

    Raises:
        BackendError: there is no rule for it, or not for all that it does.
    """
    saturates = node.output[0] in conversion.integers.saturating
    rule = _identity if saturates else _RULES.get(node.op_type)
    if rule is None:
        raise unknown(node, "no EfficientNet has this operator")
    conversion.begin(node)
    rule(conversion, node)


def _transpose(conversion: Conversion, node: onnx.NodeProto) -> None:
    laid = conversion.laid(node.input[0])
    if tuple(attribute(node, "perm", ())) != TO_CHANNELS_FIRST or laid.channels_last:
        raise unknown(node, "it is not the one of pixels to channels first")
    conversion.same(node, Laid(laid.tensor, channels_last=True))


def _identity(conversion: Conversion, node: onnx.NodeProto) -> None:
    conversion.same(node, conversion.stored(node.input[0]))


def _quantize(conversion: Conversion, node: onnx.NodeProto) -> None:
    """Round what was computed in floating point; what was in integers is on the grid already."""
    laid, grid = conversion.stored(node.input[0]), conversion.integers.grid(node)
    if grid is None:
        raise unknown(node, "it is not the one of a tensor to int8")
    if laid.tensor.dtype == "int8":
        conversion.same(node, laid)
    else:
        conversion.quantize(node, laid, grid)


def _dequantize(conversion: Conversion, node: onnx.NodeProto) -> None:
    """Nothing yet: who reads it takes the integers if it can. Pixels become int8 ones."""
    if conversion.is_constant(node.input[0]):
        return
    laid = conversion.stored(node.input[0])
    if laid.tensor.dtype == "int8":
        conversion.same(node, laid)
        return
    scale, zero = (conversion.constant(node, place) for place in (1, 2))
    if laid.tensor.dtype != "uint8" or scale is None or zero is None or scale.size != 1:
        raise unknown(node, "it is none of pixels")
    conversion.graph.put_on_grid(laid.tensor, Grid((float(scale),), int(zero)))
    # Not by one QUANTIZE from uint8 to int8, which XNNPACK leaves to a loop: 2 % of B0's time.
    grid = Grid((float(scale),), int(zero) - _UINT8_TO_INT8)
    conversion.quantize(node, conversion.dequantized(laid, node.output[0]), grid)


def _cast(conversion: Conversion, node: onnx.NodeProto) -> None:
    if attribute(node, "to") != 1:
        raise unknown(node, "it is none to float32")
    _elementwise(conversion, node, "CAST")


def _elementwise(conversion: Conversion, node: onnx.NodeProto, kind: str) -> None:
    laid = conversion.laid(node.input[0])
    shape, last = laid.tensor.shape, laid.channels_last
    conversion.append(node, kind, [laid.tensor], shape, channels_last=last)


def _like_input(kind: str) -> Rule:
    return lambda conversion, node: _elementwise(conversion, node, kind)


def _clip(conversion: Conversion, node: onnx.NodeProto) -> None:
    ends = [conversion.constant(node, place) for place in (1, 2)]
    if [None if end is None else end.item() for end in ends] != [0, 6]:
        raise unknown(node, "it does not clip to 0 … 6")
    _elementwise(conversion, node, "RELU6")


def _of_two(kind: str, options: str) -> Rule:
    def rule(conversion: Conversion, node: onnx.NodeProto) -> None:
        values = [name for name in node.input if not conversion.is_constant(name)]
        last = any(conversion.laid(name).channels_last for name in values)
        inputs = [conversion.operand(node, place, channels_last=last) for place in (0, 1)]
        shape = np.broadcast_shapes(*(each.shape for each in inputs))
        conversion.append(node, kind, inputs, shape, options, channels_last=last)

    return rule


def _reduction(kind: str) -> Rule:
    def rule(conversion: Conversion, node: onnx.NodeProto) -> None:
        laid = conversion.laid(node.input[0])
        shape, keep = laid.tensor.shape, bool(attribute(node, "keepdims", 1))
        axes = conversion.constant(node, 1)
        told = attribute(node, "axes", ()) if axes is None else axes.tolist()
        reduced = sorted(axis % len(shape) for axis in told)
        if laid.channels_last and reduced != [2, 3]:
            raise unknown(node, f"it reduces the axes {told}")
        if laid.channels_last:
            reduced = [_PLACE_OF_AXIS[axis] for axis in reduced]
        _reduce(conversion, node, kind, reduced, keep=keep)

    return rule


def _global_pool(kind: str) -> Rule:
    def rule(conversion: Conversion, node: onnx.NodeProto) -> None:
        conversion.channels_last(node)
        _reduce(conversion, node, kind, [1, 2], keep=True)

    return rule


def _reduce(
    conversion: Conversion, node: onnx.NodeProto, kind: str, axes: list[int], *, keep: bool
) -> None:
    laid = conversion.laid(node.input[0])
    sides = enumerate(laid.tensor.shape)
    shape = [1 if axis in axes else side for axis, side in sides if keep or axis not in axes]
    given = conversion.graph.constant(f"{node.output[0]}/axes", np.asarray(axes, np.int32))
    conversion.append(
        node,
        kind,
        [laid.tensor, given],
        shape,
        "ReducerOptions",
        channels_last=laid.channels_last and keep,
        keepDims=keep,
    )


def _convolution(conversion: Conversion, node: onnx.NodeProto) -> None:
    image, weight = conversion.channels_last(node), _weight(conversion, node)
    if weight is None or weight.ndim != 4 or max(attribute(node, "dilations", [1, 1])) > 1:
        raise unknown(node, "its weights are computed, dilated, or of other than 4 dimensions")
    outputs, per_group, *taps = weight.shape
    groups, strides = attribute(node, "group", 1), attribute(node, "strides", [1, 1])
    if groups not in (1, image.shape[3]) or (groups > 1 and per_group > 1):
        raise unknown(node, f"it has {groups} groups of {per_group} channels")
    same, image = _padded(conversion, node, image, taps, strides)
    depthwise = groups > 1
    if conversion.in_integers and not depthwise and _reads_few_channels(image, weight, strides):
        image, weight = _in_pairs(conversion, node, image, weight)
        taps, strides = list(weight.shape[2:]), [strides[0], 1]
    sides = [
        -(-side // stride) if same else (side - tap) // stride + 1
        for side, tap, stride in zip(image.shape[1:3], taps, strides, strict=True)
    ]
    order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    options = {"depthMultiplier": outputs // groups} if depthwise else {}
    kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    parameters = _parameters(conversion, node, image, weight.transpose(order), order.index(0))
    conversion.append(
        node,
        kind,
        [image, *parameters],
        (image.shape[0], *sides, outputs),
        "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions",
        channels_last=True,
        version=_version(kind, image, parameters),
        padding=_SAME if same else _VALID,
        strideH=strides[0],
        strideW=strides[1],
        **options,
    )


def _padded(
    conversion: Conversion,
    node: onnx.NodeProto,
    image: Tensor,
    taps: Sequence[int],
    strides: Sequence[int],
) -> tuple[bool, Tensor]:
    """Whether LiteRT's own padding does, and what else the convolution reads."""
    pads = list(attribute(node, "pads", [0, 0, 0, 0]))
    if attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"", b"VALID"):
        raise unknown(node, "its padding is not told in pixels")
    if not any(pads):
        return False, image
    missing = [
        max((-(-side // stride) - 1) * stride + tap - side, 0)
        for side, tap, stride in zip(image.shape[1:3], taps, strides, strict=True)
    ]
    before = [each // 2 for each in missing]
    if pads == before + [each - first for each, first in zip(missing, before, strict=True)]:
        return True, image
    rows, columns = (pads[0], pads[2]), (pads[1], pads[3])
    amounts = np.asarray([(0, 0), rows, columns, (0, 0)], np.int32)
    name = f"{node.output[0]}/Pad"
    shape = [side + sum(pair) for side, pair in zip(image.shape, amounts.tolist(), strict=True)]
    output = conversion.graph.value(name, shape, image.dtype, conversion.graph.grid_of(image))
    told = conversion.graph.constant(f"{name}/pads", amounts)
    return False, conversion.graph.operator("PAD", [image, told], output, "PadOptions")


def _reads_few_channels(image: Tensor, weight: NDArray[Any], strides: Sequence[int]) -> bool:
    """Whether a kernel for 8 channels at once would be idle for the most part."""
    few = 2 * image.shape[3] <= _FEWEST_CHANNELS
    return few and strides[1] == 2 and weight.shape[3] == 3 and image.shape[2] % 2 == 0


def _in_pairs(
    conversion: Conversion, node: onnx.NodeProto, image: Tensor, weight: NDArray[Any]
) -> tuple[Tensor, NDArray[Any]]:
    """Two neighbouring columns as one of twice the channels: the same bytes in memory.

    Three columns in steps of two then are two in steps of one, the fourth with weights of 0.

    Returns:
        The image and the weights.
    """
    rows, columns, channels = image.shape[1:]
    grid, shape = conversion.graph.grid_of(image), (rows, columns // 2, 2 * channels)
    told = np.asarray((-1, *shape), np.int32)
    name = f"{node.output[0]}/pairs"
    pairs = conversion.graph.operator(
        "RESHAPE",
        [image, conversion.graph.constant(f"{name}/shape", told)],
        conversion.graph.value(name, (image.shape[0], *shape), image.dtype, grid),
        "ReshapeOptions",
        newShape=told.tolist(),
    )
    wide = np.pad(weight, ((0, 0), (0, 0), (0, 0), (0, 1)))
    outputs, _, taps, _ = wide.shape
    split = wide.reshape(outputs, channels, taps, 2, 2).transpose(0, 4, 1, 2, 3)
    return pairs, split.reshape(outputs, 2 * channels, taps, 2)


def _weight(conversion: Conversion, node: onnx.NodeProto) -> NDArray[Any] | None:
    """Of a convolution or a dense layer, in integers where it has them and a kernel takes them."""
    integers = conversion.integers.weight(node.input[1])
    if integers is None:
        return conversion.constant(node, 1)
    values, scales = integers
    if conversion.in_integers or attribute(node, "group", 1) == 1:
        return values
    return values * scales.reshape(-1, *[1] * (values.ndim - 1))


def _parameters(
    conversion: Conversion,
    node: onnx.NodeProto,
    image: Tensor,
    weight: NDArray[Any],
    axis: int,
) -> list[Tensor]:
    """Weights and bias, in LiteRT's order; `axis` is that of the outputs in the weights."""
    outputs = weight.shape[axis]
    name, bias = _bias(conversion, node, outputs)
    graph, found = conversion.graph, conversion.integers.weight(node.input[1])
    if found is None or weight.dtype != np.int8:
        return [conversion.weight(node.input[1], weight), graph.constant(name, bias)]
    scales = found[1].astype(np.float64)
    integers = graph.constant(node.input[1], weight, Grid(tuple(scales.tolist()), 0, axis))
    if not conversion.in_integers:
        return [integers, graph.constant(name, bias)]
    grid = graph.grid_of(image)
    assert grid is not None
    steps = scales * grid.scales[0]
    limit = np.iinfo(np.int32)
    rounded = np.rint(bias / steps).clip(limit.min, limit.max).astype(np.int32)
    return [integers, graph.constant(name, rounded, Grid(tuple(steps.tolist())))]


def _version(kind: str, values: Tensor, parameters: Sequence[Tensor]) -> int | None:
    """Of the operator, where its values and its weights are of two types; None for the usual."""
    hybrid = (values.dtype, parameters[0].dtype) == ("float32", "int8")
    return HYBRID_VERSIONS[kind] if hybrid else None


def _bias(
    conversion: Conversion, node: onnx.NodeProto, outputs: int
) -> tuple[str, NDArray[np.float32]]:
    bias = conversion.constant(node, 2)
    if bias is None:
        if len(node.input) > 2:
            raise unknown(node, "its bias is computed")
        return f"{node.output[0]}/bias", np.zeros(outputs, np.float32)
    return node.input[2], bias.reshape(outputs)


def _gemm(conversion: Conversion, node: onnx.NodeProto) -> None:
    factors = (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0))
    if factors != (1.0, 1.0) or attribute(node, "transA", 0):
        raise unknown(node, "it multiplies by more than its weights")
    _dense(conversion, node, transposed=bool(attribute(node, "transB", 0)))


def _matrix_product(conversion: Conversion, node: onnx.NodeProto) -> None:
    _dense(conversion, node, transposed=False)


def _dense(conversion: Conversion, node: onnx.NodeProto, *, transposed: bool) -> None:
    laid, weight = conversion.laid(node.input[0]), _weight(conversion, node)
    if weight is None or weight.ndim != 2 or len(laid.tensor.shape) != 2:
        raise unknown(node, "it is no dense layer")
    rows: NDArray[Any] = weight if transposed else weight.T
    parameters = _parameters(conversion, node, laid.tensor, rows, 0)
    shape = (laid.tensor.shape[0], len(rows))
    version = _version("FULLY_CONNECTED", laid.tensor, parameters)
    conversion.append(
        node,
        "FULLY_CONNECTED",
        [laid.tensor, *parameters],
        shape,
        "FullyConnectedOptions",
        version=version,
        asymmetricQuantizeInputs=version is not None,
    )


def _flattened(conversion: Conversion, node: onnx.NodeProto) -> None:
    """What makes (N, C) of (N, C, 1, 1), whatever it is called."""
    laid = conversion.laid(node.input[0])
    images, *rest = laid.onnx_shape
    if any(side > 1 for side in rest[1:]):
        raise unknown(node, f"it changes the shape {laid.onnx_shape}")
    shape = (images, *rest[:1])
    told = np.asarray((-1, *rest[:1]), np.int32)
    given = conversion.graph.constant(f"{node.output[0]}/shape", told)
    conversion.append(
        node, "RESHAPE", [laid.tensor, given], shape, "ReshapeOptions", newShape=told.tolist()
    )


_RULES: dict[str, Rule] = {
    "Add": _of_two("ADD", "AddOptions"),
    "Cast": _cast,
    "Clip": _clip,
    "Conv": _convolution,
    "DequantizeLinear": _dequantize,
    "Flatten": _flattened,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool("MEAN"),
    "GlobalMaxPool": _global_pool("REDUCE_MAX"),
    "HardSwish": _like_input("HARD_SWISH"),
    "Identity": _identity,
    "MatMul": _matrix_product,
    "Mul": _of_two("MUL", "MulOptions"),
    "QuantizeLinear": _quantize,
    "ReduceMax": _reduction("REDUCE_MAX"),
    "ReduceMean": _reduction("MEAN"),
    "Relu": _like_input("RELU"),
    "Reshape": _flattened,
    "Sigmoid": _like_input("LOGISTIC"),
    "Squeeze": _flattened,
    "Transpose": _transpose,
}
