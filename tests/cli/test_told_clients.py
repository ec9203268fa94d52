"""What is told of clients that ask at once: the value, the limit, and how they compare."""

from __future__ import annotations

import math

import pytest

from effnet_edge.cli.batch_sizes import told_batch_sizes
from effnet_edge.parity.batch_sizes import AtOnce


@pytest.mark.parametrize(
    ("worst", "told"),
    [
        (27.3, "SQNR 27.3 dB ≥ 15 dB"),
        (math.inf, "≥ 15 dB"),
        (12.7, "SQNR 12.7 dB below 15 dB no further than by chance"),
    ],
)
def test_a_single_value_off_by_chance_is_not_told_as_within_the_limit(
    worst: float, told: str
) -> None:
    document = {
        "candidate": "served",
        "batch_sizes": [],
        "at_once": AtOnce(16, worst, 15.0, ()).to_dict(),
    }
    (line,) = told_batch_sizes(document)
    assert line.startswith("served gives 16 clients at once the answers that one gets alone: ")
    assert line.endswith(told)
