"""What is tried next where a model does not hold its gate."""

from __future__ import annotations

import re

import pytest

from effnet_edge.parity import EXACT_GATES
from effnet_edge.targets import TARGETS
from effnet_export.advice import advice
from effnet_export.gate import FITTED_ACTIVATIONS, HALF_PRECISION, INT8


@pytest.mark.parametrize(
    ("gates", "output", "target", "tells"),
    [
        (INT8, "regression", "openvino", "--max-nrmse 0.1 or --fp16"),
        (INT8, "single-label", "onnxruntime", "--max-kl 0.02 or --fp32"),
        (INT8, "single-label", "litert", "(--calibration) or --fp16"),
        (INT8, "features", "openvino", "(--calibration) or --fp16"),
        (FITTED_ACTIVATIONS, "single-label", "openvino", "leave --fast-activations out"),
        (HALF_PRECISION, "regression", "openvino", "use --fp32"),
    ],
)
def test_what_costs_too_much_has_something_else_to_try(
    gates: object, output: str, target: str, tells: str
) -> None:
    """What the target takes: onnxruntime has no FP16, and LiteRT keeps nothing in 16 bit."""
    told = advice(gates, output, TARGETS[target])  # type: ignore[arg-type]
    assert tells in told
    for option in re.findall(r"--(fp\d\d)", told):
        assert TARGETS[target].precision(option) == option


def test_what_has_to_hold_whatever_it_costs_has_not() -> None:
    assert advice(EXACT_GATES, "single-label", TARGETS["openvino"]) == ""
