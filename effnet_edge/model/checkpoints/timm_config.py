"""The `config.json` that timm puts beside the weights on the Hugging Face hub."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import CheckpointError, UsageError
from effnet_edge.model.checkpoints.config_reading import (
    ACTIVATIONS,
    CONFIG_NAME,
    ConfigFacts,
    KnownKeys,
    check_keys,
    chosen,
    one_value,
    positive,
    read_object,
    refuse,
)
from effnet_edge.model.families import EDGETPU
from effnet_edge.model.network import BATCH_NORM_EPS, PYTORCH_EPS
from effnet_edge.model.preprocessing import PixelConventions
from effnet_edge.model.variants import VARIANTS
from effnet_edge.pictures.image import MAX_CHANNELS
from effnet_edge.size import Size

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from effnet_edge.pictures.fitting import Fit

_FITS: dict[str, Fit] = {"center": "crop", "squash": "stretch", "border": "pad"}
_POOLINGS = {
    **dict.fromkeys(("avg", "fast", "fastavg"), "avg"),
    **dict.fromkeys(("max", "fastmax"), "max"),
    **dict.fromkeys(("avgmax", "fastavgmax"), "avgmax"),
}
_PADDINGS = {"": "symmetric", "symmetric": "symmetric", "same": "same"}
COLOURS = 3
_NETWORK_KEYS = ("global_pool", "act_layer", "pad_type", "bn_eps", "in_chans")

# Fields: `PretrainedCfg` of timm/models/_pretrained.py, `save_config_for_hf` of _hub.py, and the
# arguments of `EfficientNet` and `_gen_efficientnet` of efficientnet.py, timm 1.0.31. What only
# changes the tensors' shapes is harmless, as these are compared.
_KEYS = KnownKeys(
    read=frozenset(
        {
            *_NETWORK_KEYS,
            "architecture",
            "model_args",
            "pretrained_cfg",
            "num_classes",
            "input_size",
            "test_input_size",
            "crop_pct",
            "test_crop_pct",
            "crop_mode",
            "interpolation",
            "mean",
            "std",
        }
    ),
    harmless=frozenset(
        {
            # where it comes from
            *("url", "file", "hf_hub_id", "hf_hub_filename", "source", "tag", "custom_load"),
            *("license", "description", "origin_url", "paper_name", "paper_ids", "notes"),
            *("pretrained", "checkpoint_path", "cache_dir", "pretrained_strict"),
            # names and shapes
            *("num_features", "stem_size", "stem_kernel_size", "fix_stem", "group_size"),
            *("channel_multiplier", "depth_multiplier", "channel_divisor", "round_chs_fn"),
            *("first_conv", "classifier", "pool_size", "test_pool_size"),
            *("min_input_size", "fixed_input_size", "img_size"),
            # training only
            *("drop_rate", "drop_path_rate", "drop_connect_rate", "drop_block_rate"),
            *("bn_momentum", "scriptable", "exportable", "no_jit"),
            # of the wrapper in transformers
            *("architectures", "model_type", "torch_dtype", "dtype", "transformers_version"),
            *("initializer_range", "do_pooling"),
        }
    ),
    fixed={
        "output_stride": (32,),
        "bn_tf": (False,),
        "aa_layer": ("",),
        "norm_layer": ("batchnorm", "batchnorm2d", "bn"),
        "se_layer": (),
        "features_only": (False,),
        "label_offset": (0,),
    },
    # Names of classes: --labels gives them.
    named=frozenset({"label_names", "label_descriptions", "labels", "id2label", "label2id"}),
)

_ARCHITECTURE = re.compile(
    r"(tf_)?efficientnet(?P<second>v2)?_(?P<size>b\d|l2|lite\d|e[sml]|[sml])"
    r"(_(ap|ns|ns_475|in21k|in21ft1k|in1k))?(\..*)?"
)


def read_timm_config(checkpoint: Path) -> ConfigFacts | None:
    """That beside the checkpoint; None where there is none, or another program's.

    timm calls what it ported from TensorFlow `tf_…`; that has SAME padding and TensorFlow's ε, the
    rest PyTorch's, where `model_args` does not say otherwise. Its EdgeTPU networks stride in the
    expansion, which SAME pads as any other; those of their authors, and geffnet's, stride behind
    it. `test_input_size` and `test_crop_pct` are what accuracy was measured at.

    Raises:
        CheckpointError: it is timm's, and a value in it is not what it should be or cannot be
            followed; the text names file, key and value.
    """
    path = checkpoint.with_name(CONFIG_NAME)
    document = read_object(path)
    if document is None or not isinstance(document.get("architecture"), str):
        return None
    return understand(path, document)


def knows(architecture: str) -> bool:
    """Whether timm's name for a network stands for a variant here."""
    return _variant(architecture) is not None


def understand(path: Path, document: Mapping[str, Any]) -> ConfigFacts:
    """What the content of timm's `config.json` tells; `path` is of where it stands, for errors.

    Raises:
        CheckpointError: as `read_timm_config`.
    """
    config = document.get("pretrained_cfg", document)  # before timm 0.6 it was all one object
    arguments = document.get("model_args") or {}
    try:
        arguments = dict(arguments)
        channels, pixels = _pixels(config, arguments.get("in_chans") or COLOURS)
    except (
        TypeError,
        ValueError,
        AttributeError,
        LookupError,
        ArithmeticError,
        UsageError,
    ) as error:
        raise CheckpointError(
            f"{path} is not as timm writes it, or cannot be followed ({error}): correct it, or if "
            "what it says is not about these weights, take that out and say how they were trained "
            "with --padding"
        ) from error
    check_keys(path, arguments, _KEYS, builds_network=True)
    for section in (document,) if config is document else (document, config):
        check_keys(path, section, _KEYS, builds_network=False)
    return _facts(path, document, config, arguments, channels, pixels)


def _facts(
    path: Path,
    document: Mapping[str, Any],
    config: Mapping[str, Any],
    arguments: Mapping[str, Any],
    channels: int,
    pixels: PixelConventions,
) -> ConfigFacts:
    architecture, variant, is_ported = _architecture(path, document["architecture"])
    said = _Said(path, arguments, (document, config))
    family = VARIANTS[variant].family
    paddings = _PADDINGS | {"same": "same-timm" if family is EDGETPU else "same"}
    own_eps = BATCH_NORM_EPS if is_ported else PYTORCH_EPS
    numbers = [each.get("num_classes") for each in (arguments, document, config)]
    return ConfigFacts(
        path,
        padding=said.meaning("pad_type", paddings["same" if is_ported else ""], paddings),
        batch_norm_eps=said.number("bn_eps", own_eps),
        pooling=said.meaning("global_pool", "avg", _POOLINGS),
        activation=said.meaning("act_layer", family.activation, ACTIVATIONS),
        pixels=pixels,
        picture_channels=channels,
        stem_channels=one_value(path, "in_chans", arguments, document, config),
        num_classes=next((each for each in numbers if each), None),
        variant=variant,
        architecture=architecture,
        arguments=arguments,
        pretrained=config,
    )


@dataclass(frozen=True)
class _Said:
    """What a config says of the network: in `model_args`, or elsewhere, where timm ignores it.

    Elsewhere it must be what timm builds all the same: the file would be about another network
    than the one that timm makes of it.
    """

    path: Path
    arguments: Mapping[str, Any]
    elsewhere: tuple[Mapping[str, Any], ...]

    def meaning(self, key: str, default: Any, meanings: Mapping[str, Any]) -> Any:
        value = self._value(key)
        if value is None:
            return default
        return self._held(key, value, chosen(self.path, key, value, meanings), default)

    def number(self, key: str, default: float) -> float:
        value = self._value(key)
        if value is None:
            return default
        return float(self._held(key, value, positive(self.path, key, value), default))

    def _value(self, key: str) -> Any:
        return one_value(self.path, key, self.arguments, *self.elsewhere)

    def _held(self, key: str, value: Any, meaning: Any, default: Any) -> Any:
        if self.arguments.get(key) is None and meaning != default:
            why = "it stands outside of model_args, by which alone timm builds its network"
            refuse(self.path, key, value, why)
        return meaning


def _architecture(path: Path, name: str) -> tuple[str, str, bool]:
    """The name, the variant that it stands for, and whether it is ported from TensorFlow."""
    variant = _variant(name)
    if variant is None:
        refuse(
            path,
            "architecture",
            name,
            "that is none of timm's that are known here, such as efficientnet_b0, "
            "tf_efficientnet_b0 or efficientnetv2_s",
        )
    return name, variant, name.startswith("tf_")


def _variant(architecture: str) -> str | None:
    match = _ARCHITECTURE.fullmatch(architecture)
    size = match["size"] if match else ""
    variant = f"v2-{size}" if match and match["second"] else size
    return variant if variant in VARIANTS else None


def _pixels(config: Mapping[str, Any], stem_channels: int) -> tuple[int, PixelConventions]:
    """The channels of the pictures, and what these go through."""
    size = config.get("test_input_size") or config.get("input_size")
    crop = config.get("test_crop_pct") or config.get("crop_pct")
    crop_mode = config.get("crop_mode") or "center"
    if crop_mode not in _FITS:
        raise ValueError(f"crop_mode is {crop_mode!r}, not one of {', '.join(_FITS)}")
    interpolation = config.get("interpolation")
    if interpolation not in (None, "bicubic", "bilinear"):
        raise ValueError(f"interpolation is {interpolation!r}, not 'bicubic' or 'bilinear'")
    if crop is not None and not 0 < float(crop) <= 1:
        raise ValueError(f"crop_pct is {crop}, not above 0 and at most 1")
    channels, resolution = (stem_channels, None) if size is None else _size(size)
    return channels, PixelConventions(
        resolution=resolution,
        crop_fraction=None if crop is None else float(crop),
        interpolation=interpolation,
        mean=_per_channel("mean", config.get("mean"), channels),
        std=_per_channel("std", config.get("std"), channels),
        fit=_FITS[crop_mode],
    )


def _size(size: Any) -> tuple[int, Size]:
    """Channels, and the size of timm's (C, H, W)."""
    channels, height, width = (int(each) for each in size)
    if not 1 <= channels <= MAX_CHANNELS:
        raise ValueError(f"input_size is {size}; 1 to {MAX_CHANNELS} channels are supported")
    return channels, Size(height, width)


def _per_channel(key: str, values: Any, channels: int) -> tuple[float, ...] | None:
    """As timm reads it: a single value is every channel's."""
    if values is None:
        return None
    numbers = tuple(float(value) for value in values)
    if len(numbers) not in {1, channels}:
        raise ValueError(f"{key} is {values}, not one value for each of {channels} channels")
    if not all(map(math.isfinite, numbers)) or (key == "std" and min(numbers) <= 0):
        raise ValueError(f"{key} is {values}, which no pixels can be normalized with")
    return numbers * channels if len(numbers) == 1 else numbers
