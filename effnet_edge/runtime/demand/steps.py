"""The memory and the work of a model, as steps that any format's reader can tell.

A bundle is checked by its hashes, but may come from anybody. What it may hold is what an exported
EfficientNet holds: no loops, no shape that is computed, and tensors and sums that an honest one of
the largest variant has, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

MOST_BYTES = 2 << 30
"""Of tensors that are there together, for the smallest batch; an l2 of 800 px has half."""
MOST_WORK = 2 * 10**12
"""Multiplications, and numbers read or written, for that batch; an l2 of 800 px has a third."""
MOST_STEPS = 50_000
"""Of a model; an l2 in INT8 has a tenth."""
MOST_DIMENSIONS = 8

_CHANNELS_AT_ONCE = 16
_WORK_OF_A_NUMBER = 4


class ForeignError(Exception):
    """The model has what an exported one never has; the text says what."""


@dataclass(frozen=True)
class Step:
    """One operation of a model.

    Attributes:
        name: for people.
        reads: the values that it takes.
        makes: the bytes of each value that it gives.
        scratch: bytes that it needs besides while it runs.
        multiplications: that it makes.
        kept: bytes of constants that are larger in memory than in their file.
    """

    name: str
    reads: Sequence[Hashable]
    makes: Mapping[Any, int]
    scratch: int = 0
    multiplications: int = 0
    kept: int = 0


def size_in_memory(shape: Sequence[int], item_bytes: int) -> int:
    """Bytes of a tensor as the engines lay it out: of images, channels in groups of 16."""
    if len(shape) >= 4:
        channels = -(-shape[1] // _CHANNELS_AT_ONCE) * _CHANNELS_AT_ONCE
        shape = (shape[0], channels, *shape[2:])
    return math.prod(shape) * max(item_bytes, 4)


def refuse_greedy(steps: Iterable[Step], file: object) -> None:
    """Refuse a model that takes more than `MOST_BYTES` or `MOST_WORK`.

    Raises:
        BundleError: naming the file and what is too much.
    """
    whole = list(steps)
    last = {value: place for place, step in enumerate(whole) for value in step.reads}
    sizes: dict[Hashable, int] = {}
    held = work = 0
    for place, step in enumerate(whole):
        sizes.update(step.makes)
        held += sum(step.makes.values()) + step.kept
        numbers = sum(step.makes.values()) + sum(sizes.get(value, 0) for value in step.reads)
        work += step.multiplications + numbers // 4 * _WORK_OF_A_NUMBER
        if held + step.scratch > MOST_BYTES:
            raise greedy(
                file, step.name, f"{(held + step.scratch) / 2**30:.1f} GiB", "memory", "2 GiB"
            )
        if work > MOST_WORK:
            raise greedy(file, step.name, f"{work:.1e} operations", "work", f"{MOST_WORK:.0e}")
        for value in {value for value in step.reads if last[value] == place}:
            held -= sizes.pop(value, 0)


def greedy(file: object, name: str, found: str, what: str, most: str) -> BundleError:
    """The one line for a model that takes too much."""
    return BundleError(
        f"{file}: takes {found} of {what} up to its node {name!r}, and {most} is the most: "
        "export it with a smaller or a dynamic batch"
    )


def foreign(file: object, why: str) -> BundleError:
    """The one line for a model that no export makes."""
    return BundleError(
        f"{file}: {why}: no EfficientNet is exported so, and it is not loaded; export the "
        "bundle again"
    )
