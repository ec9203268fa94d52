"""A `config.json` beside a checkpoint: every key that it has is followed, known, named or refused.

Which keys there are stands in a `KnownKeys` of each program that writes such files.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from effnet_edge.errors import CheckpointError, CheckpointWarning
from effnet_edge.model.preprocessing import AS_REFERENCE, PixelConventions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from effnet_edge.model.architecture import Activation, Pooling
    from effnet_edge.model.variants import Padding

CONFIG_NAME = "config.json"
ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu6": "relu6",
}
"""By the names that PyTorch's programs have for them."""

_VALUE_LENGTH = 60
_LARGEST_CONFIG = 16 << 20  # bytes; they have some kB


@dataclass(frozen=True)
class ConfigFacts:
    """What a config tells of a checkpoint that the tensors do not. What is None, it does not tell.

    Attributes:
        path: of the config, for errors.
        pixels: what pictures go through.
        activation: None for the variant's own.
        picture_channels: of the pictures that `pixels` is about.
        stem_channels: that the network was built with.
        variant: that its name for the network stands for.
        architecture, arguments: by which the program that wrote it builds the network.
        pretrained: its own description of the pictures, as it stands in the file.
        centred_blocks: of a program that pads without regard to the size, the blocks in which it
            pads alike on both sides; None where the padding follows the size.
    """

    path: Path
    padding: Padding
    batch_norm_eps: float | None = None
    pooling: Pooling = "avg"
    activation: Activation | None = None
    pixels: PixelConventions = AS_REFERENCE
    picture_channels: int | None = None
    stem_channels: int | None = None
    num_classes: int | None = None
    variant: str | None = None
    architecture: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    pretrained: Mapping[str, Any] = field(default_factory=dict)
    centred_blocks: tuple[int, ...] | None = None

    def check(self, variant: str, stem_channels: int | None, num_classes: int | None) -> None:
        """Compare with what the tensors tell.

        Raises:
            CheckpointError: it is of another network.
        """
        if self.variant is not None and self.variant != variant:
            refuse(
                self.path, "architecture", self.architecture, f"the tensors are those of {variant}"
            )
        if stem_channels is not None:
            self._check_channels(stem_channels)
        if _differs(self.num_classes, num_classes):
            pass_over(
                self.path, f"num_classes {self.num_classes} (the classifier has {num_classes})"
            )

    def _check_channels(self, stem_channels: int) -> None:
        has = f"the stem's weights have {stem_channels} channels"
        if _differs(self.stem_channels, stem_channels):
            refuse(self.path, "in_chans", self.stem_channels, has)
        told = self.picture_channels
        if _differs(told, stem_channels):
            if told != 3:
                refuse(self.path, "input_size[0]", told, has)
            pass_over(self.path, f"the {told} channels of input_size ({has})")


def _differs(said: Any, found: int | None) -> bool:
    """Whether both are there, and what is said, which may be anything, is something else."""
    return said is not None and found is not None and bool(said != found)


@dataclass(frozen=True)
class KnownKeys:
    """The keys of one program's configs.

    Attributes:
        read: those whose values are followed.
        harmless: those that change no answer, or only what the tensors' shapes tell anyway.
        fixed: those that may have one of these values, and no other.
        named: those that are told as passed over whenever they say something.
    """

    read: frozenset[str]
    harmless: frozenset[str]
    fixed: Mapping[str, tuple[Any, ...]]
    named: frozenset[str] = frozenset()


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is no such file, or something else in it.

    Nobody named the file: it may be a pipe, which never answers, or a device without an end.
    """
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_CONFIG:
            return None
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def check_keys(
    path: Path, section: Mapping[str, Any], known: KnownKeys, *, builds_network: bool
) -> None:
    """Refuse or name what is not followed.

    Args:
        builds_network: whether each of its keys changes the network, so that one that is not known
            is refused.

    Raises:
        CheckpointError: naming the key and its value.
    """
    passed_over = []
    for key, value in section.items():
        if value is None or key in known.read or key in known.harmless:
            continue
        if key in known.fixed:
            if not any(type(value) is type(each) and value == each for each in known.fixed[key]):
                choices = " or ".join(map(repr, known.fixed[key])) or "none"
                refuse(path, key, value, f"only {choices} is supported")
        elif builds_network and key not in known.named:
            refuse(path, key, value, "what that changes is not known here")
        else:
            passed_over.append(f"{key} ({_shown(value)})")
    if passed_over:
        pass_over(path, ", ".join(passed_over))


def one_value(path: Path, key: str, *sections: Mapping[str, Any]) -> Any:
    """What the sections say of a key; None where none says anything.

    Raises:
        CheckpointError: they contradict each other.
    """
    said = [section[key] for section in sections if section.get(key) is not None]
    others = [value for value in said if value != said[0]]
    if others:
        refuse(path, key, said[0], f"{_shown(others[0])} in another place of the file")
    return said[0] if said else None


def chosen(path: Path, key: str, value: Any, meanings: Mapping[str, Any]) -> Any:
    """What a value means by that table.

    Raises:
        CheckpointError: the table does not have it.
    """
    if not isinstance(value, str) or value.lower() not in meanings:
        refuse(path, key, value, f"only {', '.join(map(repr, meanings))} are supported")
    return meanings[value.lower()]


def positive(path: Path, key: str, value: Any) -> float:
    """The number; raises `CheckpointError` for anything else, and for one that is not above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        refuse(path, key, value, "it must be a number above 0 and below 1")
    return float(value)


def refuse(path: Path, key: str, value: Any, why: str) -> NoReturn:
    """Raise CheckpointError for a value that cannot be followed."""
    raise CheckpointError(
        f"{path}: {key} is {_shown(value)}, and {why}: the network cannot be exported as "
        "that file describes it; correct the file if it is wrong"
    )


def pass_over(path: Path, what: str) -> None:
    """Warn of what is not followed."""
    warnings.warn(f"{path}: passed over: {what}", CheckpointWarning, stacklevel=2)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _VALUE_LENGTH else f"{text[:_VALUE_LENGTH]}…"
