from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from gpu_or_fake import fake_nvidia

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fake_tensorrt import FakeTensorRt
    from tensorrt_runs import Fake


@pytest.fixture
def fake() -> Iterator[Fake]:
    """The scripted CUDA and TensorRT, in place of any that are here."""
    with fake_nvidia() as modules:
        yield modules


@pytest.fixture
def library(fake: Fake) -> FakeTensorRt:
    return fake[1]
