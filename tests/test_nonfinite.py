from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet_edge import nonfinite

NUMBERS = st.none() | st.floats(allow_nan=False) | st.just(math.nan)
FOUR = (math.nan, math.inf, -math.inf, None)


@given(st.dictionaries(st.text(max_size=3), st.lists(NUMBERS, max_size=4), max_size=4))
def test_what_is_written_is_strict_json_and_reads_back(document) -> None:
    text = nonfinite.dumps(document)
    read = json.loads(text, parse_constant=pytest.fail)
    decoded = {key: list(map(nonfinite.decode, values)) for key, values in read.items()}
    assert repr(decoded) == repr(document)


def test_the_strings_are_those_that_python_itself_reads_as_numbers() -> None:
    for number in FOUR[:-1]:
        code = nonfinite.encode(number)
        assert isinstance(code, str)
        assert repr(float(code)) == repr(nonfinite.decode(code)) == repr(number)


def test_the_four_are_told_apart() -> None:
    told = [nonfinite.tell(number, ".1f", " dB") for number in FOUR]
    assert told == ["NaN", "∞ dB", "−∞ dB", "not measured"]
    assert [nonfinite.tell(nonfinite.encode(number), ".1f", " dB") for number in FOUR] == told
    assert nonfinite.tell(1.25, ".2f", " dB") == "1.25 dB"


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0.314, "0.31"),
        (16.7, "17"),
        (99.6, "100"),
        (168.4, "168"),
        (-1234, "−1234"),
        (3e8, "3e+08"),
    ],
)
def test_large_numbers_are_whole_and_without_an_exponent(number: float, told: str) -> None:
    assert nonfinite.tell(number, ".2g", " %") == f"{told} %"


@pytest.mark.parametrize("text", ["nan", "inf", "12", "", "cat"])
def test_other_text_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match="is no number"):
        nonfinite.decode(text)
