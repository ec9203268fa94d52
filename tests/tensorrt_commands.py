"""Commands that build engines, in this process, where the libraries may be fakes."""

from __future__ import annotations

import signal
import sys

import pytest

from effnet_edge.cli.main import main


def command(*arguments: object) -> int:
    """The exit code of `effnet-edge ARGUMENTS…`."""
    usual = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["effnet-edge", *map(str, arguments)])
        try:
            with pytest.raises(SystemExit) as left:
                main()
        finally:
            signal.signal(signal.SIGTERM, usual)
    return int(left.value.code or 0)
