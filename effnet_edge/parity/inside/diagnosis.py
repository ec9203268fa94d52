"""What is wrong with a node, judged by its output and, where they can be seen, its parameters.

The output is that of the node on the reference's own inputs, so whatever differs is its doing.
Each explanation is a hypothesis that is tested on the numbers, the most special one first; the
first that holds is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.parity.measures.metrics import sqnr_db

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from effnet_edge.parity.inside.tracing import Parameters

    Array = NDArray[np.float32]

# A hypothesis holds if what it leaves unexplained is so far below the signal. Weights stored in
# eight bits leave 40 dB, a wrong hypothesis a few.
_EXPLAINED_DB = 30.0
_IMPROVEMENT_DB = 12.0

# Rounding to FP16 leaves errors of 2⁻¹², to BF16 2⁻⁹ of a value at most.
_ROUNDING_DB = (35.0, 90.0)
_FP16_DB = 62.0


# Normalized pixels have 3 channels. Two are the same one if their correlation is above this:
# those of a photo resemble each other.
_FEW_CHANNELS = 4
_SAME_CHANNEL = 1 - 1e-6

# Rows and columns below which a feature map is hardly more than its border.
_SMALLEST_MAP = 7

# Errors of equal weights, as a share of the largest: in the last bits; where a factor was fitted;
# and rounded to eight bits, half a step of 127.
_LAST_BITS = 1e-5
_FITTED = 1e-4
_EIGHT_BITS = 0.5 / 127 * 1.01


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong: a kind that a program can tell apart, and a sentence for a person.

    The kinds are "shape", "not finite", "padding", "stride", "channel order", "transposed",
    "weights", "bias", "scale", "offset", "saturation", "zero point", "precision", "missing" and
    "values".
    """

    kind: str
    text: str


def diagnose(
    expected: Array,
    found: Array,
    expected_parameters: Parameters | None,
    found_parameters: Parameters | None,
    *,
    integer_weights: bool = False,
) -> Diagnosis:
    """Explain a difference; parameters decide where both models show them, else the values.

    Args:
        expected, found: the node's output, float32 (N, …), on the same inputs.
        integer_weights: the found weights were rounded to eight bits, which is no fault.
    """
    if found.shape == expected.shape and not np.isfinite(found).all():
        share = 1 - float(np.isfinite(found).mean())
        return Diagnosis("not finite", f"{100 * share:.2g} % of its values are NaN or infinite")
    if expected_parameters is not None and found_parameters is not None:
        told = compare_parameters(
            expected_parameters, found_parameters, integer_weights=integer_weights
        )
        if told is not None:
            return told
    if found.shape != expected.shape:
        return Diagnosis("shape", f"its shape is {_x(found)} and should be {_x(expected)}")
    return _by_values(expected, found)


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
            f"its weight has the shape {_x(found.weight)} and should have {_x(expected.weight)}",
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
        order = _order(expected, found, axis)
        if order is not None:
            return Diagnosis("channel order", f"its {side} channels {_order_text(order)}")
    for precision, rounded in (("FP16", _to_fp16(expected)), ("BF16", _to_bf16(expected))):
        if _alike(rounded, found, _LAST_BITS):
            return Diagnosis("precision", f"its weights are rounded to {precision}")
    return _scale_difference(expected, found, max(tolerance, _FITTED))


def _scale_difference(expected: Array, found: Array, tolerance: float) -> Diagnosis:
    factor = _ratio(expected, found)
    if _alike(expected * factor, found, tolerance):
        return Diagnosis("scale", f"its weights are {factor:.5g} times what they should be")
    factors = np.array([_ratio(e, f) for e, f in zip(expected, found, strict=True)], np.float32)
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
    factor = _ratio(expected, found)
    if _alike(expected * factor, found, _FITTED):
        return Diagnosis("bias", f"its bias is {factor:.5g} times what it should be")
    return Diagnosis("bias", f"its bias is another one ({sqnr_db(expected, found):.1f} dB)")


def _by_values(expected: Array, found: Array) -> Diagnosis:
    """Without parameters: by what makes the difference go away."""
    before = sqnr_db(expected, found)
    for hypothesis in _HYPOTHESES:
        told = hypothesis(expected, found, before)
        if told is not None:
            return told
    error = float(np.abs(found - expected).max())
    return Diagnosis(
        "values",
        f"it differs by {error:.2g} where its largest value is {np.abs(expected).max():.2g} "
        f"({before:.1f} dB)",
    )


def _explains(expected: Array, found: Array, before: float) -> bool:
    after = sqnr_db(expected, found)
    return after >= _EXPLAINED_DB and after >= before + _IMPROVEMENT_DB


def _precision(expected: Array, found: Array, before: float) -> Diagnosis | None:
    low, high = _ROUNDING_DB
    factor = _ratio(expected, found)
    unscaled = sqnr_db(expected * factor, found)
    # An error that has a direction is no rounding.
    if not low <= before <= high or unscaled > before + _IMPROVEMENT_DB / 2:
        return None
    if _border_share(expected, found) > 0.999:
        return None
    like = "FP16" if before >= _FP16_DB else "BF16"
    return Diagnosis("precision", f"it is as inexact ({before:.0f} dB) as if computed in {like}")


def _channel_order(expected: Array, found: Array, _: float) -> Diagnosis | None:
    if expected.ndim < 2:
        return None
    order = _order(expected, found, axis=1) or _correlated_order(expected, found)
    if order is None:
        return None
    return Diagnosis("channel order", f"its channels {_order_text(order)}")


def _scaled(expected: Array, found: Array, before: float) -> Diagnosis | None:
    factor = _ratio(expected, found)
    if _explains(expected * factor, found, before):
        return Diagnosis("scale", f"it is {factor:.4g} times what it should be")
    return None


def _affine(expected: Array, found: Array, before: float) -> Diagnosis | None:
    """One factor and one offset, of the whole tensor or a channel."""
    for axes, per in (((None), ""), ((0, *range(2, expected.ndim)), " in each channel")):
        if axes is not None and expected.ndim < 2:
            continue
        ref_mean = expected.mean(axis=axes, keepdims=True)
        found_mean = found.mean(axis=axes, keepdims=True)
        centred = expected - ref_mean
        energy = np.square(centred).sum(axis=axes, keepdims=True)
        product = (centred * (found - found_mean)).sum(axis=axes, keepdims=True)
        factors = np.divide(product, energy, out=np.ones_like(product), where=energy > 0)
        if not _explains(centred * factors + found_mean, found, before):
            continue
        offsets = found_mean - ref_mean * factors
        if np.abs(factors - 1).max() < 1e-3:
            return Diagnosis("offset", f"it has an offset{per}: {_span(offsets)}")
        return Diagnosis(
            "scale", f"it has a factor{per}: {_span(factors)}, and an offset: {_span(offsets)}"
        )
    return None


def _saturated(expected: Array, found: Array, before: float) -> Diagnosis | None:
    low, high = float(found.min()), float(found.max())
    share = float(np.mean((expected < low) | (expected > high)))
    if share and _explains(np.clip(expected, low, high), found, before):
        return Diagnosis(
            "saturation",
            f"{100 * share:.2g} % of its values are clipped to {low:.4g} … {high:.4g}; they reach "
            f"from {expected.min():.4g} to {expected.max():.4g}",
        )
    return None


def _padding(expected: Array, found: Array, _: float) -> Diagnosis | None:
    """An error that is all at the border, or that a shift by a pixel removes."""
    if expected.ndim != 4 or min(expected.shape[2:]) < _SMALLEST_MAP:
        return None
    if _border_share(expected, found) > 0.999:
        return Diagnosis("padding", "it differs at the border only: other padding")
    inner = expected[:, :, 1:-1, 1:-1]
    rows, columns = expected.shape[2:]
    for down in (0, 1, 2):
        for right in (0, 1, 2):
            moved = found[:, :, down : rows - 2 + down, right : columns - 2 + right]
            if (down, right) != (1, 1) and sqnr_db(inner, moved) >= _EXPLAINED_DB:
                return Diagnosis(
                    "padding",
                    f"it is moved by ({down - 1}, {right - 1}) pixels (down, right): other padding",
                )
    return None


def _border_share(expected: Array, found: Array) -> float:
    """The share of the error's energy in the outermost pixels, 0..1."""
    if expected.ndim != 4 or min(expected.shape[2:]) < _SMALLEST_MAP:
        return 0.0
    error = np.square(found - expected)
    inside = float(error[:, :, 2:-2, 2:-2].sum())
    total = float(error.sum())
    return 1 - inside / total if total else 0.0


_HYPOTHESES: Iterable[Callable[[Array, Array, float], Diagnosis | None]] = (
    _channel_order,
    _padding,
    _precision,
    _scaled,
    _affine,
    _saturated,
)


def _order(expected: Array, found: Array, axis: int) -> list[int] | None:
    """The order of the expected channels that makes them the found ones; None if there is none."""
    if expected.shape[axis] < 2:
        return None
    ref, cand = (
        np.moveaxis(each, axis, 0).reshape(each.shape[axis], -1) for each in (expected, found)
    )
    distance = np.square(ref).sum(1)[None] - 2 * cand @ ref.T + np.square(cand).sum(1)[:, None]
    order = [int(index) for index in distance.argmin(1)]
    if order == sorted(order) or sorted(order) != list(range(len(order))):
        return None
    return order if sqnr_db(ref[order], cand) >= _EXPLAINED_DB else None


def _correlated_order(expected: Array, found: Array) -> list[int] | None:
    """As `_order`, where each channel has a scale and an offset of its own: normalized pixels."""
    count = expected.shape[1]
    if not 2 <= count <= _FEW_CHANNELS or expected.ndim != 4:
        return None
    ref, cand = (np.moveaxis(each, 1, 0).reshape(count, -1) for each in (expected, found))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.corrcoef(cand, ref)[:count, count:]
    order = [int(index) for index in correlation.argmax(1)]
    in_place = float(correlation.diagonal().min()) > _SAME_CHANNEL
    if in_place or sorted(order) != list(range(count)):
        return None
    return order if correlation.max(1).min() > _SAME_CHANNEL else None


def _order_text(order: list[int]) -> str:
    count = len(order)
    if order == list(range(count))[::-1]:
        rgb = " (BGR instead of RGB)" if count == 3 else ""
        return f"are in reverse order{rgb}"
    moved = [index for index, source in enumerate(order) if index != source]
    if len(moved) == 2:
        return f"{moved[0]} and {moved[1]} are swapped"
    return f"are in another order: {len(moved)} of {count} are not in their place"


def _ratio(expected: Array, found: Array) -> float:
    """The factor k that makes k·expected come nearest to found, by least squares."""
    energy = float(np.vdot(expected, expected))
    return float(np.vdot(expected, found)) / energy if energy else 1.0


def _span(values: Array) -> str:
    flat = np.asarray(values).reshape(-1)
    if len(flat) <= 3:
        return ", ".join(f"{value:.4g}" for value in flat)
    return f"{flat.min():.4g} to {flat.max():.4g}"


def _x(array: Array) -> str:
    return "×".join(str(size) for size in array.shape)


def _list(values: tuple[int, ...] | None) -> str:
    return str(list(values)) if values is not None else "none"
