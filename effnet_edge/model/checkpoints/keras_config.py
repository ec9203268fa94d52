"""The layers that a Keras model's own description names: what they compute beside their weights.

A `.keras` has it as `config.json`, a whole model's `.h5` as the attribute `model_config`; a file of
weights alone has none. Nothing in it is executed.
"""

from __future__ import annotations

import warnings
from typing import Any

from effnet_edge.errors import CheckpointError, CheckpointWarning
from effnet_edge.model.checkpoints.keras_layers import layers_in_order
from effnet_edge.model.network import BATCH_NORM_EPS

# Layers of keras/src/applications/efficientnet.py and efficientnet_v2.py, and what people put
# around them that changes nothing at inference or is seen in the weights.
_KNOWN = frozenset(
    {
        *("Functional", "Model", "Sequential", "InputLayer"),
        *("Conv2D", "DepthwiseConv2D", "ZeroPadding2D", "BatchNormalization", "Activation"),
        *("GlobalAveragePooling2D", "Reshape", "Multiply", "Add", "Dense", "Flatten"),
        *("Rescaling", "Normalization", "Softmax"),
        *("Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"),
        *("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomContrast"),
        *("RandomBrightness", "RandomCrop", "RandomHeight", "RandomWidth"),
    }
)
_OTHER_POOLINGS = frozenset({"GlobalMaxPooling2D", "MaxPooling2D", "AveragePooling2D"})
_INSIDE = frozenset({"linear", "swish", "silu", "sigmoid"})
_AT_THE_END = frozenset({*_INSIDE, "softmax"})


def check_layers(name: str, text: str | bytes) -> None:
    """Hold the layers that the description names against those of an EfficientNet.

    Args:
        name: of the checkpoint, for the errors.
        text: of the description, JSON.

    Raises:
        CheckpointError: a layer computes what none here does; the text names it.
    """
    unknown: dict[str, None] = {}
    for layer in layers_in_order(name, text):
        _check(name, layer.kind, layer.config)
        if layer.kind not in _KNOWN:
            unknown[layer.kind] = None
    if unknown:
        kinds = ", ".join(unknown)
        told = f"{name}: passed over: layers of the kind {kinds}, which are not known here"
        warnings.warn(told, CheckpointWarning, stacklevel=2)


def _check(name: str, kind: str, config: dict[str, Any]) -> None:
    if kind in _OTHER_POOLINGS:
        _refuse(name, config, f"pools otherwise than by the mean ({kind})")
    epsilon = config.get("epsilon")
    if kind == "BatchNormalization" and epsilon not in (None, BATCH_NORM_EPS):
        _refuse(name, config, f"has an epsilon of {epsilon!r}, not {BATCH_NORM_EPS:g}")
    # Where it stands is told apart in `keras_places`.
    allowed = _AT_THE_END if kind in ("Dense", "Activation") else _INSIDE
    activation = config.get("activation")
    if kind in _KNOWN and activation is not None and not _is_one(activation, allowed):
        _refuse(name, config, f"has the activation {activation!r}")


def _is_one(activation: Any, names: frozenset[str]) -> bool:
    """Whether it is of these names; one that was made by hand is a dictionary."""
    return isinstance(activation, str) and activation in names


def _refuse(name: str, config: dict[str, Any], what: str) -> None:
    raise CheckpointError(
        f"{name}: its layer {config.get('name')} {what}: no EfficientNet here computes so"
    )
