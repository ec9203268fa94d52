"""OpenVINO's names of devices: of real ones, and of those that choose among the real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

# They are never listed as available themselves, and AUTO alone chooses among all.
_VIRTUAL_DEVICES = frozenset({"AUTO", "MULTI", "HETERO", "BATCH"})
_CHOOSES_AMONG_ALL = "AUTO"


def is_virtual(device: str) -> bool:
    """Whether it chooses among others: "AUTO", "MULTI:GPU,CPU"."""
    return device.partition(":")[0] in _VIRTUAL_DEVICES


def device_named(asked: str | None, available: Sequence[str]) -> str:
    """`asked` as OpenVINO takes it, the processor if None; "GPU" and "GPU.0" are the same GPU.

    Raises:
        UsageError: it, or one of those that it names, is not among the `available`.
    """
    device = "CPU" if asked is None else asked.upper()
    if not is_virtual(device):
        return _spelled(device, asked, available)
    chooser, _, named = device.partition(":")
    names = [each.strip() for each in named.split(",") if each.strip()]
    if not names and chooser != _CHOOSES_AMONG_ALL:
        raise UsageError(
            f"device {asked!r}: name the devices that it chooses among, as in {chooser}:CPU"
        )
    for each in names:
        if not each.startswith("-"):  # a device that is left out
            _spelled(each.partition("(")[0], asked, available)  # "GPU(4)": so many requests
    return device


def _spelled(device: str, asked: str | None, available: Sequence[str]) -> str:
    for spelling in (device, device.removesuffix(".0"), f"{device}.0"):
        if spelling in available:
            return spelling
    raise UsageError(
        f"device {asked!r} is not available to OpenVINO here: choose from {', '.join(available)}"
    )
