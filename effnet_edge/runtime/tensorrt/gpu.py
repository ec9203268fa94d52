"""The GPU of this machine, asked of NVIDIA's driver alone: nothing needs to be installed for it."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

from effnet_edge.errors import BackendError, UsageError

_DEVICE_NAME = re.compile(r"(?:gpu|cuda)(?:[:.](\d+))?|(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name, compute capability ("8.7") and the driver's CUDA version."""

    name: str
    compute_capability: str
    cuda: str


def find_gpu(index: int = 0) -> Gpu | None:
    """The GPU that the CUDA driver gives that number, or None."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, version, major, minor = (ctypes.c_int() for _ in range(4))
    name = ctypes.create_string_buffer(256)
    calls = (
        lambda: cuda.cuInit(0),
        lambda: cuda.cuDeviceGet(ctypes.byref(device), index),
        lambda: cuda.cuDriverGetVersion(ctypes.byref(version)),
        lambda: cuda.cuDeviceGetName(name, len(name), device),
        # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the CUDA driver API.
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device),
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device),
    )
    if any(call() != 0 for call in calls):  # type: ignore[no-untyped-call]
        return None
    return Gpu(
        name.value.decode(errors="replace"),
        f"{major.value}.{minor.value}",
        f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


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


def jetpack_version(dpkg_status: Path = Path("/var/lib/dpkg/status")) -> str | None:
    """The version of the package nvidia-jetpack, or None off a Jetson."""
    try:
        text = dpkg_status.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^Package: nvidia-jetpack\n(?:.+\n)*?Version: (\S+)", text, re.MULTILINE)
    return found.group(1) if found else None
