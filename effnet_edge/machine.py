"""What this machine is, what its processor can do, and its GPU: asked of the system alone."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_CPUINFO = Path("/proc/cpuinfo")
_DPKG_STATUS = Path("/var/lib/dpkg/status")

_X86 = frozenset({"x86_64", "amd64", "i686"})
_ARM = frozenset({"aarch64", "arm64"})
# Linux's name for vector arithmetic in FP16 (Armv8.2, FEAT_FP16).
_ARM_FP16 = "asimdhp"
# Linux's names for the instructions that add products of bytes in 32 bit (Intel, "Intel
# Architecture Instruction Set Extensions", VPDPBUSD and TDPBUSD).
_VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
# oneDNN, whose kernels OpenVINO runs, takes no instructions beyond those that the first of these
# names which is set; capitals do not matter, and what it does not know it ignores.
_ONEDNN_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_ONEDNN_SETS_WITHOUT_VNNI = frozenset({"SSE41", "AVX", "AVX2", "AVX512_CORE"})

_OVERFLOW = "add pairs of INT8 products in 16 bit here, and large ones overflow"
_NO_VNNI = f"this processor has no VNNI: OpenVINO and ONNX Runtime {_OVERFLOW}"
_USE_SEVEN_BITS = "use a bundle made with --weight-bits 7"
INT8_OVERFLOWS = f"{_NO_VNNI}: {_USE_SEVEN_BITS}"
NO_EIGHT_BITS = f"{_NO_VNNI}: leave it out, or export on a processor with VNNI"

OPENVINO_INT8_ON_ARM = (
    "OpenVINO computes the convolutions of an INT8 model in FP16 on ARM processors"
)
NO_FP16_ON_ARM = (
    f"{OPENVINO_INT8_ON_ARM}, and this one has no FP16 arithmetic (it came with Armv8.2): use a "
    "bundle made with --fp32, or with --target onnxruntime"
)


@dataclass(frozen=True)
class Machine:
    """What a manifest tells of the machine that built its bundle: system, processor, Python."""

    platform: str
    processor: str
    python: str

    @classmethod
    def here(cls) -> Machine:
        """Describe the machine that runs this."""
        return cls(platform.platform(), processor_name(), platform.python_version())


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU: its name, compute capability ("8.7") and the driver's CUDA version."""

    name: str
    compute_capability: str
    cuda: str


def usable_cores() -> int:
    """How many of the machine's cores this process may use, 1 or more."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def most_threads() -> int:
    """The most threads, or batches at once, that are asked for on purpose.

    ONNX Runtime starts as many as it is told, and they spin: a hundred thousand hold the machine
    up for minutes.
    """
    return max(256, os.cpu_count() or 1)


def processor_name(cpuinfo: Path = _CPUINFO) -> str:
    """Tell the processor's model, which `platform` does not know on Linux."""
    fallback = platform.processor() or platform.machine()
    return next(iter(_cpuinfo_values(cpuinfo, "model name")), fallback)


def instruction_sets(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """Give Linux's names of the instruction sets here ("avx512_vnni"); none where unknown."""
    told = (*_cpuinfo_values(cpuinfo, "flags"), *_cpuinfo_values(cpuinfo, "Features"))
    return frozenset(next(iter(told), "").split())


def int8_overflows(cpuinfo: Path = _CPUINFO, machine: str | None = None) -> bool:
    """Whether INT8 convolutions of uint8 by int8 lose large sums on this processor.

    x86 without VNNI multiplies bytes with VPMADDUBSW, which adds two products in saturating 16-bit
    arithmetic: 2·255·127 does not fit. False where nothing is known.
    """
    if not is_x86(machine):
        return False
    sets = instruction_sets(cpuinfo)
    return bool(sets) and _VNNI.isdisjoint(sets)


def setting_without_vnni(environment: Mapping[str, str] = os.environ) -> str | None:
    """The environment's variable that lets OpenVINO use no VNNI, "NAME=VALUE"; None without one."""
    limits = ((name, environment.get(name)) for name in _ONEDNN_LIMITS)
    name, value = next(((name, value) for name, value in limits if value), ("", ""))
    return f"{name}={value}" if value.upper() in _ONEDNN_SETS_WITHOUT_VNNI else None


def int8_overflows_by(setting: str) -> str:
    """What is told of weights of 8 bits under a `setting_without_vnni`."""
    return f"{setting} lets OpenVINO {_OVERFLOW}: unset it, or {_USE_SEVEN_BITS}"


def is_x86(machine: str | None = None) -> bool:
    """Whether this is an x86 processor."""
    return (machine or platform.machine()).lower() in _X86


def is_arm(machine: str | None = None) -> bool:
    """Whether this is a 64-bit ARM processor."""
    return (machine or platform.machine()).lower() in _ARM


def is_arm_without_fp16(cpuinfo: Path = _CPUINFO, machine: str | None = None) -> bool:
    """Whether this ARM processor computes no FP16, as a Cortex-A72; False where nothing is known.

    Such a core loads FP16 as numbers, but has no arithmetic on them.
    """
    sets = instruction_sets(cpuinfo)
    return is_arm(machine) and bool(sets) and _ARM_FP16 not in sets


def find_gpu(index: int = 0) -> Gpu | None:
    """Ask NVIDIA's driver for the GPU of that number; None without one, or without the driver.

    Nothing else needs to be installed for it.
    """
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


def jetpack_version(dpkg_status: Path = _DPKG_STATUS) -> str | None:
    """Tell the version of the Debian package nvidia-jetpack ("6.2+b77"), or None off a Jetson."""
    found = re.search(
        r"^Package: nvidia-jetpack\n(?:.+\n)*?Version: (\S+)", _text(dpkg_status), re.MULTILINE
    )
    return found.group(1) if found else None


def _cpuinfo_values(cpuinfo: Path, key: str) -> list[str]:
    """What `/proc/cpuinfo` says under that key, core by core."""
    lines = (line.partition(":") for line in _text(cpuinfo).splitlines())
    return [value.strip() for name, _, value in lines if name.strip() == key]


def _text(path: Path) -> str:
    """A system file's content; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
