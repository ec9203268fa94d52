"""What takes long is made once a run, also where several workers of pytest-xdist need it."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


AFRESH = "EFFNET_EDGE_TESTS_START_AFRESH"
"""The variable of the environment that lets every command of a test be a process of its own."""


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object], product: str
) -> Path:
    """Have `make` write `product` into a folder called `name`; the first worker that asks does."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / product).exists():
            make(folder)
    return folder / product
