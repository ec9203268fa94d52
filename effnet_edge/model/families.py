"""The base networks of the EfficientNets: a row a stage, as their authors' tables have them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from effnet_edge.model.architecture import Family, StageSpec

# Tan & Le 2019, table 1.
BASE_STAGES = (
    StageSpec(expand_ratio=1, kernel=3, stride=1, channels=16, repeats=1),
    StageSpec(expand_ratio=6, kernel=3, stride=2, channels=24, repeats=2),
    StageSpec(expand_ratio=6, kernel=5, stride=2, channels=40, repeats=2),
    StageSpec(expand_ratio=6, kernel=3, stride=2, channels=80, repeats=3),
    StageSpec(expand_ratio=6, kernel=5, stride=1, channels=112, repeats=3),
    StageSpec(expand_ratio=6, kernel=5, stride=2, channels=192, repeats=4),
    StageSpec(expand_ratio=6, kernel=3, stride=1, channels=320, repeats=1),
)

EFFICIENTNET = Family("EfficientNet", BASE_STAGES, stem_channels=32)

# https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
LITE = Family(
    "EfficientNet-Lite",
    tuple(replace(stage, squeeze_excitation=False) for stage in BASE_STAGES),
    stem_channels=32,
    activation="relu6",
    fixed_ends=True,
    centred_pixels=True,
)

_EDGE_FUSED = partial(
    StageSpec,
    expand_ratio=8,
    kernel=3,
    stride=2,
    kind="fused",
    squeeze_excitation=False,
    skips_pixels=True,
)
_EDGE_LATE = partial(StageSpec, expand_ratio=8, kernel=5, squeeze_excitation=False)

# https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/edgetpu
EDGETPU = Family(
    "EfficientNet-EdgeTPU",
    (
        StageSpec(
            expand_ratio=4,
            kernel=3,
            stride=1,
            channels=24,
            repeats=1,
            kind="fused",
            squeeze_excitation=False,
            has_shortcut=False,
            expands_output=True,
        ),
        _EDGE_FUSED(channels=32, repeats=2),
        _EDGE_FUSED(channels=48, repeats=4),
        _EDGE_LATE(stride=2, channels=96, repeats=5),
        _EDGE_LATE(stride=1, channels=144, repeats=4),
        _EDGE_LATE(stride=2, channels=192, repeats=2),
    ),
    stem_channels=32,
    activation="relu",
    centred_pixels=True,
)

_CONV = partial(
    StageSpec, expand_ratio=1, kernel=3, stride=1, kind="conv", squeeze_excitation=False
)
_FUSED = partial(
    StageSpec, expand_ratio=4, kernel=3, stride=2, kind="fused", squeeze_excitation=False
)
_LATE = partial(StageSpec, kernel=3)

# Tan & Le 2021, "EfficientNetV2: Smaller Models and Faster Training", table 4, and the authors'
# https://github.com/google/automl/tree/master/efficientnetv2 for M, L and the base network.
V2_S = Family(
    "EfficientNetV2",
    (
        _CONV(channels=24, repeats=2),
        _FUSED(channels=48, repeats=4),
        _FUSED(channels=64, repeats=4),
        _LATE(expand_ratio=4, stride=2, channels=128, repeats=6),
        _LATE(expand_ratio=6, stride=1, channels=160, repeats=9),
        _LATE(expand_ratio=6, stride=2, channels=256, repeats=15),
    ),
    stem_channels=24,
    crop_margin=0,
    centred_pixels=True,
)
V2_M = replace(
    V2_S,
    stages=(
        _CONV(channels=24, repeats=3),
        _FUSED(channels=48, repeats=5),
        _FUSED(channels=80, repeats=5),
        _LATE(expand_ratio=4, stride=2, channels=160, repeats=7),
        _LATE(expand_ratio=6, stride=1, channels=176, repeats=14),
        _LATE(expand_ratio=6, stride=2, channels=304, repeats=18),
        _LATE(expand_ratio=6, stride=1, channels=512, repeats=5),
    ),
)
V2_L = replace(
    V2_S,
    stages=(
        _CONV(channels=32, repeats=4),
        _FUSED(channels=64, repeats=7),
        _FUSED(channels=96, repeats=7),
        _LATE(expand_ratio=4, stride=2, channels=192, repeats=10),
        _LATE(expand_ratio=6, stride=1, channels=224, repeats=19),
        _LATE(expand_ratio=6, stride=2, channels=384, repeats=25),
        _LATE(expand_ratio=6, stride=1, channels=640, repeats=7),
    ),
    stem_channels=32,
)
V2_BASE = Family(
    "EfficientNetV2",
    (
        _CONV(channels=16, repeats=1),
        _FUSED(channels=32, repeats=2),
        _FUSED(channels=48, repeats=2),
        _LATE(expand_ratio=4, stride=2, channels=96, repeats=3),
        _LATE(expand_ratio=6, stride=1, channels=112, repeats=5),
        _LATE(expand_ratio=6, stride=2, channels=192, repeats=8),
    ),
    stem_channels=32,
    largest_loss=1.0,
)
