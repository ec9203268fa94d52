"""The answers of an original that ran elsewhere: an `.npz` file of its inputs and its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import ImageError, UsageError, first_line
from effnet_edge.pictures.arrays import read_arrays

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from effnet_edge.pictures.image import Preprocessing

LOGITS, PIXELS, INPUTS = "logits", "pixels", "inputs"
SYNTAX = (
    f"an .npz file has {LOGITS} (N, classes) and either {PIXELS}, uint8 (N, H, W, C), or "
    f"{INPUTS}, float32 (N, C, H, W) as the original normalized them: numpy.savez(FILE, "
    f"{LOGITS}=…, {PIXELS}=…)"
)


def read_logits(
    path: Path, preprocessing: Preprocessing
) -> tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.float32]]:
    """What the original was given, and what it answered, float32 (N, classes).

    Raises:
        UsageError: the file is no such archive, or its arrays have other shapes or types.
    """
    try:
        arrays = read_arrays(path)
    except ImageError as error:
        raise UsageError(
            f"--against {path} cannot be read ({first_line(error)}): {SYNTAX}"
        ) from error
    given = [name for name in (PIXELS, INPUTS) if name in arrays]
    if LOGITS not in arrays or len(given) != 1:
        raise UsageError(f"--against {path} has {', '.join(sorted(arrays)) or 'nothing'}: {SYNTAX}")
    size, channels = preprocessing.resolution, preprocessing.channels
    shape = (size.height, size.width, channels)
    if given[0] == INPUTS:
        shape = (channels, size.height, size.width)
    inputs = _checked(path, given[0], arrays[given[0]], shape)
    logits = arrays[LOGITS]
    if logits.ndim != 2 or len(logits) != len(inputs) or logits.dtype.kind != "f":
        raise UsageError(
            f"--against {path}: {LOGITS} is {logits.dtype} {logits.shape}, not floating-point "
            f"({len(inputs)}, classes)"
        )
    return inputs, logits.astype(np.float32)


def _checked(
    path: Path, name: str, array: NDArray[np.generic], shape: tuple[int, ...]
) -> NDArray[np.uint8] | NDArray[np.float32]:
    wanted = np.dtype(np.uint8 if name == PIXELS else np.float32)
    if array.dtype != wanted or array.shape[1:] != shape or not len(array):
        raise UsageError(
            f"--against {path}: {name} is {array.dtype} {array.shape}, and the network takes "
            f"{wanted} (N, {', '.join(map(str, shape))})"
        )
    return array.astype(wanted)
