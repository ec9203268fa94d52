"""Small videos, made with PyAV: a red and a green quarter above a blue half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def quarters(height: int = 48, width: int = 64) -> npt.NDArray[np.uint8]:
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    pixels[height // 2 :] = BLUE
    return pixels


def seen(pixels: npt.NDArray[np.uint8]) -> str:
    """The colours of the four corners: of `quarters` "RG BB"."""
    names = {RED: "R", GREEN: "G", BLUE: "B"}
    corners = [pixels[y, x] for y in (4, -5) for x in (4, -5)]
    told = [names[tuple(255 * (int(value) > 127) for value in each)] for each in corners]
    return "".join((*told[:2], " ", *told[2:]))


def write_video(
    path: Path,
    *,
    frames: int = 20,
    rate: int = 10,
    codec: str = "libx264",
    pixels: npt.NDArray[np.uint8] | None = None,
    turned: dict[str, Any] | None = None,
    aspect: Any = None,
    **options: str,
) -> Path:
    """Write `pixels` so many times; `turned` are the arguments of `set_display_rotation`."""
    shown = quarters() if pixels is None else pixels
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = shown.shape[:2]
        stream.pix_fmt = "yuv420p"
        if turned:
            stream.set_display_rotation(**turned)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode(None))
    return path
