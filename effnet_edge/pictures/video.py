"""Videos and cameras: frame after frame, as they come, decoded in another process.

PyAV decodes them, which is FFmpeg with its time stamps, its display matrix and its limits. What
comes back is parsed as data, too.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from effnet_edge.arguments import number_between, path_text
from effnet_edge.errors import BackendError, ImageError, UsageError
from effnet_edge.extras import install_hint
from effnet_edge.pictures.decoding import open_file
from effnet_edge.pictures.sources import ReadPicture
from effnet_edge.pictures.video_child import LENGTH_BYTES, SECONDS_A_FRAME
from effnet_edge.processes import places_of_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effnet_edge.pictures.image import Pixels, Preprocessing

VIDEO_EXTENSIONS = frozenset(
    f".{each}"
    for each in (
        *("mp4", "m4v", "mov", "3gp", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "mts", "m2ts"),
        *("wmv", "asf", "flv", "ogv", "mxf"),
    )
)

_CAMERA = re.compile(r"camera:(?:([0-9]+)|(/dev/.+))", re.IGNORECASE)
_CHILD = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "import effnet_edge.pictures.video_child as c; c.main(sys.argv[1])"
)


@dataclass(frozen=True)
class Frame:
    """A picture of a video.

    Attributes:
        seconds: from the start; of a camera, from its first frame.
        pixels: uint8 (H, W, 3) RGB, upright, its pixels square.
    """

    seconds: float
    pixels: Pixels


@dataclass(frozen=True)
class Video:
    """A video file, or a camera.

    Attributes:
        name: as it was given: a path, "camera:0" or "camera:/dev/…".
        device: of a camera, its file; None of a video.
    """

    name: str
    device: str | None = None

    @classmethod
    def named(cls, name: str | os.PathLike[str]) -> Video | None:
        """The video of that name; None where it is no camera's and has no video's extension."""
        text = os.fspath(name)
        if found := _CAMERA.fullmatch(text):
            return cls(text, found[2] or f"/dev/video{found[1]}")
        return cls(text) if Path(text).suffix.lower() in VIDEO_EXTENSIONS else None

    def check(self) -> None:
        """See that there is such a file or camera.

        Raises:
            UsageError: there is not.
            ImageError: what is there is no file, or may not be read.
        """
        if self.device is None:
            open_file(Path(self.name), "video").close()
        elif not Path(self.device).is_char_device():
            raise UsageError(f"{self.name}: there is no camera {self.device}")

    def __str__(self) -> str:
        return self.name


def frames(name: str | os.PathLike[str], *, every: float | None = None) -> Iterator[Frame]:
    """Each frame of a video file, or of a camera ("camera:0"), as it is asked for.

    Of a camera it is the newest one then; that has no end.

    Args:
        name: of a video, whatever its extension, or of a camera.
        every: seconds from one frame to the next that is taken; None for all.

    Raises:
        UsageError: no such file or camera, or `every` is not above 0.
        ImageError: it is no video, or damaged here.
        BackendError: PyAV is not installed.
    """
    if every is not None:
        every = number_between("every", every, 0)
    place = path_text("the video", name)
    video = Video.named(place) or Video(place)
    for seconds, pixels, error in _taken(video, every, None):
        if error is not None:
            raise error
        assert pixels is not None
        yield Frame(seconds, pixels)


def read_video(
    video: Video, preprocessing: Preprocessing, every: float | None = None
) -> Iterator[ReadPicture]:
    """The network's input for each frame, named by its time: "clip.mp4#t=1.200".

    That is what a browser opens the video at (W3C, "Media Fragments URI 1.0", 4.2.1). What is
    damaged has an error in its place.

    Raises:
        UsageError: the network takes other channels than a video has.
        BackendError: PyAV is not installed.
    """
    if preprocessing.channels not in {1, 3}:
        raise UsageError(
            f"{video}: a video has 3 channels, and the network takes {preprocessing.channels}"
        )
    try:
        for seconds, pixels, error in _taken(video, every, preprocessing):
            yield ReadPicture(f"{video}#t={seconds:.3f}", pixels, error)
    except (ImageError, UsageError) as error:
        yield ReadPicture(str(video), None, error)


def _taken(
    video: Video, every: float | None, preprocessing: Preprocessing | None
) -> Iterator[tuple[float, Pixels | None, ImageError | None]]:
    video.check()
    with _child(video, every, preprocessing) as child:
        assert child.stdout is not None
        seconds, name = 0.0, repr(str(video))
        while header := _header(child.stdout):
            if "missing" in header:
                raise BackendError(
                    f"reading a video needs {header['missing']}, which is not installed: "
                    f"{install_hint('video')}"
                )
            if "failed" in header:
                raise ImageError(f"{name} cannot be read as a video: {header['failed']}")
            if "end" in header:
                return
            seconds = float(header["seconds"])
            if "error" in header:
                yield seconds, None, ImageError(_damaged(name, seconds, header["error"]))
                continue
            yield seconds, _pixels(child.stdout, header["shape"]), None
        raise ImageError(_damaged(name, seconds, _end_of(child)))


def _damaged(name: str, seconds: float, reason: str) -> str:
    return f"{name} is damaged at {seconds:.3f} s: {reason}"


@contextmanager
def _child(
    video: Video, every: float | None, preprocessing: Preprocessing | None
) -> Iterator[subprocess.Popen[bytes]]:
    request = {
        "place": video.device or video.name,
        "camera": video.device is not None,
        "every": every,
        "preprocessing": None if preprocessing is None else asdict(preprocessing),
    }
    child = subprocess.Popen(
        [sys.executable, "-I", "-c", _CHILD, json.dumps(request), *places_of_code()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def _header(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next one; None where the process ended without one."""
    length = stream.read(LENGTH_BYTES)
    content = stream.read(int.from_bytes(length, "little"))
    try:
        header = json.loads(content)
    except ValueError:
        return None
    return header if isinstance(header, dict) else None


def _pixels(stream: IO[bytes], shape: list[int]) -> Pixels:
    height, width, channels = shape
    content = stream.read(height * width * channels)
    if len(content) != height * width * channels:
        raise ImageError("the process that decodes it ended within a frame")
    return np.frombuffer(content, np.uint8).reshape(height, width, channels)


def _end_of(child: subprocess.Popen[bytes]) -> str:
    code = child.wait()
    if code == -signal.SIGXCPU:
        return f"FFmpeg had no further frame after {SECONDS_A_FRAME} s of the processor"
    told = signal.strsignal(-code) if code < 0 else f"exit code {code}"
    return f"FFmpeg crashed on it ({told})"
