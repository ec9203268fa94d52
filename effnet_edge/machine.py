"""What this machine is and what its processor can do."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

_X86 = frozenset({"x86_64", "amd64", "i686"})
# Linux's names for the instructions that add products of bytes in 32 bit (Intel, "Intel
# Architecture Instruction Set Extensions", VPDPBUSD and TDPBUSD).
_VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})

INT8_OVERFLOWS = (
    "this processor has no VNNI: OpenVINO and ONNX Runtime add pairs of INT8 products in 16 bit "
    "here, and large ones overflow: use --weight-bits 7"
)


@dataclass(frozen=True)
class Machine:
    """The machine that built the bundle."""

    platform: str
    processor: str
    python: str

    @classmethod
    def here(cls) -> Machine:
        """Describe the machine that runs this."""
        return cls(platform.platform(), _processor(), platform.python_version())


def int8_overflows(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str | None = None) -> bool:
    """Whether INT8 convolutions of uint8 by int8 lose large sums on this processor.

    x86 without VNNI multiplies bytes with VPMADDUBSW, which adds two products in saturating 16-bit
    arithmetic: 2·255·127 does not fit. False where nothing is known.
    """
    if (machine or platform.machine()).lower() not in _X86:
        return False
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return bool(flags) and _VNNI.isdisjoint(flags)


def _processor() -> str:
    """The processor's model name, which `platform` does not know on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
