"""What a tensor beside a network's own is to it, as far as its name and its shape tell."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from effnet_edge.model.checkpoints.entries import TensorEntry

    Statistic = Literal["mean", "std"]

# Parameters and statistics of layers end so, also `in_proj_weight`; a metric's counters do not.
_LAYERS_LEAF = re.compile(r".*(weight|bias|kernel|gamma|beta|running_mean|running_var)(_\w{1,4})?")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_OF_TRAINING = re.compile(
    r" (loss(es)?|criteri(on|ons|a)|metrics?|optimizers?|ema decay) ", re.IGNORECASE
)
# Of thop's counters, of a loss, of contrastive learning, and of who writes down how training went.
_BOOKKEEPING = re.compile(
    r"total (ops|params)|(class|pos) weights?|(\w+ )?queue|(global )?step|epoch|lr|decay"
    r"|(best )?acc(uracy)?",
    re.IGNORECASE,
)
_STATISTIC = re.compile(r"(?!(running|target|label|output|y)s? )(\w+ )?(mean|std)s?", re.IGNORECASE)
_AXES_OF_PICTURES = 3


@dataclass(frozen=True)
class Place:
    """Where a network is in a dictionary, and what it takes.

    Attributes:
        asked_for: what comes before every name that a person asked for.
        own: what comes before every name of the network, its classifier's included.
        channels, classes: of its input and its output; None where no tensor tells.
    """

    asked_for: str
    own: str
    channels: int | None
    classes: int | None


@dataclass(frozen=True)
class Beside:
    """The tensors beside a network's own.

    Attributes:
        foreign: names of those that would change what it computes.
        statistics: what it normalizes its input with, by name.
        left_out: names of those that are nothing to it.
    """

    foreign: list[str] = field(default_factory=list)
    statistics: dict[str, TensorEntry] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def tell_apart(rest: Mapping[str, TensorEntry], place: Place) -> Beside:
    """Sort what a dictionary has beside the network's own tensors.

    Below what all of the network's names begin with, every number counts that is not known to be
    harmless: whoever wrote it into the module reads it there. Elsewhere only what looks like a
    layer's does, and what looks like the mean or the deviation of the input's channels.
    """
    beside = Beside()
    for name, entry in rest.items():
        if not name.startswith(place.asked_for):
            beside.left_out.append(name)
        elif _is_of_the_input(name, entry, place):
            beside.statistics[name] = entry
        elif _weighs(name, rest, place):
            beside.left_out.append(name)
        elif is_of_a_layer(name, entry, place.own) or _counts(name, entry, place.own):
            beside.foreign.append(name)
        else:
            beside.left_out.append(name)
    return beside


def is_of_a_layer(name: str, entry: TensorEntry, own: str = "") -> bool:
    """Whether the tensor would change what the network computes, as far as its name tells."""
    layer, _, leaf = name.rpartition(".")
    return bool(
        layer
        and entry.is_float
        and _LAYERS_LEAF.fullmatch(leaf)
        and not _BOOKKEEPING.fullmatch(_words(leaf))
        and not _is_of_training(name.removeprefix(own))
    )


def statistic(name: str) -> Statistic | None:
    """Which of the input's two the name is of: "normalize.mean", "pixel_std"."""
    found = _STATISTIC.fullmatch(_words(name.rpartition(".")[2]))
    if found is None:
        return None
    return "mean" if found[3].lower() == "mean" else "std"


def _is_of_the_input(name: str, entry: TensorEntry, place: Place) -> bool:
    """Whether it has a number for each channel, or one that its shape makes one of pictures."""
    if statistic(name) is None or place.channels is None or entry.fault:
        return False
    if _is_of_training(name.removeprefix(place.own)):
        return False
    numbers = math.prod(entry.shape)
    if numbers == 1:
        return len(entry.shape) >= _AXES_OF_PICTURES
    return numbers == place.channels


def _weighs(name: str, rest: Mapping[str, TensorEntry], place: Place) -> bool:
    """Whether a loss outside of the network weighs classes with it, or a metric its sum."""
    module, _, leaf = name.rpartition(".")
    if leaf != "weight" or name.startswith(place.own):
        return False
    shape = rest[name].shape
    if shape != (place.classes,):
        return shape == ()
    return not any(each.startswith(f"{module}.") for each in rest if each != name)


def _counts(name: str, entry: TensorEntry, own: str) -> bool:
    inside = name.removeprefix(own)
    return (
        name.startswith(own)
        and entry.is_float
        and (bool(entry.fault) or math.prod(entry.shape) > 0)
        and not _is_of_training(inside)
        and not _BOOKKEEPING.fullmatch(_words(inside.rpartition(".")[2]))
    )


def _is_of_training(name: str) -> bool:
    """Whether a loss has it, a metric or an optimizer; a "symmetric" layer is none of them."""
    return bool(_OF_TRAINING.search(f" {_words(name)} "))


def _words(name: str) -> str:
    return " ".join(_WORD.findall(name))
