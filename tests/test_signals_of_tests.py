from __future__ import annotations

import signal

import pytest


def left_over(*_: object) -> None:
    pass


@pytest.mark.parametrize("turn", ["first", "second"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_a_test_makes_of_a_signal_ends_with_it(number: int, turn: str) -> None:
    """As where a command ran in this process: its handler would end the next test's process."""
    assert signal.getsignal(number) is not left_over, turn
    signal.signal(number, left_over)
