"""What is wrong with a node's values, where its parameters cannot be seen or do not differ.

Each explanation is a hypothesis that is tested on the numbers, the most special one first; the
first that holds is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.parity.inside.explanation import (
    EXPLAINED_DB,
    Diagnosis,
    order_of,
    order_text,
    ratio,
)
from effnet_edge.parity.measures.metrics import sqnr_db

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from effnet_edge.parity.inside.explanation import Array

# A hypothesis must also be so much better than none.
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


def compare_values(expected: Array, found: Array) -> Diagnosis:
    """Explain a difference by what makes it go away; float32 (N, …) of equal shapes."""
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
    return after >= EXPLAINED_DB and after >= before + _IMPROVEMENT_DB


def _precision(expected: Array, found: Array, before: float) -> Diagnosis | None:
    low, high = _ROUNDING_DB
    factor = ratio(expected, found)
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
    order = order_of(expected, found, axis=1) or _correlated_order(expected, found)
    if order is None:
        return None
    return Diagnosis("channel order", f"its channels {order_text(order)}")


def _scaled(expected: Array, found: Array, before: float) -> Diagnosis | None:
    factor = ratio(expected, found)
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
            if (down, right) != (1, 1) and sqnr_db(inner, moved) >= EXPLAINED_DB:
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


def _correlated_order(expected: Array, found: Array) -> list[int] | None:
    """As `order_of`, where each channel has a scale and an offset of its own: normalized pixels."""
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


def _span(values: Array) -> str:
    flat = np.asarray(values).reshape(-1)
    if len(flat) <= 3:
        return ", ".join(f"{value:.4g}" for value in flat)
    return f"{flat.min():.4g} to {flat.max():.4g}"


_HYPOTHESES: Iterable[Callable[[Array, Array, float], Diagnosis | None]] = (
    _channel_order,
    _padding,
    _precision,
    _scaled,
    _affine,
    _saturated,
)
