"""What is advised is what the target takes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from effnet_edge.errors import UsageError
from effnet_edge.model.request import NetworkRequest
from effnet_edge.targets import TARGETS
from effnet_export.advice import advice
from effnet_export.gate import INT8
from effnet_export.request import ExportRequest

if TYPE_CHECKING:
    from effnet_edge.outputs import OutputKind
    from effnet_edge.targets import Target

LIMITS = {"single-label": "max_kl", "multi-label": "max_kl", "regression": "max_nrmse"}


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
