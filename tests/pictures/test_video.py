"""Frames of videos and cameras: upright, in time, and what is no video or damaged."""

from __future__ import annotations

import itertools
import os
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from video_makers import quarters, seen, write_video

from effnet_edge import Frame, frames
from effnet_edge.errors import BackendError, ImageError, UsageError
from effnet_edge.pictures import video
from effnet_edge.pictures.image import Preprocessing, prepare
from effnet_edge.pictures.video import Video, read_video
from effnet_edge.pictures.video_child import Taken, frames_of, newest, turned

if TYPE_CHECKING:
    from collections.abc import Iterator

TINY = Preprocessing(8, 1.0, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CODECS = {".mp4": "libx264", ".mkv": "libx264", ".avi": "mpeg4", ".webm": "libvpx", ".ts": "mpeg4"}


def taken(path: Path, every: float | None = None) -> list[Taken]:
    """As the process that decodes does it, in this one."""
    with av.open(str(path)) as container:
        return list(frames_of(container, every))


@pytest.mark.parametrize("extension", CODECS)
def test_every_frame_comes_at_its_time(tmp_path: Path, extension: str) -> None:
    found = taken(write_video(tmp_path / f"a{extension}", frames=12, codec=CODECS[extension]))
    assert [frame.seconds for frame in found] == [round(0.1 * at, 3) for at in range(12)]
    assert all(frame.pixels is not None and frame.error is None for frame in found)
    assert {frame.pixels.shape for frame in found} == {(48, 64, 3)}
    assert {seen(frame.pixels) for frame in found} == {"RG BB"}


@pytest.mark.parametrize(("every", "count"), [(0.5, 4), (0.25, 8), (0.1, 20), (0.01, 20), (9, 1)])
def test_a_frame_every_so_many_seconds(tmp_path: Path, every: float, count: int) -> None:
    found = [frame.seconds for frame in taken(write_video(tmp_path / "a.mp4"), every)]
    assert len(found) == count
    assert all(time >= at * every - 0.001 for at, time in enumerate(found[: int(2 / every)]))


def test_a_process_gives_the_same_frames(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4")
    for one, other in zip(frames(clip, every=0.5), taken(clip, 0.5), strict=True):
        assert one.seconds == other.seconds
        assert (one.pixels == other.pixels).all()


@pytest.mark.skipif(
    not hasattr(av.VideoStream, "set_display_rotation"), reason="this PyAV writes no matrix"
)
def test_a_telephone_held_upright(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", frames=1, turned={"degrees": 90})
    (frame,) = taken(clip)
    assert frame.pixels.shape == (64, 48, 3)
    assert seen(frame.pixels) == seen(np.rot90(quarters())) == "GB RB"


ONE = 1 << 16


@pytest.mark.parametrize("across", [ONE, -ONE])
@pytest.mark.parametrize("down", [ONE, -ONE])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_eight_ways_that_a_picture_lies(across: int, down: int, transposed: bool) -> None:
    """Held against the definition: each pixel is where the matrix sends it."""
    a, b, c, d = (0, across, down, 0) if transposed else (across, 0, 0, down)
    matrix = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], np.int32)
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    sent = {
        (a // ONE * p + c // ONE * q, b // ONE * p + d // ONE * q): pixels[q, p, 0]
        for q in range(2)
        for p in range(3)
    }
    left, top = (min(place[axis] for place in sent) for axis in (0, 1))
    shown = turned(pixels, matrix)
    assert shown.shape == ((3, 2, 1) if transposed else (2, 3, 1))
    for (x, y), value in sent.items():
        assert shown[y - top, x - left, 0] == value


def test_pixels_that_are_no_squares(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", frames=1, aspect=Fraction(3, 2))
    (frame,) = taken(clip)
    assert frame.pixels.shape == (48, 96, 3)


def test_the_network_s_input_is_that_of_the_frame(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", frames=2)
    read = list(read_video(Video(str(clip)), TINY))
    assert [each.name for each in read] == [f"{clip}#t=0.000", f"{clip}#t=0.100"]
    for each, frame in zip(read, frames(clip), strict=True):
        assert each.pixels is not None
        assert (each.pixels == prepare(frame.pixels, TINY)).all()


def test_damage_is_told_once_and_the_rest_is_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    clip = write_video(tmp_path / "a.mp4", frames=40, codec="libx264", pixels=noise, g="10")
    content = bytearray(clip.read_bytes())
    middle = len(content) * 4 // 10
    content[middle : middle + 3000] = bytes(3000)
    clip.write_bytes(content)
    read = list(read_video(Video(str(clip)), TINY))
    errors = [at for at, each in enumerate(read) if each.error is not None]
    assert 1 <= len(errors) < 5
    assert 20 < len(read) - len(errors) < 40
    assert str(clip) in str(read[errors[0]].error)
    assert " s: " in str(read[errors[0]].error)
    assert read[-1].pixels is not None
    with pytest.raises(ImageError, match="is damaged at"):
        list(frames(clip))


@pytest.mark.parametrize("extension", [".mkv", ".webm", ".avi"])
def test_a_video_that_is_cut_off_says_so(tmp_path: Path, extension: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    clip = tmp_path / f"a{extension}"
    write_video(clip, frames=60, codec=CODECS[extension], pixels=noise)
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) // 2])
    found = []
    with pytest.raises(ImageError, match="is damaged at|cannot be read as a video"):
        found.extend(frames(clip))


def slideshow(path: Path, codec: str = "mpeg4") -> Path:
    """Four frames, each shown for five seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(1, 5))
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        packets = []
        noise = np.random.default_rng(0)
        for number in range(4):
            pixels = noise.integers(0, 256, (64, 64, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = number, Fraction(5, 1)
            packets += stream.encode(frame)
        for packet in (*packets, *stream.encode()):
            packet.duration = packet.duration or 1
            container.mux(packet)
    return path


@pytest.mark.parametrize("extension", [".mp4", ".mkv", ".avi"])
def test_the_last_frame_of_a_slideshow_is_shown_to_the_end(tmp_path: Path, extension: str) -> None:
    clip = slideshow(tmp_path / f"a{extension}")
    assert [round(frame.seconds) for frame in frames(clip)] == [0, 5, 10, 15]


@pytest.mark.parametrize("extension", [".mkv", ".avi"])
def test_a_slideshow_that_is_cut_off_says_so(tmp_path: Path, extension: str) -> None:
    clip = slideshow(tmp_path / f"a{extension}")
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(ImageError, match="is damaged at|cannot be read as a video"):
        list(frames(clip))


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ImageError, match=r"text.mp4' cannot be read as a video: Invalid data"):
        list(frames(tmp_path / "text.mp4"))
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ImageError, match="cannot be read as a video"):
        list(frames(tmp_path / "empty.mp4"))
    with pytest.raises(UsageError, match=r"none.mp4' does not exist"):
        list(frames(tmp_path / "none.mp4"))
    with pytest.raises(UsageError, match="there is no camera /dev/video999"):
        list(frames("camera:999"))
    with pytest.raises(UsageError, match="every 0"):
        list(frames(tmp_path / "text.mp4", every=0))
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ImageError, match="is not a file"):
        list(frames(tmp_path / "pipe.mp4"))


def test_a_file_that_names_others_is_not_followed(tmp_path: Path) -> None:
    write_video(tmp_path / "a.ts", frames=2, codec="mpeg4")
    texts = {
        "list.mp4": "ffconcat version 1.0\nfile a.ts\n",
        "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.ts\n#EXT-X-ENDLIST\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ImageError, match="cannot be read as a video"):
            list(frames(tmp_path / name))


def test_absurd_frames_are_not_decoded(tmp_path: Path) -> None:
    """The size of raw pictures is nowhere but in the header (BITMAPINFOHEADER of AVI)."""
    clip = write_video(tmp_path / "a.avi", frames=1, codec="rawvideo")
    content = bytearray(clip.read_bytes())
    place = content.index(b"strf") + 12
    content[place : place + 8] = 2 * (8000).to_bytes(4, "little")
    clip.write_bytes(content)
    with pytest.raises(ImageError, match="too large: frames of 8000 x 8000 pixels"):
        list(frames(clip))


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("os.kill(os.getpid(), 11)", "FFmpeg crashed on it"),
        ("(c.limit_processor(0), all(iter(int, 1)), any(iter(int, 1)))", "no further frame after"),
        ("bytearray(3 << 30)", "not enough memory"),
    ],
    ids=["crash", "hang", "memory"],
)
def test_what_a_decoder_does_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, told: str
) -> None:
    clip = write_video(tmp_path / "a.mp4", frames=3)
    planted = (
        "import sys; sys.path[:] = sys.argv[2:]\n"
        "import os, effnet_edge.pictures.video_child as c\n"
        "sound, done = c._upright, []\n"
        "def upright(*given):\n"
        " done.append(1)\n"
        f" if len(done) > 1: {does}\n"
        " return sound(*given)\n"
        "c._upright = upright\n"
        "c.main(sys.argv[1])"
    )
    monkeypatch.setattr(video, "_CHILD", planted)
    found: list[Frame] = []
    with pytest.raises(ImageError, match=told) as refused:
        found.extend(frames(clip))
    assert len(found) == 1
    assert len(str(refused.value).splitlines()) == 1


def test_without_pyav_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_video(tmp_path / "a.mp4", frames=1)
    child = video._CHILD.replace("c.main", "sys.modules['av'] = None; c.main")
    monkeypatch.setattr(video, "_CHILD", child)
    with pytest.raises(BackendError, match=r"needs av, .* pip install 'effnet-edge\[video\]'"):
        list(frames(clip))


def test_four_channels_are_refused(tmp_path: Path) -> None:
    four = Preprocessing(8, 1.0, "bicubic", (0.5,) * 4, (0.5,) * 4)
    with pytest.raises(UsageError, match="3 channels, and the network takes 4"):
        list(read_video(Video(str(tmp_path / "a.mp4")), four))


def children() -> set[str]:
    """Process ids; other tests of this process may have some of their own."""
    lists = Path("/proc/self/task").glob("*/children")
    return {each for found in lists for each in found.read_text().split()}


def test_one_who_looks_at_the_first_frame_alone_leaves_no_process(tmp_path: Path) -> None:
    others = children()
    found = frames(write_video(tmp_path / "a.mp4", frames=50))
    next(found)
    assert children() > others
    found.close()  # type: ignore[attr-defined]
    assert children() == others


# --- cameras, by a source of FFmpeg's that stands for one ------------------------------------


def test_a_source_without_an_end_is_read_frame_by_frame() -> None:
    with av.open("testsrc=size=32x16:rate=10", format="lavfi") as container:
        found = list(itertools.islice(frames_of(container, None), 5))
    assert [each.seconds for each in found] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert all(each.pixels is not None and each.pixels.shape == (16, 32, 3) for each in found)


def test_of_a_camera_the_newest_frame_is_answered() -> None:
    def camera() -> Iterator[Taken]:
        for number in range(200):
            time.sleep(0.002)
            yield Taken(float(number), None)

    shown = []
    for frame in newest(camera()):
        shown.append(frame.seconds)
        time.sleep(0.05)
    assert shown == sorted(set(shown))
    assert len(shown) < 100


def test_a_camera_that_is_pulled_out_is_an_error() -> None:
    def camera() -> Iterator[Taken]:
        yield Taken(0.0, None)
        raise OSError("No such device")

    with pytest.raises(OSError, match="No such device"):
        list(newest(camera()))
