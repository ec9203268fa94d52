"""What was decided about each layer, and the form in which a table's file holds it."""

from __future__ import annotations

import json
import subprocess
import sys

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effnet_calibration.quantization import (
    BIASES,
    DEPTHWISE,
    STREAM,
    Quantization,
    TensorEntry,
    from_columns,
    to_columns,
)

NAMES = [
    "stem.conv",
    "stages.0.0.depthwise.conv",
    "stages.0.0.se.reduce",
    "stages.0.0.project.conv",
    "stages.1.0.expand.conv",
    "classifier",
]
numbers = st.lists(st.floats(0.1, 10), min_size=1, max_size=3).map(tuple)
GRID = TensorEntry(0.5, 3, "min-max", 20.0)


# Generating is slow only where other programs have the machine.
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(NAMES), numbers),
    st.dictionaries(st.sampled_from(NAMES), numbers),
    st.sets(st.sampled_from(NAMES)),
    st.sets(st.sampled_from(NAMES)),
)
def test_what_a_file_holds_comes_back(
    biases: dict[str, tuple[float, ...]],
    unknown: dict[str, tuple[float, ...]],
    gridded: set[str],
    kept: set[str],
) -> None:
    quantization = (
        Quantization("asymmetric-uint8", logit_gain=0.5)
        .changing(BIASES, biases)
        .changing("a step to come", unknown)
        .gridded(dict.fromkeys(gridded, GRID))
        .keeping(kept)
    )
    again = from_columns(json.loads(json.dumps(to_columns(quantization))))
    assert again.changes(BIASES) == biases
    assert again.changes("a step to come") == unknown
    assert again.grids == dict.fromkeys(gridded, GRID)
    assert again.kept == tuple(sorted(kept))
    assert again.logit_gain == 0.5


def test_the_file_calls_tensors_by_their_block_and_streams_by_their_stage() -> None:
    quantization = (
        Quantization("symmetric-int8")
        .changing(DEPTHWISE, {"stages.2.1.depthwise.conv": (1.0, 2.0)})
        .changing(STREAM, {"stages.0.0.project.conv": (4.0,)})
    )
    columns = to_columns(quantization)
    assert columns[DEPTHWISE] == {"stages.2.1": (1.0, 2.0)}
    assert columns[STREAM] == {"0": (4.0,)}
    assert from_columns(columns) == quantization


def test_changing_replaces_one_change_and_leaves_the_rest() -> None:
    first = Quantization("symmetric-int8").changing(BIASES, {"classifier": (1.0,)})
    first = first.changing(DEPTHWISE, {"stages.0.0.depthwise.conv": (2.0,)}).keeping(["classifier"])
    second = first.changing(BIASES, {"stem.conv": (3.0,)})
    assert second.changes(BIASES) == {"stem.conv": (3.0,)}
    assert second.changes(DEPTHWISE) == first.changes(DEPTHWISE)
    assert second.kept == ("classifier",)
    assert first.changes(BIASES) == {"classifier": (1.0,)}
    assert second.uncorrected().changes(BIASES) == {}
    assert second.keeping([]).kept == ()
    assert first.keeping([]).changing(DEPTHWISE, {}).uncorrected() == Quantization("symmetric-int8")


def test_a_table_is_read_without_torch() -> None:
    code = "import sys, effnet_calibration.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
