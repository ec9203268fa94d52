"""What is wrong with a node, judged by its output and, where they can be seen, its parameters.

The output is that of the node on the reference's own inputs, so whatever differs is its doing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.parity.inside.by_parameters import compare_parameters
from effnet_edge.parity.inside.by_values import compare_values
from effnet_edge.parity.inside.explanation import Diagnosis, sizes

if TYPE_CHECKING:
    from effnet_edge.parity.inside.explanation import Array
    from effnet_edge.parity.inside.tracing import Parameters


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
        return Diagnosis("shape", f"its shape is {sizes(found)} and should be {sizes(expected)}")
    return compare_values(expected, found)
