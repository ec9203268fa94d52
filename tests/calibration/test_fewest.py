from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from effnet_calibration.fewest import enough_for, fewest

most = st.integers(1, 170)


@given(most, st.data())
def test_the_fewest_are_found_in_few_attempts(most: int, data: st.DataObject) -> None:
    needed = data.draw(st.integers(1, most))
    guess = data.draw(st.integers(-3, most + 3))
    tried: list[int] = []

    def attempt(count: int) -> int:
        tried.append(count)
        return count

    assert fewest(most, attempt, lambda count: count >= needed, guess) == needed
    off = abs(min(max(guess, 1), most) - needed)
    assert len(tried) == len(set(tried)) <= 3 + 2 * math.log2(off + 1)
    assert set(tried) <= set(range(1, most + 1))


@given(most, st.integers(1, 170))
def test_where_nothing_is_enough_it_is_the_most(most: int, guess: int) -> None:
    assert fewest(most, lambda count: count, lambda _: False, guess) == most


@given(most, st.integers(1, 170), st.integers(0, 2**32 - 1))
def test_what_is_found_is_enough_whatever_the_order(most: int, guess: int, bits: int) -> None:
    def is_enough(count: int) -> bool:
        return bool(bits >> (count % 32) & 1)

    found = fewest(most, lambda count: count, is_enough, guess)
    assert is_enough(found) or found == most


@given(st.lists(st.floats(0, 1), max_size=20), st.floats(0, 1))
def test_as_many_costs_go_as_leave_the_share(costs: list[float], share: float) -> None:
    number = enough_for(costs, share)
    assert sum(costs[number:]) <= share * sum(costs) + 1e-9
    if number:
        assert sum(costs[number - 1 :]) >= share * sum(costs) - 1e-9
