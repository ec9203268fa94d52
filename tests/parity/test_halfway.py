"""What two models with grids are compared on becomes the same integers in any engine."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from effnet_edge.parity.inside.grids import compare_grids
from effnet_edge.parity.inside.halfway import away_from_halfway
from effnet_edge.parity.inside.tracing import Grid

steps = st.floats(1e-4, 10)
zero_points = st.integers(0, 255)


def grid(step: float, zero_point: int, tensor: str = "act") -> Grid:
    return Grid("pair", tensor, -zero_point * step, (255 - zero_point) * step, 256)


@given(steps, zero_points, st.integers(0, 2**32 - 1))
def test_what_is_halfway_is_rounded_the_same_by_any_arithmetic(step, zero_point, seed) -> None:
    random = np.random.default_rng(seed)
    halves = (random.integers(-zero_point, 255 - zero_point, 500) + 0.5) * step
    values = np.float32(halves * (1 + random.uniform(-1e-6, 1e-6, 500)))

    moved = away_from_halfway({"act": values}, [grid(step, zero_point)])["act"]

    divided = np.rint(moved / np.float32(step))
    multiplied = np.rint(moved * np.float32(1 / step) * np.float32(1 + 1e-6))
    from_the_low_end = np.rint((moved.astype(np.float64) + zero_point * step) / step) - zero_point
    np.testing.assert_array_equal(divided, multiplied)
    np.testing.assert_array_equal(divided, from_the_low_end)
    assert moved.dtype == np.float32
    assert np.abs(moved - values).max() <= 0.021 * step


@given(steps, zero_points, st.integers(0, 2**32 - 1))
def test_all_other_values_and_tensors_stay_as_they_are(step, zero_point, seed) -> None:
    random = np.random.default_rng(seed)
    whole = random.integers(-zero_point - 50, 300 - zero_point, 500)
    values = np.float32((whole + random.uniform(-0.47, 0.47, 500)) * step)

    moved = away_from_halfway(
        {"act": values, "other": values + 1}, [grid(step, zero_point), grid(step, 0, "unknown")]
    )

    np.testing.assert_array_equal(moved["act"], values)
    np.testing.assert_array_equal(moved["other"], values + 1)


def test_a_grid_without_a_step_moves_nothing() -> None:
    values = np.float32([0.5, np.nan, np.inf, -np.inf])

    for low, high in ((0.0, 0.0), (np.nan, 1.0), (-np.inf, np.inf), (1.0, 0.0)):
        broken = Grid("pair", "act", low, high, 256)
        moved = away_from_halfway({"act": values}, [broken])["act"]
        np.testing.assert_array_equal(moved, values)


def test_values_that_are_not_finite_stay_so() -> None:
    values = np.float32([0.5, np.nan, np.inf, -np.inf])

    moved = away_from_halfway({"act": values}, [grid(1.0, 0)])["act"]

    np.testing.assert_array_equal(moved[1:], values[1:])
    assert moved[0] != 0.5


def test_grids_without_a_step_are_told_from_others_and_not_divided_by() -> None:
    broken = Grid("pair", "act", 0.0, 0.0, 256)

    assert compare_grids([broken], broken) is None
    assert compare_grids([grid(1.0, 0)], broken).kind == "scale"
    assert compare_grids([broken], grid(1.0, 0)).kind == "scale"


def test_a_tensor_that_is_rounded_twice_may_be_rounded_in_either_way() -> None:
    first, second = grid(1.0, 0), grid(2.0, 3)

    assert compare_grids([first, second], second) is None
    assert compare_grids([first, second], grid(2.0, 4)).kind == "scale"
    assert compare_grids([second, first], grid(2.0, 4)).kind == "zero point"
