"""Naming schemes of EfficientNet checkpoints, as data: where each of our tensors stands in theirs.

A new format is a new row of `NAMING_SCHEMES`, not new code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from effnet_edge.model.conventions import TELLING_TENSOR
from effnet_edge.model.preprocessing import (
    HUGGING_FACE_PIXELS,
    KERAS_V2_PIXELS,
    REFERENCE_PIXELS,
    TORCHVISION_PIXELS,
    TUTORIAL_PIXELS,
    PixelConventions,
)
from effnet_edge.model.variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from effnet_edge.model.variants import Padding

OWN_BLOCK = re.compile(r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\.(?P<rest>.+)")


@dataclass(frozen=True)
class NamingScheme:
    """How another code base names the modules of an EfficientNet.

    Attributes:
        name: what a person calls the format.
        block: format string of what stands before a module of a block, with `{stage}`, `{layer}`
            (the stage counted from 1), `{block}` (within its stage), `{letter}` (the same from "a")
            and `{index}` (within the network).
        modules: our module path → theirs, with `{after}` for the layer after the last stage; inside
            a block, the part after the block's prefix.
        modules_without_expansion: the same for blocks whose expansion ratio is 1, where it differs.
        modules_fused, modules_single: the same for fused blocks and for single convolutions.
        batch_norm_folded: the checkpoint has a convolution bias instead of batch norms.
        padding: what the code base pads with, where it is always the same.
        pytorch_eps: the variants whose batch norms have PyTorch's ε of 1e-5, not TensorFlow's 1e-3,
            where the padding is symmetric.
        pixels: what the code base's own weights of a variant were evaluated with, where it is not
            as in the reference.
        has_background: a head of 1001 classes begins with "background", which ImageNet has not.
        config: whose `config.json` may be beside the checkpoint, and is followed.
        pads_unless: set where the code base pads by itself as SAME does at the variant's own size,
            at any size: what would make it pad otherwise, as in `FixedPads`.
        is_configurable: whether the code base builds networks of several poolings and activations,
            so that the names do not tell them.
        telling_tensor: the one that tells the conventions of a network, where there is one.
    """

    name: str
    block: str
    modules: Mapping[str, str]
    modules_without_expansion: Mapping[str, str] = field(default_factory=dict)
    modules_fused: Mapping[str, str] = field(default_factory=dict)
    modules_single: Mapping[str, str] = field(default_factory=dict)
    batch_norm_folded: bool = False
    padding: Padding | None = None
    pytorch_eps: Collection[str] = ()
    pixels: Mapping[str, PixelConventions] = field(default_factory=dict)
    has_background: bool = False
    config: Literal["timm", "transformers"] | None = None
    pads_unless: str = ""
    is_configurable: bool = False
    telling_tensor: str | None = None


_OWN_MODULES = {
    path: path
    for path in (
        "stem.conv",
        "stem.bn",
        "expand.conv",
        "expand.bn",
        "depthwise.conv",
        "depthwise.bn",
        "se.reduce",
        "se.expand",
        "project.conv",
        "project.bn",
        "head.conv",
        "head.bn",
        "classifier",
    )
}

# https://github.com/keras-team/keras: efficientnet.py and efficientnet_v2.py of its applications.
_KERAS = NamingScheme(
    "Keras",
    "block{layer}{letter}_",
    {
        "stem.conv": "stem_conv",
        "stem.bn": "stem_bn",
        "expand.conv": "expand_conv",
        "expand.bn": "expand_bn",
        "depthwise.conv": "dwconv",
        "depthwise.bn": "bn",
        "se.reduce": "se_reduce",
        "se.expand": "se_expand",
        "project.conv": "project_conv",
        "project.bn": "project_bn",
        "head.conv": "top_conv",
        "head.bn": "top_bn",
        "classifier": "predictions",
    },
    padding="same",
)

_FEATURES = "features."
_TORCHVISION = NamingScheme(
    "torchvision",
    "features.{layer}.{block}.block.",
    {
        "stem.conv": "features.0.0",
        "stem.bn": "features.0.1",
        "expand.conv": "0.0",
        "expand.bn": "0.1",
        "depthwise.conv": "1.0",
        "depthwise.bn": "1.1",
        "se.reduce": "2.fc1",
        "se.expand": "2.fc2",
        "project.conv": "3.0",
        "project.bn": "3.1",
        "head.conv": "features.{after}.0",
        "head.bn": "features.{after}.1",
        "classifier": "classifier.1",
    },
    modules_without_expansion={
        "depthwise.conv": "0.0",
        "depthwise.bn": "0.1",
        "se.reduce": "1.fc1",
        "se.expand": "1.fc2",
        "project.conv": "2.0",
        "project.bn": "2.1",
    },
    modules_fused={"project.conv": "1.0", "project.bn": "1.1"},
    modules_single={"project.conv": "0.0", "project.bn": "0.1"},
    padding="symmetric",
    pytorch_eps=("b0", "b1", "b2", "b3", "b4"),
    pixels=TORCHVISION_PIXELS,
)

NAMING_SCHEMES = (
    NamingScheme(
        "effnet-edge",
        "stages.{stage}.{block}.",
        _OWN_MODULES,
        is_configurable=True,
        telling_tensor=TELLING_TENSOR,
    ),
    NamingScheme(
        "effnet-edge, batch norm folded",
        "stages.{stage}.{block}.",
        {
            **_OWN_MODULES,
            "stem.bn": "stem.conv",
            "expand.conv": "expand",
            "expand.bn": "expand",
            "depthwise.conv": "depthwise",
            "depthwise.bn": "depthwise",
            "project.conv": "project",
            "project.bn": "project",
            "head.bn": "head.conv",
        },
        batch_norm_folded=True,
    ),
    NamingScheme(
        "efficientnet-pytorch",
        "_blocks.{index}.",
        {
            "stem.conv": "_conv_stem",
            "stem.bn": "_bn0",
            "expand.conv": "_expand_conv",
            "expand.bn": "_bn0",
            "depthwise.conv": "_depthwise_conv",
            "depthwise.bn": "_bn1",
            "se.reduce": "_se_reduce",
            "se.expand": "_se_expand",
            "project.conv": "_project_conv",
            "project.bn": "_bn2",
            "head.conv": "_conv_head",
            "head.bn": "_bn1",
            "classifier": "_fc",
        },
        pads_unless="it is built with an image_size of {size}",
    ),
    NamingScheme(
        "geffnet",
        "blocks.{stage}.{block}.",
        {
            "stem.conv": "conv_stem",
            "stem.bn": "bn1",
            "expand.conv": "conv_pw",
            "expand.bn": "bn1",
            "depthwise.conv": "conv_dw",
            "depthwise.bn": "bn2",
            "se.reduce": "se.conv_reduce",
            "se.expand": "se.conv_expand",
            "project.conv": "conv_pwl",
            "project.bn": "bn3",
            "head.conv": "conv_head",
            "head.bn": "bn2",
            "classifier": "classifier",
        },
        modules_without_expansion={
            "depthwise.bn": "bn1",
            "project.conv": "conv_pw",
            "project.bn": "bn2",
        },
        modules_fused={
            "expand.conv": "conv_exp",
            "expand.bn": "bn1",
            "project.conv": "conv_pwl",
            "project.bn": "bn2",
        },
        modules_single={"project.conv": "conv", "project.bn": "bn1"},
        pytorch_eps=frozenset(VARIANTS),
        config="timm",
        is_configurable=True,
    ),
    _TORCHVISION,
    # What other modules take of it: `self.backbone = model.features`, or its children.
    replace(
        _TORCHVISION,
        name="torchvision, its features alone",
        block=_TORCHVISION.block.removeprefix(_FEATURES),
        modules={
            ours: theirs.removeprefix(_FEATURES) for ours, theirs in _TORCHVISION.modules.items()
        },
    ),
    _KERAS,
    replace(
        _KERAS,
        name="Keras, V2",
        modules={**_KERAS.modules, "depthwise.conv": "dwconv2"},
        pixels=KERAS_V2_PIXELS,
    ),
    NamingScheme(
        "TensorFlow reference",
        "blocks_{index}/",
        {
            "stem.conv": "stem/conv2d",
            "stem.bn": "stem/tpu_batch_normalization",
            "expand.conv": "conv2d",
            "expand.bn": "tpu_batch_normalization",
            "depthwise.conv": "depthwise_conv2d",
            "depthwise.bn": "tpu_batch_normalization_1",
            "se.reduce": "se/conv2d",
            "se.expand": "se/conv2d_1",
            "project.conv": "conv2d_1",
            "project.bn": "tpu_batch_normalization_2",
            "head.conv": "head/conv2d",
            "head.bn": "head/tpu_batch_normalization",
            "classifier": "head/dense",
        },
        modules_without_expansion={
            "depthwise.bn": "tpu_batch_normalization",
            "project.conv": "conv2d",
            "project.bn": "tpu_batch_normalization_1",
        },
        modules_fused={"project.bn": "tpu_batch_normalization_1"},
        modules_single={"project.conv": "conv2d", "project.bn": "tpu_batch_normalization"},
        padding="same",
        pixels=REFERENCE_PIXELS,
        has_background=True,
    ),
    # https://github.com/huggingface/transformers, models/efficientnet/modeling_efficientnet.py. Its
    # image processor divides twice by the root of ImageNet's deviation.
    NamingScheme(
        "Hugging Face transformers",
        "encoder.blocks.{index}.",
        {
            "stem.conv": "embeddings.convolution",
            "stem.bn": "embeddings.batchnorm",
            "expand.conv": "expansion.expand_conv",
            "expand.bn": "expansion.expand_bn",
            "depthwise.conv": "depthwise_conv.depthwise_conv",
            "depthwise.bn": "depthwise_conv.depthwise_norm",
            "se.reduce": "squeeze_excite.reduce",
            "se.expand": "squeeze_excite.expand",
            "project.conv": "projection.project_conv",
            "project.bn": "projection.project_bn",
            "head.conv": "encoder.top_conv",
            "head.bn": "encoder.top_bn",
            "classifier": "classifier",
        },
        padding="same",
        pixels=HUGGING_FACE_PIXELS,
        config="transformers",
        pads_unless="the depthwise_padding of its config.json is made for {size}",
        is_configurable=True,
    ),
    # https://github.com/WZMIAOMIAO/deep-learning-for-image-processing, pytorch_classification:
    # model.py of Test9_efficientNet and Test11_efficientnetV2. Both set ε to 1e-3.
    NamingScheme(
        "PyTorch tutorial",
        "features.{layer}{letter}.block.",
        {
            "stem.conv": "features.stem_conv.0",
            "stem.bn": "features.stem_conv.1",
            "expand.conv": "expand_conv.0",
            "expand.bn": "expand_conv.1",
            "depthwise.conv": "dwconv.0",
            "depthwise.bn": "dwconv.1",
            "se.reduce": "se.fc1",
            "se.expand": "se.fc2",
            "project.conv": "project_conv.0",
            "project.bn": "project_conv.1",
            "head.conv": "features.top.0",
            "head.bn": "features.top.1",
            "classifier": "classifier.1",
        },
        padding="symmetric",
        pixels=TUTORIAL_PIXELS,
    ),
    NamingScheme(
        "PyTorch tutorial, V2",
        "blocks.{index}.",
        {
            "stem.conv": "stem.conv",
            "stem.bn": "stem.bn",
            "expand.conv": "expand_conv.conv",
            "expand.bn": "expand_conv.bn",
            "depthwise.conv": "dwconv.conv",
            "depthwise.bn": "dwconv.bn",
            "se.reduce": "se.conv_reduce",
            "se.expand": "se.conv_expand",
            "project.conv": "project_conv.conv",
            "project.bn": "project_conv.bn",
            "head.conv": "head.project_conv.conv",
            "head.bn": "head.project_conv.bn",
            "classifier": "head.classifier",
        },
        padding="symmetric",
        pixels=TUTORIAL_PIXELS,
    ),
)


def translate(own_names: Iterable[str], scheme: NamingScheme) -> dict[str, str]:
    """Our tensor names → the scheme's, for all names of one network's state dict, in order.

    Tensors that a folded checkpoint has no counterpart for (batch norm's scale and statistics)
    and what is none (counters, `num_batches_tracked`, and the conventions) are left out.
    """
    names = [
        name
        for name in own_names
        if not name.endswith("num_batches_tracked") and name != TELLING_TENSOR
    ]
    block_indices: dict[tuple[str, str], int] = {}
    parts: dict[tuple[str, str], set[str]] = {}
    for name in names:
        if match := OWN_BLOCK.fullmatch(name):
            key = (match["stage"], match["block"])
            block_indices.setdefault(key, len(block_indices))
            parts.setdefault(key, set()).add(match["rest"].partition(".")[0])

    after = 1 + max(int(stage) for stage, _ in block_indices) + 1
    translated = {}
    for name in names:
        prefix, modules, rest = "", scheme.modules, name
        if match := OWN_BLOCK.fullmatch(name):
            key = (match["stage"], match["block"])
            prefix = scheme.block.format(
                stage=key[0],
                layer=int(key[0]) + 1,
                block=key[1],
                letter=chr(ord("a") + int(key[1])),
                index=block_indices[key],
            )
            rest = match["rest"]
            modules = {**modules, **_differing_modules(scheme, parts[key])}
        module, _, tensor = rest.rpartition(".")
        if scheme.batch_norm_folded and module.endswith("bn") and tensor != "bias":
            continue
        translated[name] = f"{prefix}{modules[module].format(after=after)}.{tensor}"
    return translated


def _differing_modules(scheme: NamingScheme, parts: set[str]) -> Mapping[str, str]:
    """What a block of these parts calls otherwise than a whole MBConv."""
    if "depthwise" in parts:
        return {} if "expand" in parts else scheme.modules_without_expansion
    return scheme.modules_fused if "expand" in parts else scheme.modules_single
