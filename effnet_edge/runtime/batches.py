"""Any number of images for an engine that takes a limited number, or just one number, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from effnet_edge.bundle import BatchRange
    from effnet_edge.runtime.device_array import DeviceArray
    from effnet_edge.runtime.entrance import Batch

Logits: TypeAlias = npt.NDArray[np.float32]


def in_batches(
    infer: Callable[[Batch | DeviceArray], Logits],
    batch: Batch | DeviceArray,
    sizes: BatchRange,
    outputs: int,
) -> Logits:
    """The engine's answers (N, outputs): larger batches are split, smaller ones padded."""
    if sizes.minimum <= len(batch) <= sizes.maximum:
        return infer(batch)
    parts = [_padded(infer, part, sizes.minimum) for part in _split(batch, sizes.maximum)]
    return np.concatenate([np.empty((0, outputs), np.float32), *parts])


def _padded(
    infer: Callable[[Batch | DeviceArray], Logits], part: Batch | DeviceArray, minimum: int
) -> Logits:
    missing = minimum - len(part)
    if missing <= 0 or not isinstance(part, np.ndarray):
        return infer(part)
    padded = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
    return infer(padded)[: len(part)].copy()


def _split(batch: Batch | DeviceArray, size: int) -> Iterator[Batch | DeviceArray]:
    for start in range(0, len(batch), size):
        yield batch[start : start + size]
