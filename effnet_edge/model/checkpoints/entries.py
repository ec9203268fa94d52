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


def entry_of(tensor: Tensor) -> TensorEntry:
    """Of a tensor that is in memory."""
    return TensorEntry(tuple(tensor.shape), tensor.is_floating_point(), lambda: tensor)
