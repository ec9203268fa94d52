"""How many threads compute, which is part of what is computed.

Libraries share out a sum among their threads, and floating-point sums depend on their order: with
another number of threads PyTorch's convolutions differ in their last bits, and so do the ranges
and biases that are read off them.

While one thread of PyTorch's OpenMP waits for another it spins for milliseconds, unless it has more
threads than cores. Where another program has a core, that is most of what a calibration computes:
`OMP_WAIT_POLICY=PASSIVE` lets it sleep. OpenMP reads it when PyTorch is loaded, so that it is set
by who starts the process: the command line does, a program of one's own has to.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

THREADS = 4
"""As many as compute an export, on every machine and whatever the environment says."""


@contextmanager
def same_threads() -> Iterator[None]:
    """Within, PyTorch computes with `THREADS` threads, on fewer cores in turns."""
    with _threads(THREADS):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """For many operations on small tensors.

    A second thread gains nothing there, and where another program has the second core each
    operation waits for it: the range selection then took up to ten times as long.
    """
    with _threads(1):
        yield


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
