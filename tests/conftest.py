from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from once import AFRESH

from effnet_edge.machine import usable_cores

if TYPE_CHECKING:
    from collections.abc import Iterator

# No test asserts a time, and an example's takes as long as the machine is busy.
settings.register_profile("any time", deadline=None)
settings.load_profile("any time")

# The workers of pytest-xdist share the cores: threads that wait must not spin. As many threads as
# ever, because the last bits of sums depend on them.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell's background job starts with SIGINT ignored, and hands that down to what the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow", action="store_true", help="run the tests marked slow or sample as well"
    )
    parser.addoption("--sample", action="store_true", help="run those marked sample as well")
    parser.addoption(
        "--stress-seconds", type=float, default=20.0, help="how long the stress test takes in all"
    )
    parser.addoption(
        "--inferences", type=int, default=20_000, help="how many the test of memory's growth makes"
    )


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many a test waits for a process that it has started."""
    return usable_cores() + 1


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--slow"):
        os.environ[AFRESH] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: give --slow to run it")
    skipped = {"slow"} if config.getoption("--sample") else {"slow", "sample"}
    for item in items:
        if skipped & set(item.keywords):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """A command that ran in the tests' own process has left handlers that end it."""
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
