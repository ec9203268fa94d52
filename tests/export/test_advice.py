"""What is tried next where a model does not hold its gate."""

from __future__ import annotations

import pytest

from effnet_edge.parity import EXACT_GATES
from effnet_export.advice import advice
from effnet_export.gate import FITTED_ACTIVATIONS, HALF_PRECISION, INT8


@pytest.mark.parametrize(
    ("gates", "output", "tells"),
    [
        (INT8, "regression", "--max-nrmse 0.1 or --fp16"),
        (INT8, "features", "(--calibration) or --fp16"),
        (FITTED_ACTIVATIONS, "single-label", "leave --fast-activations out"),
        (HALF_PRECISION, "regression", "use --fp32"),
    ],
)
def test_what_costs_too_much_has_something_else_to_try(
    gates: object, output: str, tells: str
) -> None:
    assert tells in advice(gates, output)  # type: ignore[arg-type]


def test_what_has_to_hold_whatever_it_costs_has_not() -> None:
    assert advice(EXACT_GATES, "single-label") == ""
