"""Tensors of a checkpoint that are looked at before they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Groups = dict[str, dict[str, "TensorEntry"]]


@dataclass(frozen=True)
class TensorEntry:
    """A tensor in a file.

    Attributes:
        shape: all that choosing among tensors needs.
        is_float: whether its values are floating-point numbers.
        load: reads the values. Raises whatever its format's parser raises.
        fault: what keeps it from being read, and what helps; empty where nothing does.
    """

    shape: tuple[int, ...]
    is_float: bool
    load: Callable[[], Tensor]
    fault: str = ""


# torch.compile, FSDP and activation checkpointing each put a module around the one they are given,
# of the whole network or of any block.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def without_wrappers(name: str) -> str:
    """The name that the tensor or module would have had without what PyTorch wraps modules in."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def unwrapped(groups: Groups) -> Groups:
    """The same tensors by their names without wrappers, but where two would have the same name."""
    return {path: _unwrapped(entries) for path, entries in groups.items()}


def _unwrapped(entries: dict[str, TensorEntry]) -> dict[str, TensorEntry]:
    plain = {without_wrappers(name): entry for name, entry in entries.items()}
    return plain if len(plain) == len(entries) else entries


def entry_of(tensor: Tensor) -> TensorEntry:
    """Of a tensor that is in memory."""
    return TensorEntry(tuple(tensor.shape), tensor.is_floating_point(), lambda: tensor)
