from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet_edge.errors import UsageError
from effnet_edge.size import Size

SIDES = st.integers(1, 5000)


@given(SIDES, SIDES)
def test_what_is_printed_and_what_is_typed_read_back_height_first(height: int, width: int) -> None:
    size = Size(height, width)
    for text in (str(size), f"{height}x{width}", f" {height}X{width} "):
        assert Size.parse(text) == size


@given(SIDES)
def test_one_number_is_a_square(side: int) -> None:
    assert Size.parse(str(side)) == Size.of(side) == Size(side, side)
    assert Size.of(Size(side, 1)) == Size(side, 1)


@pytest.mark.parametrize(
    "text", ["", "x", "192x", "x320", "192x320x3", "1.5", "-32", "192*320", "big", "1" * 5000, "٣"]
)
def test_what_is_no_resolution_is_told_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="HEIGHTxWIDTH") as caught:
        Size.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (-1, 5)])
def test_a_side_of_nothing_is_refused(height: int, width: int) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        Size(height, width)
