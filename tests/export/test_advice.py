"""What is tried next where a model does not hold its gate."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from effnet_edge.errors import UsageError
from effnet_edge.model.request import NetworkRequest
from effnet_edge.parity import EXACT_GATES
from effnet_edge.targets import TARGETS
from effnet_export.advice import advice
from effnet_export.gate import FITTED_ACTIVATIONS, HALF_PRECISION, INT8
from effnet_export.request import ExportRequest

if TYPE_CHECKING:
    from effnet_edge.outputs import OutputKind
    from effnet_edge.targets import Target

LIMITS = {"single-label": "max_kl", "multi-label": "max_kl", "regression": "max_nrmse"}


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


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
@pytest.mark.parametrize("output", [*LIMITS, "features"])
def test_nothing_is_advised_that_the_target_refuses(target: Target, output: OutputKind) -> None:
    told = advice(INT8, output, target)
    (precision,) = re.findall(r"or --(fp32|fp16)$", told)
    assert precision in target.precisions
    limit = re.search(r"--(max-\w+) ([\d.]+)", told)
    assert (limit is None) == (target.rounds_outputs or output == "features")
    network = NetworkRequest("b0", output_kind=output)
    if limit:
        asked = {LIMITS[output]: float(limit.group(2))}
        assert ExportRequest(network, target.name, "int8", **asked)
    elif output in LIMITS:
        with pytest.raises(UsageError, match="leaves tensors in 16 bit"):
            ExportRequest(network, target.name, "int8", **{LIMITS[output]: 0.02})
