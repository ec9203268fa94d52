from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes the models that a test opens."""
    with ExitStack() as stack:
        yield stack
