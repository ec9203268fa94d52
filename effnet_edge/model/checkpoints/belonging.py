"""What a tensor beside a network's own is to it, as far as its name and its shape tell."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnet_edge.model.checkpoints.entries import TensorEntry

# Parameters and statistics of layers end so, also `in_proj_weight`; a metric's counters do not.
_LAYERS_LEAF = re.compile(r".*(weight|bias|kernel|gamma|beta|running_mean|running_var)(_\w{1,4})?")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_OF_TRAINING = re.compile(
    r" (loss(es)?|criteri(on|ons|a)|metrics?|optimizers?|ema decay) ", re.IGNORECASE
)


def is_of_a_layer(name: str, entry: TensorEntry) -> bool:
    """Whether the tensor would change what the network computes, as far as its name tells."""
    layer, _, leaf = name.rpartition(".")
    return bool(
        layer and entry.is_float and _LAYERS_LEAF.fullmatch(leaf) and not _is_of_training(name)
    )


def _is_of_training(name: str) -> bool:
    """Whether a loss has it, a metric or an optimizer; a "symmetric" layer is none of them."""
    return bool(_OF_TRAINING.search(f" {' '.join(_WORD.findall(name))} "))
