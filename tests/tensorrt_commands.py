"""Commands that build engines, in this process, where the libraries may be fakes."""

from __future__ import annotations

import sys

import pytest

from effnet_edge.cli.main import main


def command(*arguments: object) -> int:
    """The exit code of `effnet-edge ARGUMENTS…`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["effnet-edge", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
    return int(left.value.code or 0)
