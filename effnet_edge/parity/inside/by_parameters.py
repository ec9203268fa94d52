"""What differs between the parameters of two layers, where both models show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.parity.inside.explanation import (
    Diagnosis,
    order_of,
    order_text,
    ratio,
    sizes,
)
from effnet_edge.parity.measures.metrics import sqnr_db

if TYPE_CHECKING:
    from effnet_edge.parity.inside.explanation import Array
    from effnet_edge.parity.inside.tracing import Parameters

# Errors of equal weights, as a share of the largest: in the last bits; where a factor was fitted;
# and rounded to eight bits, half a step of 127.
_LAST_BITS = 1e-5
_FITTED = 1e-4
_EIGHT_BITS = 0.5 / 127 * 1.01


def compare_parameters(
    expected: Parameters, found: Parameters, *, integer_weights: bool = False
) -> Diagnosis | None:
    """What differs between two layers' parameters; None where nothing does."""
    tolerance = _EIGHT_BITS if integer_weights else _LAST_BITS
    told = _geometry_difference(expected, found)
    if told is None and not _alike(expected.weight, found.weight, tolerance):
        told = _weight_difference(expected.weight, found.weight, tolerance)
    if told is None and not integer_weights:  # calibration may have corrected the bias
        told = _bias_difference(expected.bias, found.bias)
    if told is None and (expected.pads is None) != (found.pads is None):
        return Diagnosis("padding", _padded_elsewhere(expected.pads, found.pads))
    return told


def _padded_elsewhere(expected: tuple[int, ...] | None, found: tuple[int, ...] | None) -> str:
    """Weights and strides are the same, so that only the padding is left to differ."""
    if expected is None:
        return (
            f"its pads (top, left, bottom, right) are {_list(found)}, other amounts than the "
            "reference's node before the convolution pads"
        )
    return (
        "the node before the convolution pads other amounts than the pads (top, left, bottom, "
        f"right) {_list(expected)} of the reference"
    )


def _geometry_difference(expected: Parameters, found: Parameters) -> Diagnosis | None:
    if None not in (expected.pads, found.pads) and expected.pads != found.pads:
        return Diagnosis(
            "padding",
            f"its pads (top, left, bottom, right) are {_list(found.pads)} "
            f"and should be {_list(expected.pads)}",
        )
    if expected.strides != found.strides:
        return Diagnosis(
            "stride",
            f"its strides are {_list(found.strides)} and should be {_list(expected.strides)}",
        )
    if expected.weight.shape != found.weight.shape:
        return Diagnosis(
            "shape",
            f"its weight has the shape {sizes(found.weight)} "
            f"and should have {sizes(expected.weight)}",
        )
    return None


def _alike(expected: Array, found: Array, tolerance: float) -> bool:
    """Whether no error is above `tolerance`, as a share of the largest expected magnitude."""
    error = float(np.abs(expected - found).max())
    return error <= tolerance * float(np.abs(expected).max())


def _weight_difference(expected: Array, found: Array, tolerance: float) -> Diagnosis:
    if expected.ndim == 4 and _alike(expected.swapaxes(2, 3), found, tolerance):
        return Diagnosis("transposed", "its kernels are transposed: rows and columns are swapped")
    if expected.shape[0] == expected.shape[1] and _alike(expected.swapaxes(0, 1), found, tolerance):
        return Diagnosis("transposed", "its weight is transposed: inputs and outputs are swapped")
    for axis, side in ((1, "input"), (0, "output")):
        order = order_of(expected, found, axis)
        if order is not None:
            return Diagnosis("channel order", f"its {side} channels {order_text(order)}")
    for precision, rounded in (("FP16", _to_fp16(expected)), ("BF16", _to_bf16(expected))):
        if _alike(rounded, found, _LAST_BITS):
            return Diagnosis("precision", f"its weights are rounded to {precision}")
    return _scale_difference(expected, found, max(tolerance, _FITTED))


def _scale_difference(expected: Array, found: Array, tolerance: float) -> Diagnosis:
    factor = ratio(expected, found)
    if _alike(expected * factor, found, tolerance):
        return Diagnosis("scale", f"its weights are {factor:.5g} times what they should be")
    factors = np.array([ratio(e, f) for e, f in zip(expected, found, strict=True)], np.float32)
    if _alike(expected * factors.reshape(-1, *[1] * (expected.ndim - 1)), found, tolerance):
        return Diagnosis(
            "scale",
            f"its weights have a factor for each output channel, {factors.min():.5g} to "
            f"{factors.max():.5g}, as of a batch norm that was folded with other statistics "
            "or another epsilon",
        )
    return Diagnosis("weights", f"its weights are others ({sqnr_db(expected, found):.1f} dB)")


def _to_fp16(values: Array) -> Array:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def _to_bf16(values: Array) -> Array:
    """Rounded to the nearest with an even last bit."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def _bias_difference(expected: Array | None, found: Array | None) -> Diagnosis | None:
    if expected is None or found is None:
        if expected is found:
            return None
        has = "has no bias and should have one" if found is None else "has a bias too many"
        return Diagnosis("bias", f"it {has}")
    if expected.shape != found.shape:
        return Diagnosis("shape", f"its bias has {found.size} values, not {expected.size}")
    if _alike(expected, found, _LAST_BITS):
        return None
    factor = ratio(expected, found)
    if _alike(expected * factor, found, _FITTED):
        return Diagnosis("bias", f"its bias is {factor:.5g} times what it should be")
    return Diagnosis("bias", f"its bias is another one ({sqnr_db(expected, found):.1f} dB)")


def _list(values: tuple[int, ...] | None) -> str:
    return str(list(values)) if values is not None else "none"
