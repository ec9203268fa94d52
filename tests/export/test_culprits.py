"""The node that a gate names is one that is beyond the gate, where any is."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_bundles import PREPROCESSING

from effnet_edge.errors import GateError
from effnet_edge.parity.inside.bisection import Fault, Findings
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_export import gate as gate_module
from effnet_export.gate import EXACT_GATES, HALF_PRECISION, ParityGate


class Answers:
    """Shows its tensors as far as a gate asks whether it does."""

    name = execution_precision = "made up"
    activations = None

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def infer(self, pixels: np.ndarray) -> np.ndarray:
        logits = pixels.reshape(len(pixels), -1)[:, :5].astype(np.float32)
        return logits if self._scale > 0 else logits[:, ::-1]


def fault(node: str, decibels: float) -> Fault:
    return Fault(node, "Conv", "other", "is wrong", decibels)


@pytest.mark.parametrize(
    ("gates", "found", "named"),
    [
        (HALF_PRECISION, {"near": 25.0, "far": 3.0, "further": 1.0}, "far"),
        (HALF_PRECISION, {"near": 25.0, "broken": float("nan")}, "broken"),
        (HALF_PRECISION, {"rewritten": 2.0, "far": 3.0}, "far"),
        (HALF_PRECISION, {"near": 25.0, "next": 24.0}, "near"),
        (EXACT_GATES, {"near": 25.0, "far": 3.0}, "near"),
    ],
)
def test_the_first_node_beyond_the_gate_is_named(
    gates: dict, found: dict[str, float], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = Findings(tuple(fault(*each) for each in found.items()), len(found))
    monkeypatch.setattr(gate_module, "find_faults", lambda *_: findings)
    gate = ParityGate(Answers(1), EmbeddedPhotos(2), PREPROCESSING)

    with pytest.raises(GateError, match=rf"first wrong node: {named} \(Conv\)"):
        gate.check("step", Answers(-1), gates, before=Answers(1), rewritten=("rewritten",))
