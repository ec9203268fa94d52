"""Decodes a video, or a camera's pictures, in a process of its own; run by `video`.

FFmpeg's decoders are given files of strangers: what they take is limited here, and where they crash
it is this process alone. Frames leave on standard output, each behind a header.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from effnet_edge.errors import ImageError, first_line
from effnet_edge.pictures.image import Preprocessing, prepare
from effnet_edge.processes import limit_memory, limit_processor
from effnet_edge.size import Size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import av
    import av.container
    from av.sidedata.sidedata import SideData

    from effnet_edge.pictures.image import Pixels

LENGTH_BYTES = 4
"""Before each header, little-endian: its length."""
SECONDS_A_FRAME = 10
"""Of the processor; a frame of 8K takes less than one."""
MEMORY_BYTES = 2 << 30
MAX_FRAME_PIXELS = 8192 * 4352
"""H.264, table A-1: the largest frame of its highest level, 6.2, is 139264 macroblocks."""

# FFmpeg's names of the containers that are read. A closed list, because its own is open: what it
# calls concat or hls, whatever the file's name, makes it read other files.
_CONTAINERS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,mxf,h264,hevc"
_THREADS = 4
_LEAST_STEP = 0.001
# A pixel that is higher or wider than this is damage.
_MOST_STRETCH = 4
_UNTOLD_END_SECONDS, _UNTOLD_END_SHARE = 1.0, 0.1


@dataclass(frozen=True)
class Taken:
    """A frame of a video, or why there is none at its time.

    Attributes:
        seconds: from the start, in steps of at least a thousandth.
        pixels: uint8 (H, W, 3) RGB.
    """

    seconds: float
    pixels: Pixels | None
    error: str | None = None


def main(request: str) -> None:
    """Write all frames, then a header that says so.

    Args:
        request: JSON of the arguments of `video.start`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    asked = json.loads(request)
    preprocessing = _preprocessing(asked["preprocessing"])
    try:
        import av  # before the limit of memory
    except ModuleNotFoundError as error:
        _send(output, {"missing": error.name})
        return
    av.logging.set_level(av.logging.PANIC)
    limit_memory(MEMORY_BYTES)
    try:
        for taken in _all_taken(asked["place"], asked["camera"], asked["every"]):
            _send_taken(output, taken, preprocessing)
            _goes_on()
    except ImageError as error:
        _send(output, {"failed": str(error)})
    else:
        _send(output, {"end": True})


def _preprocessing(told: dict[str, Any] | None) -> Preprocessing | None:
    if told is None:
        return None
    size = Size(**told["resolution"])
    mean, std = (tuple(told[key]) for key in ("mean", "std"))
    return Preprocessing(**{**told, "resolution": size, "mean": mean, "std": std})


def _send_taken(output: BinaryIO, taken: Taken, preprocessing: Preprocessing | None) -> None:
    pixels = taken.pixels
    if pixels is None:
        _send(output, {"seconds": taken.seconds, "error": taken.error})
        return
    if preprocessing is not None:
        pixels = prepare(pixels, preprocessing)
    _send(output, {"seconds": taken.seconds, "shape": pixels.shape})
    _write(output, np.ascontiguousarray(pixels).data.cast("B"))


def _send(output: BinaryIO, header: dict[str, Any]) -> None:
    content = json.dumps(header).encode()
    _write(output, memoryview(len(content).to_bytes(LENGTH_BYTES, "little") + content))


def _write(output: BinaryIO, content: memoryview) -> None:
    while content:
        content = content[output.write(content) :]


def _all_taken(place: str, camera: bool, every: float | None) -> Iterator[Taken]:
    """What is taken from a place, a file or a camera's device.

    Raises:
        ImageError: it cannot be opened, or is no video.
    """
    import av

    _goes_on()
    try:
        if camera:
            with av.open(place, "r", format="v4l2") as container:
                yield from newest(frames_of(container, every, _goes_on))
            return
        with (
            open(place, "rb") as file,  # noqa: PTH123 - PyAV reads from it, and opens no other
            av.open(file, "r", options={"format_whitelist": _CONTAINERS}) as container,
        ):
            yield from frames_of(container, every, _goes_on)
    except ImageError:
        raise
    except av.error.ArgumentError as error:
        raise ImageError(f"its container is none of {_CONTAINERS}") from error
    except Exception as error:
        raise ImageError(_reason(error)) from error


def _goes_on() -> None:
    limit_processor(SECONDS_A_FRAME)


def frames_of(
    container: av.container.InputContainer,
    every: float | None,
    decoded: Callable[[], None] = lambda: None,
) -> Iterator[Taken]:
    """Each frame of the first video stream as a player shows it: turned upright, pixels square.

    Damage is told once, until a frame is whole again.

    Args:
        every: seconds from one frame to the next that is taken; None for all.
        decoded: called with each frame that is whole, taken or not.
    """
    if not container.streams.video:
        raise ImageError("there are no pictures in it")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise ImageError("it does not tell how its pictures are coded, or FFmpeg does not know it")
    if stream.width * stream.height > MAX_FRAME_PIXELS:
        raise ImageError(
            f"it is too large: frames of {stream.width} x {stream.height} pixels; at most "
            f"{MAX_FRAME_PIXELS // 10**6} million are decoded"
        )
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = min(_THREADS, os.cpu_count() or 1)
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    clock = _Clock(container.start_time)
    due, damaged = 0.0, False
    for frame in _decoded(container, stream):
        broken = isinstance(frame, str) or frame.is_corrupt
        seconds = clock.of(None if isinstance(frame, str) else frame.time)
        if broken and not damaged:
            told = frame if isinstance(frame, str) else "a part of the frame is missing"
            yield Taken(seconds, None, told)
        damaged = broken
        if isinstance(frame, str) or broken:
            continue
        decoded()
        clock.ends = seconds + _shown_for(frame)
        if seconds < due - _LEAST_STEP / 2:
            continue
        if every:
            due = every * (math.floor((seconds + _LEAST_STEP / 2) / every) + 1)
        yield Taken(seconds, _upright(frame, stream))
    if not damaged and (missing := _missing_end(container, stream, clock.ends)):
        yield Taken(clock.of(None), None, missing)


class _Clock:
    """Tells time from the start, always going on, whatever a damaged file says.

    Attributes:
        last: when the last frame begins.
        ends: when the last whole one is no longer shown, as far as the file tells.
    """

    def __init__(self, start_time: int | None) -> None:
        self._start = None if start_time is None else start_time / 1_000_000
        self.last = self.ends = -_LEAST_STEP

    def of(self, time: float | None) -> float:
        """The seconds for a time of the file's; where it is not told, right after the last."""
        following = self.last + _LEAST_STEP
        if self._start is None:
            self._start = time
        if time is not None and self._start is not None:
            following = max(time - self._start, following)
        self.last = round(following, 3)
        return self.last


def _decoded(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.VideoFrame | str]:
    """Frames, and what is wrong where there is none."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except Exception as error:
            yield _reason(error)
            return
        try:
            yield from packet.decode()
        except EOFError:
            return
        except Exception as error:
            yield _reason(error)


def _shown_for(frame: av.VideoFrame) -> float:
    """Seconds; 0 where the file does not tell. In a slideshow they may be many."""
    if not frame.duration or frame.time_base is None:
        return 0.0
    return max(float(frame.duration * frame.time_base), 0.0)


def _missing_end(
    container: av.container.InputContainer, stream: av.VideoStream, ends: float
) -> str | None:
    """Containers that are read to where they are cut off do not say so."""
    promised = None
    if stream.duration is not None and stream.time_base is not None:
        promised = float(stream.duration * stream.time_base)
    elif container.duration is not None and len(container.streams) == 1:
        promised = container.duration / 1_000_000
    if promised is None:
        return None
    missing = promised - ends
    if missing <= max(_UNTOLD_END_SECONDS, _UNTOLD_END_SHARE * promised):
        return None
    return f"it is cut off: there should be {promised:.3f} s of it"


def _upright(frame: av.VideoFrame, stream: av.VideoStream) -> Pixels:
    ratio = stream.sample_aspect_ratio or 1
    stretched = ratio != 1 and 1 / _MOST_STRETCH <= ratio <= _MOST_STRETCH
    width = max(round(frame.width * ratio), 1) if stretched else frame.width
    pixels = cast("Pixels", frame.to_ndarray(format="rgb24", width=width))
    # Not a mapping's keys, as its type says.
    for data in cast("Iterable[SideData]", frame.side_data):
        if data.type.name == "DISPLAYMATRIX":
            return turned(pixels, np.frombuffer(bytes(data), np.int32))
    return pixels


def turned(pixels: Pixels, matrix: np.ndarray[Any, np.dtype[np.int32]]) -> Pixels:
    """Apply a display matrix to (H, W, C), to the nearest of the eight ways a picture may lie.

    Its nine numbers are those of ISO/IEC 14496-12, 8.2.2: the pixel in column p and row q is shown
    at (a·p + c·q, b·p + d·q), where the first are a, b, 0, c, d.
    """
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(a) < abs(b):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def newest(frames: Iterable[Taken]) -> Iterator[Taken]:
    """Of frames that come by themselves the last, whenever one is asked for: none is kept waiting.

    A camera's own queue would else grow, and every answer be later than the one before.
    """
    place: queue.Queue[Taken | BaseException | None] = queue.Queue(maxsize=1)

    def put(item: Taken | BaseException | None) -> None:
        if item is not None and not isinstance(item, BaseException):
            _emptied(place)
        place.put(item)

    def read() -> None:
        try:
            for frame in frames:
                put(frame)
            put(None)
        except BaseException as error:  # raised where it is waited for
            put(error)

    threading.Thread(target=read, daemon=True).start()
    while (item := place.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item


def _emptied(place: queue.Queue[Any]) -> None:
    try:
        place.get_nowait()
    except queue.Empty:
        return


def _reason(error: Exception) -> str:
    """What an error of FFmpeg, PyAV or NumPy says, without the number and name beside it."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    told = getattr(error, "strerror", None)
    return told if isinstance(told, str) and told else first_line(error)
