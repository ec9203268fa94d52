"""What the tests of building engines share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.runtime.tensorrt.build import build_engine

if TYPE_CHECKING:
    from fake_tensorrt import FakeConfig, FakeTensorRt

    from effnet_edge.bundle import Bundle
    from effnet_edge.runtime.tensorrt.plan import BuildOptions


FILE = "engine-sm87-test-gpu.plan"


def asked(library: FakeTensorRt, bundle: Bundle, options: BuildOptions) -> FakeConfig:
    build_engine(bundle, options)
    return library.configs[-1]
