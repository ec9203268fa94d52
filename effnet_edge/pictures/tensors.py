"""Arrays of other libraries that lie in the host's memory, taken where they are, by DLPack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from effnet_edge.errors import UsageError, first_line

if TYPE_CHECKING:
    import numpy.typing as npt

HostArray: TypeAlias = "npt.NDArray[Any]"

# DLDeviceType of the DLPack specification: the CPU's memory, and such that is pinned for CUDA.
_HOST_DEVICES = (1, 3)


def host_array(value: object) -> HostArray | None:
    """`value` as an array of NumPy in the same memory; None if it is no array, or on a GPU.

    Raises:
        UsageError: its library does not hand it out, for example as it takes part in a gradient.
    """
    if isinstance(value, np.ndarray):
        return value
    if not hasattr(value, "__dlpack_device__") or isinstance(value, type):
        return None
    giver: Any = value
    try:
        if giver.__dlpack_device__()[0] not in _HOST_DEVICES:
            return None
        return np.from_dlpack(giver)
    except Exception as error:
        raise UsageError(
            f"{type(value).__name__} is not handed out by DLPack: {first_line(error)}"
        ) from error
