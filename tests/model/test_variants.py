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
from effnet_edge.model import architecture
from effnet_edge.model.architecture import round_channels
from effnet_edge.model.variants import VARIANTS, get_variant

# Millions of parameters. b0 to b7: Tan & Le 2019, table 2 gives 5.3 to 66; to two decimals in the
# authors' repository. b8, l2, lite, es to el: the tables of geffnet 1.0.2 (in its PyPI description)
# and https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. V2:
# `num_params` in torchvision/models/efficientnet.py and
# https://github.com/google/automl/tree/master/efficientnetv2 for its base sizes.
PUBLISHED_PARAMETERS = {
    "b0": 5.29,
    "b1": 7.79,
    "b2": 9.11,
    "b3": 12.23,
    "b4": 19.34,
    "b5": 30.39,
    "b6": 43.04,
    "b7": 66.35,
    "b8": 87.4,
    "l2": 480,
    "lite0": 4.7,
    "lite1": 5.4,
    "lite2": 6.1,
    "lite3": 8.2,
    "lite4": 13.0,
    "es": 5.44,
    "v2-s": 21.458488,
    "v2-m": 54.139356,
    "v2-l": 118.515272,
    "v2-b0": 7.1,
    "v2-b1": 8.1,
    "v2-b2": 10.1,
    "v2-b3": 14.4,
}

# Milliards of multiply-adds at the variant's resolution: `_ops` in torchvision's efficientnet.py
# for b0 to b7 (b2 is given at 288 px) and V2-S to L, else the authors' pages above.
PUBLISHED_MULTIPLY_ADDS = {
    "b0": 0.4,
    "b1": 0.7,
    "b3": 1.8,
    "b4": 4.4,
    "b5": 10.3,
    "b6": 19.1,
    "b7": 37.7,
    "lite0": 0.407,
    "lite1": 0.631,
    "lite2": 0.899,
    "lite3": 1.44,
    "lite4": 2.64,
    "v2-s": 8.4,
    "v2-m": 24.6,
    "v2-l": 56.1,
    "v2-b0": 0.72,
    "v2-b1": 1.2,
    "v2-b2": 1.7,
    "v2-b3": 3.0,
}

PAPER_VARIANTS = [f"b{index}" for index in range(8)]


@pytest.mark.parametrize("name", [*PAPER_VARIANTS, "b8", "l2"])
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
    decimals = len(str(millions).partition(".")[2])

    assert round(VARIANTS[name].parameter_count() / 1e6, decimals) == millions


@pytest.mark.parametrize(("name", "milliards"), PUBLISHED_MULTIPLY_ADDS.items())
def test_multiply_adds_are_the_published_ones(name: str, milliards: float) -> None:
    # TensorFlow's profiler, which the authors' tables come from, also counts batch norms: 6 %.
    assert VARIANTS[name].multiply_adds() / 1e9 == pytest.approx(milliards, rel=0.06)


def test_every_variant_tells_its_published_accuracy() -> None:
    for variant in VARIANTS.values():
        assert 75 < variant.published.top1 < 90
        assert variant.published.source


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("b0", "EfficientNet-B0"),
        ("l2", "EfficientNet-L2"),
        ("lite4", "EfficientNet-Lite4"),
        ("em", "EfficientNet-EdgeTPU-M"),
        ("v2-b3", "EfficientNetV2-B3"),
    ],
)
def test_titles_are_what_the_authors_write(name: str, title: str) -> None:
    assert VARIANTS[name].title == title


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

    assert architecture.round_repeats(repeats, depth) == round_repeats(repeats, parameters)


def test_examples_of_the_rounding_rules() -> None:
    assert round_channels(32, 1.8) == 56
    assert architecture.round_repeats(4, 2.6) == 11


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
