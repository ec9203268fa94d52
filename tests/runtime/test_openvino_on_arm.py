from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from effnet_edge.errors import BackendError
from effnet_edge.runtime import openvino
from effnet_edge.runtime.backend import EngineSpec

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("precision", "lacks_fp16", "told"),
    [
        ("int8", True, "no FP16 arithmetic (it came with Armv8.2): use a bundle made with --fp32"),
        ("int8", False, "object is not initialized"),
        ("fp32", True, "object is not initialized"),
    ],
)
def test_a_model_that_needs_fp16_says_so_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, lacks_fp16: bool, told: str
) -> None:
    """The message is OpenVINO 2026.4.1's own for INT8 on a Cortex-A72."""

    def refuse(*_: object) -> None:
        raise RuntimeError(
            "Exception from src/inference/src/cpp/core.cpp:117:\nobject is not initialized\n\n"
        )

    core = SimpleNamespace(available_devices=["CPU"], compile_model=refuse)
    monkeypatch.setattr(openvino, "openvino_core", lambda: core)
    monkeypatch.setattr(openvino, "is_arm_without_fp16", lambda: lacks_fp16)
    monkeypatch.setattr(openvino, "is_x86", lambda: False)
    with pytest.raises(BackendError) as caught:
        openvino.compile_model(None, EngineSpec(tmp_path / "model.xml", precision))
    assert told in str(caught.value)
    assert str(tmp_path / "model.xml") in str(caught.value)
    assert "\n" not in str(caught.value)
