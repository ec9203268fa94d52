"""The scaling table against the paper and the reference implementation's published figures."""

from __future__ import annotations

import subprocess
import sys

import pytest
from efficientnet_pytorch.utils import (
    efficientnet_params,
    get_model_params,
    round_filters,
    round_repeats,
)
from hypothesis import given
from hypothesis import strategies as st

from effnet_edge.errors import UsageError
from effnet_edge.model import variants
from effnet_edge.model.variants import VARIANTS, get_variant, round_channels

# Tan & Le 2019, table 2 gives 5.3 M … 66 M; to two decimals in the authors' repository.
PUBLISHED_PARAMETERS = {
    "b0": 5.29,
    "b1": 7.79,
    "b2": 9.11,
    "b3": 12.23,
    "b4": 19.34,
    "b5": 30.39,
    "b6": 43.04,
    "b7": 66.35,
}


@pytest.mark.parametrize("name", VARIANTS)
def test_scaling_factors_are_those_of_efficientnet_pytorch(name: str) -> None:
    variant = VARIANTS[name]

    assert efficientnet_params(f"efficientnet-{name}") == (
        variant.width,
        variant.depth,
        variant.resolution,
        variant.dropout,
    )


@pytest.mark.parametrize(("name", "millions"), PUBLISHED_PARAMETERS.items())
def test_parameter_counts_are_the_published_ones(name: str, millions: float) -> None:
    assert round(VARIANTS[name].parameter_count() / 1e6, 2) == millions


@given(
    channels=st.integers(8, 2048),
    width=st.floats(0.3, 4.0),
)
def test_channels_round_to_a_multiple_of_8_and_never_lose_more_than_a_tenth(
    channels: int, width: float
) -> None:
    rounded = round_channels(channels, width)

    assert rounded % 8 == 0
    assert rounded >= 0.9 * channels * width
    assert rounded <= channels * width + 8


@given(channels=st.integers(8, 2048), width=st.sampled_from([1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0]))
def test_channels_round_as_in_efficientnet_pytorch(channels: int, width: float) -> None:
    _, parameters = get_model_params("efficientnet-b0", {"width_coefficient": width})

    assert round_channels(channels, width) == round_filters(channels, parameters)


@given(repeats=st.integers(1, 9), depth=st.sampled_from([1.0, 1.1, 1.2, 1.4, 1.8, 2.2, 2.6, 3.1]))
def test_repeats_round_as_in_efficientnet_pytorch(repeats: int, depth: float) -> None:
    _, parameters = get_model_params("efficientnet-b0", {"depth_coefficient": depth})

    assert variants.round_repeats(repeats, depth) == round_repeats(repeats, parameters)


def test_examples_of_the_rounding_rules() -> None:
    assert round_channels(32, 1.8) == 56
    assert variants.round_repeats(4, 2.6) == 11


def test_squeeze_channels_come_from_the_block_input() -> None:
    second_stage = VARIANTS["b0"].stages()[1]

    assert [block.squeeze_channels for block in second_stage] == [4, 6]


def test_shortcut_only_where_shapes_match() -> None:
    blocks = [block for stage in VARIANTS["b0"].stages() for block in stage]

    assert [block.has_shortcut for block in blocks].count(True) == 9
    assert not VARIANTS["b0"].stages()[4][0].has_shortcut


def test_an_unknown_variant_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'b9'.*b0, b1"):
        get_variant("b9")


def test_variants_are_known_without_torch() -> None:
    code = (
        "import sys, effnet_edge.model.variants; "
        "assert not {'torch', 'numpy', 'onnx', 'openvino'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
