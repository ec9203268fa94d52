from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bundle_files import write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write(tmp_path / "b0-openvino-fp32").path
