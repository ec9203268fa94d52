"""Limits that are set for many pictures, held at each batch size on a few of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from effnet_edge.parity.measures.gates import RARE, Check, Gate
from effnet_edge.parity.measures.statistics import at_least
from effnet_edge.parity.measures.table import LabelledLoss, limited_measure

if TYPE_CHECKING:
    from effnet_edge.parity.measures.result import ParityResult

_ROUNDING = 1.25
"""How much larger an error is at another batch size by rounding alone, and its decibels: INT8's
kernels, 27 dB apart, change a distance of 20 dB from the reference by one."""
_DECIBELS = 10 * math.log10(_ROUNDING)

_COUNTED = frozenset({"top1_agreement", "label_set_agreement"})


def broken_limits(gate: Gate, result: ParityResult, closest: ParityResult) -> list[str]:
    """One line for each limit that a model breaks at a batch size, and not just by chance.

    A few pictures may be harder than the many that the limits are for, so that a model is not
    further off than at its best size, but for rounding. Of answers that are counted it must be
    unlikely that a model at its limit has so many others; a limit of all of them leaves no chance.

    Args:
        closest: of the same pictures, at the size that is closest to the reference.
    """
    held = Gate(
        **{name: each for name, each in gate.limits.items() if _is_of_outputs(name, result)}
    )
    pairs = zip(held.judge(result).checks, held.judge(closest).checks, strict=True)
    return [
        str(check)
        for check, own in pairs
        if not check.passed and _is_no_chance(check, own, result.images)
    ]


def _is_of_outputs(limit: str, result: ParityResult) -> bool:
    """Whether it bounds what needs no labels, as the pictures have none here."""
    measure = limited_measure(limit, result.output)
    return measure is not None and not isinstance(measure.formula, LabelledLoss)


def _is_no_chance(check: Check, own: Check, images: int) -> bool:
    if check.value is None or own.value is None or math.isnan(check.value):
        return True
    if check.measure.key in _COUNTED:
        others, usual = (round((1 - each) * images) for each in (check.value, own.value))
        return others > usual and at_least(others, images, 1 - check.limit) < RARE
    if check.bounds.at_least:
        return check.value < own.value - _DECIBELS
    return check.value > own.value * _ROUNDING
