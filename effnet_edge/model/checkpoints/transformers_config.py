"""The `config.json` of an EfficientNet of Hugging Face transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effnet_edge.model.checkpoints.config_reading import (
    ACTIVATIONS,
    CONFIG_NAME,
    ConfigFacts,
    KnownKeys,
    check_keys,
    chosen,
    pass_over,
    positive,
    read_object,
    refuse,
)
from effnet_edge.model.preprocessing import PixelConventions
from effnet_edge.size import Size

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PREPROCESSOR_NAME = "preprocessor_config.json"

_POOLINGS = {"mean": "avg", "max": "max"}

# `EfficientNetConfig` and `PreTrainedConfig` of transformers 5.24. What only changes the tensors'
# shapes is harmless, as these are compared.
_KEYS = KnownKeys(
    read=frozenset(
        {
            *("hidden_act", "pooling_type", "batch_norm_eps", "num_channels", "image_size"),
            *("num_labels", "depthwise_padding"),
        }
    ),
    harmless=frozenset(
        {
            *("width_coefficient", "depth_coefficient", "depth_divisor"),
            *("in_channels", "out_channels", "num_block_repeats", "num_hidden_layers"),
            *("expand_ratios", "squeeze_expansion_ratio", "hidden_dim"),
            *("initializer_range", "batch_norm_momentum", "dropout_rate", "drop_connect_rate"),
            *("architectures", "model_type", "torch_dtype", "dtype", "transformers_version"),
            *("_name_or_path", "return_dict", "output_hidden_states", "output_attentions"),
            *("use_cache", "is_encoder_decoder", "chunk_size_feed_forward", "torchscript"),
        }
    ),
    fixed={
        "kernel_sizes": ([3, 3, 5, 3, 5, 5, 3],),
        "strides": ([1, 2, 2, 2, 1, 2, 1],),
    },
    # Names of classes, and what loss they were trained with: --labels and --multi-label.
    named=frozenset({"id2label", "label2id", "problem_type"}),
)


def read_transformers_config(checkpoint: Path) -> ConfigFacts | None:
    """That beside the checkpoint; None where there is none, or another program's.

    Raises:
        CheckpointError: a value in it cannot be followed; the text names file, key and value.
    """
    path = checkpoint.with_name(CONFIG_NAME)
    config = read_object(path)
    if config is None or config.get("model_type") != "efficientnet":
        return None
    check_keys(path, config, _KEYS, builds_network=False)
    if path.with_name(PREPROCESSOR_NAME).is_file():
        pass_over(path.with_name(PREPROCESSOR_NAME), "all of it (say --mean and --std if it does)")
    channels = _whole(path, config, "num_channels")
    return ConfigFacts(
        path,
        padding="same",
        batch_norm_eps=positive(path, "batch_norm_eps", config.get("batch_norm_eps", 1e-3)),
        pooling=chosen(path, "pooling_type", config.get("pooling_type", "mean"), _POOLINGS),
        activation=chosen(path, "hidden_act", config.get("hidden_act", "swish"), ACTIVATIONS),
        pixels=PixelConventions(resolution=_size(path, config), crop_fraction=1.0, fit="stretch"),
        stem_channels=channels,
        num_classes=_whole(path, config, "num_labels"),
        centred_blocks=_centred_blocks(path, config),
    )


def _centred_blocks(path: Path, config: Mapping[str, Any]) -> tuple[int, ...]:
    key = "depthwise_padding"
    blocks = config.get(key) or []
    if not isinstance(blocks, list) or any(type(each) is not int for each in blocks):
        refuse(path, key, blocks, "it must be a list of whole numbers")
    return tuple(blocks)


def _whole(path: Path, config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    if value is not None and (type(value) is not int or value < 1):
        refuse(path, key, value, "it must be a whole number above 0")
    return value


def _size(path: Path, config: Mapping[str, Any]) -> Size | None:
    size = config.get("image_size")
    if not isinstance(size, list):
        side = _whole(path, config, "image_size")
        return None if side is None else Size.of(side)
    if len(size) != 2 or any(type(each) is not int or each < 1 for each in size):
        refuse(path, "image_size", size, "it must be one or two whole numbers above 0")
    return Size(*size)
