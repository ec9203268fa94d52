"""A budget as a share of what INT8 loses without one."""

from __future__ import annotations

import pytest

from effnet_edge.errors import GateError
from effnet_edge.outputs import OUTPUT_NAMES
from effnet_edge.parity import Comparison, Gate, ParityResult
from effnet_export.budget import loss_without_labels, share_of


def lost(output: str, of: float) -> ParityResult:
    """As INT8 loses it whose every number is `of` times the reference's, in part."""
    comparison = Comparison("torch", "int8", "FP32", "INT8", output)
    exact = [[4.0, 1.0], [1.0, 3.0], [0.5, 2.0], [2.5, 0.0]]
    comparison.update(exact, [[of * first, second] for first, second in exact], None)
    return comparison.result("4 pictures")


@pytest.mark.parametrize(
    ("output", "limit"),
    [("single-label", "max_kl"), ("multi-label", "max_kl"), ("regression", "max_nrmse")],
)
def test_a_share_is_of_the_loss_without_labels(output: str, limit: str) -> None:
    loss = lost(output, 0.9)
    whole = loss.value(limit.removeprefix("max_"))
    assert whole
    assert share_of(loss, 0.5) == Gate(**{limit: whole / 2})
    assert share_of(loss, 0.5).check(loss)
    assert not share_of(loss, 1.0).check(loss)


def test_only_features_have_none() -> None:
    assert [name for name in OUTPUT_NAMES if loss_without_labels(name) is None] == ["features"]


def test_what_is_no_number_has_no_share() -> None:
    with pytest.raises(GateError, match="is no number, and has no share"):
        share_of(lost("single-label", float("nan")), 0.5)
