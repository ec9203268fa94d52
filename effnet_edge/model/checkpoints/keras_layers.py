"""The layers of a Keras model's description in the order in which they compute."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from effnet_edge.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

_CONTAINERS = frozenset({"Functional", "Model", "Sequential", "InputLayer"})
# What computes nothing at inference, or only gives the same numbers another shape.
_PASSIVE = ("Dropout", "AlphaDropout", "Identity", "ActivityRegularization", "Flatten", "Reshape")
_PASSIVE_BEGINNINGS = ("Random", "SpatialDropout", "Gaussian")
_OPERATIONS = "keras.src.ops"


@dataclass(frozen=True)
class KerasLayer:
    """A layer as the description has it.

    Attributes:
        checkpoint: what errors call the file.
        module: where its class is defined; "" where the description does not say.
    """

    checkpoint: str
    kind: str
    module: str
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """The model's own for it."""
        return str(self.config.get("name"))

    @property
    def activation(self) -> str | None:
        """None where it has none; one that was made by hand is a description, too."""
        found = self.config.get("activation")
        return None if found in (None, "linear") else str(found)

    @property
    def is_operation(self) -> bool:
        """Whether it is a function that the model calls, such as `x * 5.0`, and no layer."""
        return self.module.startswith(_OPERATIONS) or self.kind.endswith("OpLambda")

    @property
    def is_passive(self) -> bool:
        """Whether it gives at inference the numbers that it gets."""
        return not self.is_operation and (
            self.kind in (*_CONTAINERS, *_PASSIVE) or self.kind.startswith(_PASSIVE_BEGINNINGS)
        )

    def numbers(self, key: str, default: float = 0.0) -> npt.NDArray[np.float64]:
        """Of its configuration, one for each channel or one for all."""
        value = self.config.get(key, default)
        while isinstance(value, dict):  # an array's own description
            value = value.get("config", value.get("value"))
        try:
            return np.asarray(value, np.float64).reshape(-1)
        except (TypeError, ValueError):
            self.refuse(f"has a {key} that is not read here", "make it a list of numbers")

    def refuse(self, what: str, why: str = "no EfficientNet here computes so") -> NoReturn:
        """Raise CheckpointError with the layer's name."""
        raise CheckpointError(
            f"{self.checkpoint}: its layer {self.name} ({self.kind}) {what}: {why}"
        )


def layers_in_order(checkpoint: str, text: str | bytes) -> list[KerasLayer]:
    """Those of the models within the model stand where the model does; [] without a description."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return list(_layers(checkpoint, document))


def _layers(checkpoint: str, document: Any) -> Iterator[KerasLayer]:
    waiting = [document]
    while waiting:
        layer = waiting.pop()
        config = layer.get("config") if isinstance(layer, dict) else None
        if not isinstance(config, dict):
            continue
        module = str(layer.get("module") or "")
        yield KerasLayer(checkpoint, str(layer.get("class_name")), module, config)
        inner = config.get("layers")
        waiting += reversed(inner) if isinstance(inner, list) else []
