"""What a Keras model's own description says of its sizes: of its input, and of its paddings.

`correct_pad` of keras/src/applications/imagenet_utils.py works out the padding of each convolution
that skips pixels when the network is built, for the size of the input or, where that is open, for
even ones. It is a layer of its own then, and stays what it is.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import CheckpointError
from effnet_edge.size import Size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from effnet_edge.model.paddings import Pads

    Layers = list[dict[str, Any]]

_PADDING_LAYER = "ZeroPadding2D"
_SHAPES = ("batch_shape", "batch_input_shape")
"""Of an input, in Keras 3 and before."""
_STEM = "stem_conv"


@dataclass(frozen=True)
class StatedSizes:
    """What a file says of sizes; nothing where it has weights alone.

    Attributes:
        input: height and width that the EfficientNet was built for; None where they are open.
        pads: of the layers that pad, by their names.
    """

    input: Size | None = None
    pads: Mapping[str, Pads] = field(default_factory=dict)


UNSTATED = StatedSizes()


def read_sizes(name: str, text: str | bytes) -> StatedSizes:
    """From the description, JSON; `name` is the checkpoint's, for errors.

    Raises:
        CheckpointError: a layer pads with something that is no padding.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return UNSTATED
    models = list(_models(document))
    pads = {
        str(config.get("name")): _pads(name, config)
        for layers in models
        for layer in layers
        if layer.get("class_name") == _PADDING_LAYER and (config := _config(layer))
    }
    return StatedSizes(_input_size(models), pads)


def _models(document: Any) -> Iterator[Layers]:
    """The layers of each model, the outermost first."""
    waiting = deque([document])
    while waiting:
        layers = _config(waiting.popleft()).get("layers")
        if isinstance(layers, list):
            found = [layer for layer in layers if isinstance(layer, dict)]
            yield found
            waiting += found


def _config(layer: Any) -> dict[str, Any]:
    config = layer.get("config") if isinstance(layer, dict) else None
    return config if isinstance(config, dict) else {}


def _input_size(models: list[Layers]) -> Size | None:
    """That of the model with the stem; where that is open, the outermost model's."""
    with_stem = [
        layers for layers in models if any(_config(each).get("name") == _STEM for each in layers)
    ]
    for layers in (*with_stem, *models[:1]):
        sizes = {size for layer in layers if (size := _fixed_size(_config(layer)))}
        if len(sizes) == 1:
            return sizes.pop()
    return None


def _fixed_size(config: Mapping[str, Any]) -> Size | None:
    """Of pictures with the channels last, as the EfficientNets of Keras have them."""
    shape = next((config[key] for key in _SHAPES if key in config), None)
    if not isinstance(shape, list) or len(shape) != 4:
        return None
    sides = [each for each in shape[1:3] if type(each) is int and each > 0]
    return Size(*sides) if len(sides) == 2 else None


def _pads(name: str, config: Mapping[str, Any]) -> Pads:
    """Of a number, of one for either axis, or of two."""
    value = config.get("padding")
    axes = value if isinstance(value, list) else [value, value]
    pairs = [each if isinstance(each, list) else [each, each] for each in axes]
    numbers = [each for pair in pairs for each in pair if type(each) is int]
    if [len(pair) for pair in pairs] != [2, 2] or len(numbers) != 4:
        raise CheckpointError(
            f"{name}: its layer {config.get('name')} has the padding {value!r}, which is none"
        )
    top, bottom, left, right = numbers
    return (top, bottom), (left, right)
