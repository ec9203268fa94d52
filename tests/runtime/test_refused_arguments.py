"""Whatever a program gives to a runner by mistake is refused in one line, as a UsageError."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_bundles import tiny_model, write_bundle

from effnet_edge import EngineRunner, frames
from effnet_edge.errors import UsageError
from effnet_edge.pictures.image import decode

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", "onnxruntime", tiny_model())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"threads": "2"}, "threads '2': needs a whole number of 1 or more"),
        ({"threads": 1.5}, "threads 1.5: needs a whole number of 1 or more"),
        ({"threads": True}, "threads True: needs a whole number"),
        ({"streams": 2.0}, "streams 2.0: needs a whole number"),
        ({"device": 5}, "device 5: needs text"),
        ({"precision": 5}, "precision 5: choose from fp32, fp16, bf16"),
    ],
    ids=str,
)
def test_an_option_of_load(bundle: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as raised:
        EngineRunner.load(bundle, **options)
    assert str(raised.value).startswith(told)


@pytest.mark.parametrize("path", [None, 5, b"bundle", "a\0b"])
def test_a_bundle_that_is_no_path(path: Any) -> None:
    with pytest.raises(UsageError, match="the bundle .*: needs a path"):
        EngineRunner.load(path)


@dataclass
class PathOf:
    """What says that it is a path, and is none in text."""

    told: Any

    def __fspath__(self) -> Any:
        return self.told


@pytest.mark.parametrize("path", [PathOf(b"p.jpg"), PathOf(5)])
def test_a_picture_whose_path_is_no_text(bundle: Path, path: Any) -> None:
    with EngineRunner.load(bundle) as run:
        for ask in (run.classify, run.prepare):
            with pytest.raises(UsageError, match="the picture .*: needs a path"):
                ask(path)
        _, error = run.classify([np.zeros((9, 9, 3), np.uint8), path], return_exceptions=True)
    assert isinstance(error, UsageError)
    with pytest.raises(UsageError, match="the picture .*: needs a path"):
        decode(path)


def test_a_trusted_key_that_is_no_path(bundle: Path) -> None:
    with pytest.raises(UsageError, match="trusted 5: needs a path"):
        EngineRunner.load(bundle, trusted=5)


def test_arguments_of_a_runner(bundle: Path) -> None:
    with EngineRunner.load(bundle) as run:
        for wrong, told in (
            (lambda: run.predictions([[1.0], [1.0, 2.0]]), "predictions takes what infer gives"),
            (lambda: run.layer_times(-1), "size -1: needs 1 or more"),
            (lambda: run.layer_times(1, runs=0), "runs 0: needs 1 or more"),
            (lambda: run.warmup(1.5), "runs 1.5: needs a whole number"),
        ):
            with pytest.raises(UsageError, match=told):
                wrong()


def test_arguments_of_a_video(tmp_path: Path) -> None:
    for every in ("x", 0, float("nan")):
        with pytest.raises(UsageError, match="every .*: needs a number above 0"):
            next(frames(tmp_path / "a.mp4", every=every))
    with pytest.raises(UsageError, match="the video 5: needs a path"):
        next(frames(5))
