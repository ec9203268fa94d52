"""What the tests of building engines share."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

from effnet_edge.cli.main import main
from effnet_edge.runtime.tensorrt.build import build_engine

if TYPE_CHECKING:
    from fake_tensorrt import FakeConfig, FakeTensorRt

    from effnet_edge.bundle import Bundle
    from effnet_edge.runtime.tensorrt.plan import BuildOptions


FILE = "engine-sm87-test-gpu.plan"


def asked(library: FakeTensorRt, bundle: Bundle, options: BuildOptions) -> FakeConfig:
    build_engine(bundle, options)
    return library.configs[-1]


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
