"""What a program may hand to the runner: pictures of every kind, one or several, batches."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.special import softmax
from tiny_bundles import CLASSES, SIDE, tiny_model, write_bundle

import effnet_edge
from effnet_edge import EffnetEdgeError, EngineRunner, ImageError, NotFiniteError, UsageError
from effnet_edge.bundle import OutputSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineRunner]:
    path = tmp_path_factory.mktemp("bundle") / "tiny"
    with EngineRunner.load(write_bundle(path, "onnxruntime", tiny_model(batch="N"))) as opened:
        yield opened


@pytest.fixture(scope="module")
def float_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineRunner]:
    path = tmp_path_factory.mktemp("bundle") / "floats"
    model = tiny_model("float32", "N")
    with EngineRunner.load(write_bundle(path, "onnxruntime", model)) as opened:
        yield opened


def frames(count: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 17, channels), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "in"
    place.mkdir()
    for number, frame in enumerate(frames(3)):
        Image.fromarray(frame).save(place / f"{number}.png")
    (place / "notes.txt").write_text("no picture")
    return place


# --- prepare, infer, predictions: classify in three steps -----------------------------------


def test_the_three_steps_are_classify(run: EngineRunner) -> None:
    pictures = list(frames(11))
    pixels = run.prepare(pictures)
    assert (pixels.shape, pixels.dtype) == ((11, SIDE, SIDE, 3), np.uint8)
    for options in ({}, {"top": 2}):
        assert run.predictions(run.infer(pixels), **options) == run.classify(pictures, **options)


def test_prepare_is_what_pillow_cuts_and_resizes(run: EngineRunner) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)
    cut = Image.fromarray(frame).crop((1, 1, 15, 15))  # 0.875 of 16 is 14
    expected = np.asarray(cut.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(run.prepare(frame), expected[None])


def test_prepare_of_nothing_and_for_a_float_engine(
    run: EngineRunner, float_run: EngineRunner
) -> None:
    assert run.infer(run.prepare([])).shape == (0, CLASSES)
    pixels = float_run.prepare(frames(2))
    assert (pixels.shape, pixels.dtype) == ((2, SIDE, SIDE, 3), np.uint8)
    assert float_run.infer(pixels).shape == (2, CLASSES)


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros(CLASSES, np.float32),
        np.zeros((2, CLASSES + 1), np.float32),
        np.zeros((2, CLASSES), np.int64),
    ],
)
def test_predictions_of_something_else_are_refused(run: EngineRunner, logits: np.ndarray) -> None:
    with pytest.raises(UsageError, match=rf"takes what infer gives, float32 \(N, {CLASSES}\), got"):
        run.predictions(logits)


def test_predictions_name_the_row_that_is_no_number(run: EngineRunner) -> None:
    logits = np.zeros((3, CLASSES), np.float32)
    logits[1, 2] = np.nan
    with pytest.raises(NotFiniteError, match=r"^picture 2: "):
        run.predictions(logits)


def test_the_refusal_of_infer_names_prepare(run: EngineRunner) -> None:
    for wrong in (frames(2), "picture.jpg", [frames(1)[0]]):
        with pytest.raises(UsageError, match=r"EngineRunner\.prepare makes that of pictures"):
            run.infer(wrong)  # type: ignore[arg-type]


def test_infer_takes_a_list_and_tensors_of_torch(
    run: EngineRunner, float_run: EngineRunner
) -> None:
    pixels = run.prepare(frames(3))
    expected = run.infer(pixels)
    for same in (
        list(pixels),
        tuple(pixels),
        torch.from_numpy(pixels),
        list(torch.from_numpy(pixels)),
    ):
        np.testing.assert_array_equal(run.infer(same), expected)  # type: ignore[arg-type]
        np.testing.assert_array_equal(run.submit(same).result(60), expected)  # type: ignore[arg-type]
    assert run.infer([]).shape == (0, CLASSES)
    values = torch.rand(2, 3, SIDE, SIDE)
    np.testing.assert_array_equal(float_run.infer(values), float_run.infer(values.numpy()))
    np.testing.assert_array_equal(float_run.infer([*values]), float_run.infer(values.numpy()))


def test_a_list_says_which_image_is_wrong(run: EngineRunner, float_run: EngineRunner) -> None:
    good = run.prepare(frames(1))[0]
    with pytest.raises(UsageError, match=r"got list with uint8 \(7, 8, 3\) at index 1"):
        run.infer([good, good[:7]])
    with pytest.raises(UsageError, match="got list with NoneType at index 2"):
        run.infer([good, good, None])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="list with float32 and uint8 in it"):
        float_run.infer([good, np.zeros((3, SIDE, SIDE), np.float32)])


def test_a_tensor_in_a_gradient_is_refused_in_one_line(float_run: EngineRunner) -> None:
    with pytest.raises(UsageError, match="not handed out by DLPack") as caught:
        float_run.infer(torch.rand(1, 3, SIDE, SIDE, requires_grad=True))
    assert "\n" not in str(caught.value)


# --- one picture ----------------------------------------------------------------------------


def test_a_picture_is_the_same_in_whatever_it_comes(run: EngineRunner, folder: Path) -> None:
    file = folder / "0.png"
    expected = run.classify(file)
    content = file.read_bytes()
    written = io.BytesIO()
    written.write(content)  # its position is the end
    of_another_library = SimpleNamespace(read=lambda: bytearray(content))
    with file.open("rb") as opened:
        for same in (
            content,
            of_another_library,
            bytearray(content),
            memoryview(content),
            io.BytesIO(content),
            written,
            opened,
            opened,  # read before
            frames(3)[0],
            torch.from_numpy(frames(3)[0]),
            Image.open(file),
        ):
            assert run.classify(same) == expected


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_arrays_are_what_their_picture_file_is(run: EngineRunner, bands: int) -> None:
    array = frames(1, 4, bands)[0]
    file = io.BytesIO()
    Image.fromarray(array[..., 0] if bands == 1 else array).save(file, "PNG")
    np.testing.assert_array_equal(run.prepare(array), run.prepare(file))


@pytest.mark.parametrize("bands", [3, 4])
def test_frames_of_opencv(run: EngineRunner, bands: int, folder: Path) -> None:
    rgb = frames(2, 5, bands)
    bgr = rgb[..., [2, 1, 0, 3][:bands]]
    np.testing.assert_array_equal(run.prepare(bgr, bgr=True), run.prepare(rgb))
    assert run.classify(bgr[0], bgr=True) == run.classify(rgb[0])
    assert run.classify(torch.from_numpy(bgr[0]), bgr=True) == run.classify(rgb[0])
    # A file has its colours in no order that OpenCV could have changed, and grey has none.
    np.testing.assert_array_equal(run.prepare(folder, bgr=True), run.prepare(folder))
    np.testing.assert_array_equal(
        run.prepare(rgb[0, :, :, 0], bgr=True), run.prepare(rgb[0, :, :, 0])
    )


def test_a_file_that_is_no_picture_is_named(run: EngineRunner, folder: Path) -> None:
    with (folder / "notes.txt").open("rb") as notes, pytest.raises(ImageError, match=r"notes\.txt"):
        run.classify(notes)
    with (
        (folder / "notes.txt").open() as text,
        pytest.raises(ImageError, match="open it with 'rb'"),
    ):
        run.classify(text)  # type: ignore[call-overload]
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(ImageError, match="closed file"):
        run.classify(closed)


# --- several --------------------------------------------------------------------------------


def test_several_pictures_in_whatever_holds_them(run: EngineRunner, folder: Path) -> None:
    expected = [run.classify(frame) for frame in frames(3)]
    for several in (
        frames(3),
        list(frames(3)),
        tuple(frames(3)),
        (frame for frame in frames(3)),
        torch.from_numpy(frames(3)),
        folder,
        str(folder),
        str(folder / "*.png"),
        f"{folder}/*",
        f"{folder.parent}/**/[0-2].png",
    ):
        found = run.classify(several)
        assert [[each.index for each in row] for row in found] == [  # type: ignore[attr-defined]
            [each.index for each in row] for row in expected
        ]
    assert run.classify([frames(1)[0]]) == expected[:1]


def test_a_name_that_looks_like_a_pattern_is_a_file(run: EngineRunner, tmp_path: Path) -> None:
    Image.fromarray(frames(1)[0]).save(tmp_path / "a[1].png")
    assert run.classify(tmp_path / "a[1].png") == run.classify(frames(1)[0])


@pytest.mark.parametrize("place", ["", "/*.png", "/**/*.jpg"])
def test_nothing_found_is_said(run: EngineRunner, tmp_path: Path, place: str) -> None:
    with pytest.raises(UsageError, match="no pictures"):
        run.classify(f"{tmp_path}{place}")


@pytest.mark.parametrize("name", ["*\0", "x" * 5000, "*" + "x" * 5000])
def test_odd_names_are_told_in_one_line(run: EngineRunner, name: str) -> None:
    with pytest.raises((UsageError, ImageError)) as caught:
        run.classify(name)
    assert "\n" not in str(caught.value)


# --- bad ones among them --------------------------------------------------------------------


def test_a_bad_picture_has_its_error_in_its_place(run: EngineRunner, folder: Path) -> None:
    good = list(frames(11))
    bad = {0: b"no picture", 4: folder / "missing.png", 9: np.zeros((2, 2, 9), np.uint8), 12: None}
    rest = iter(good)
    mixed = [bad[at] if at in bad else next(rest) for at in range(15)]
    found = run.classify(mixed, return_exceptions=True)  # type: ignore[call-overload]
    assert {at for at, each in enumerate(found) if isinstance(each, EffnetEdgeError)} == set(bad)
    assert [
        [row.index for row in each] for each in found if not isinstance(each, EffnetEdgeError)
    ] == [[row.index for row in run.classify(each)] for each in good]
    assert isinstance(found[4], UsageError)
    assert "missing.png" in str(found[4])
    assert str(found[9]).startswith("picture 10: ")
    with pytest.raises(ImageError, match=r"^picture 1: .* is not a picture"):
        run.classify(mixed)  # type: ignore[call-overload]
    with pytest.raises(ImageError, match=r"^picture 1: .* is not a picture"):
        run.prepare(mixed)  # type: ignore[arg-type]


@given(st.lists(st.booleans(), max_size=30))
def test_every_answer_keeps_its_place(run: EngineRunner, good: list[bool]) -> None:
    """Across the engine's batches of 8, whichever pictures are bad."""
    pictures = list(frames(len(good), 7))
    given_pictures = [each if ok else b"x" for each, ok in zip(pictures, good, strict=True)]
    found = run.classify(given_pictures, top=CLASSES, return_exceptions=True)
    assert [not isinstance(each, ImageError) for each in found] == good
    logits = run.infer(run.prepare(pictures)).astype(np.float64)
    for each, row in zip(found, softmax(logits, axis=1), strict=True):
        if not isinstance(each, EffnetEdgeError):
            shares = {told.index: told.probability for told in each}
            assert shares == pytest.approx(dict(enumerate(row)), rel=1e-4)


def test_all_bad_or_just_one(run: EngineRunner) -> None:
    found = run.classify([b"x"] * 10, return_exceptions=True)
    assert [type(each) for each in found] == [ImageError] * 10
    with pytest.raises(ImageError):
        run.classify(b"x", return_exceptions=True)


def test_a_fault_of_the_generator_is_not_a_pictures(run: EngineRunner) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield frames(1)[0]
        raise KeyError("camera")

    with pytest.raises(KeyError, match="camera"):
        run.classify(broken(), return_exceptions=True)


def test_estimate_takes_the_same(tmp_path: Path) -> None:
    output = OutputSpec("logits", CLASSES, "regression")
    path = write_bundle(tmp_path / "values", "onnxruntime", tiny_model(batch="N"), output=output)
    with EngineRunner.load(path) as values:
        rgb = frames(2)
        expected = values.infer(values.prepare(rgb)).tolist()
        found = values.estimate([b"x", *rgb[..., ::-1]], bgr=True, return_exceptions=True)
        assert isinstance(found[0], ImageError)
        rows = [each for each in found if not isinstance(each, EffnetEdgeError)]
        assert [[each.value for each in row] for row in rows] == expected


def test_an_order_of_other_channels_is_refused(run: EngineRunner) -> None:
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.sources import read_pictures

    five = Preprocessing(SIDE, 1.0, "bicubic", (0.5,) * 5, (0.5,) * 5)
    with pytest.raises(UsageError, match="5 channels"):
        read_pictures(frames(1, channels=5), five, bgr=True)
    reading, several = read_pictures(frames(2, channels=5), five)
    assert several
    assert [each.pixels is not None for each in reading] == [True, True]
    assert run.prepare(frames(1), bgr=True).shape == (1, SIDE, SIDE, 3)


# --- the package ----------------------------------------------------------------------------


def test_the_runner_says_what_it_is(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "small", "onnxruntime", tiny_model(batch="N"))
    with EngineRunner.load(path) as opened:
        assert repr(opened) == (
            f"<EngineRunner small: ONNX Runtime on {opened.device}, fp32, uint8 (N, 8, 8, 3) to "
            "single-label (N, 5), 1 to 8 images, best 4 at once, loaded>"
        )
    assert repr(opened).endswith("closed>")


def test_everything_public_is_there_and_light() -> None:
    for name in effnet_edge.__all__:
        assert getattr(effnet_edge, name) is not None
        assert name in dir(effnet_edge)
    code = (
        "import sys, effnet_edge; effnet_edge.ImageError; "
        "print(sorted({'numpy', 'PIL', 'torch', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
