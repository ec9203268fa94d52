"""The programs in examples/, with a camera of three frames."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt


class Camera:
    """What OpenCV gives: BGR frames, and then no more."""

    def __init__(self, frame: npt.NDArray[np.uint8]) -> None:
        self.left, self.frame, self.released = 3, frame, False

    def read(self) -> tuple[bool, npt.NDArray[np.uint8] | None]:
        self.left -= 1
        return (True, self.frame.copy()) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.released = True


@pytest.mark.sample
def test_the_camera_loop_names_every_frame(
    openvino_fp32: Path,
    espresso: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    camera = Camera(np.asarray(Image.open(espresso).convert("RGB"))[:, :, ::-1])
    opencv = ModuleType("cv2")
    opencv.VideoCapture = lambda source: camera if source == 0 else None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cv2", opencv)
    monkeypatch.syspath_prepend(str(espresso.parent))
    import jetson_camera

    jetson_camera.main(str(openvino_fp32), "0")
    assert capsys.readouterr().out.splitlines() == ["espresso"] * 3
    assert camera.released
