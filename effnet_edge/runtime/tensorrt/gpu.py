"""The GPU that a person means, or the error that there is none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.machine import find_gpu

if TYPE_CHECKING:
    from effnet_edge.machine import Gpu

_DEVICE_NAME = re.compile(r"(?:gpu|cuda)(?:[:.](\d+))?|(\d+)", re.IGNORECASE)


def need_gpu(number: int = 0) -> Gpu:
    """Like `find_gpu`.

    Raises:
        BackendError: there is none of that number.
    """
    gpu = find_gpu(number)
    if gpu is None and number > 0:
        raise BackendError(f"there is no NVIDIA GPU number {number} here: choose GPU:0")
    if gpu is None:
        raise BackendError(
            "there is no NVIDIA GPU here, or its driver (libcuda.so.1) is not installed: "
            "run it on the device"
        )
    return gpu


def gpu_number(device: str | None) -> int:
    """Which GPU a person means: "GPU", "GPU:1", "cuda:1" and "1" are understood; 0 for None.

    Raises:
        UsageError: none of these.
    """
    if device is None:
        return 0
    match = _DEVICE_NAME.fullmatch(device)
    if match is None:
        raise UsageError(f"device {device!r}: TensorRT runs on a GPU: give GPU, or GPU:1 and so on")
    return int(match[1] or match[2] or 0)
