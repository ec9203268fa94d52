"""A bundle's open files are closed with it, wherever its loading was interrupted."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.bundle import Bundle, content
from effnet_edge.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

UNCLOSED = pytest.mark.filterwarnings("error::ResourceWarning")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "b", "onnxruntime", tiny_model(batch="N"))


@pytest.fixture(autouse=True)
def nothing_is_swallowed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    gc.collect()  # what other tests left ends before, and not meanwhile
    lost: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda each: lost.append(each.exc_value))
    yield
    assert lost == []


def open_files(bundle: Path) -> int:
    """Those of the bundle, deleted ones too: other threads open and close their own."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        # The listing's own descriptor is gone by now.
        with suppress(FileNotFoundError):
            count += str(descriptor.readlink()).startswith(str(bundle))
    return count


class InterruptAt:
    """Interrupts the module's n-th line or call that is traced."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self, frame: FrameType, event: str, _: object) -> InterruptAt | None:
        if frame.f_code.co_filename != content.__file__:
            return None
        if event in {"line", "call"}:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


@UNCLOSED
def test_they_are_open_until_the_bundle_is_dropped(bundle: Path) -> None:
    before = open_files(bundle)
    loaded = Bundle.load(bundle)
    assert open_files(bundle) == before + len(loaded.manifest.files)
    released = loaded.released()
    del loaded
    assert open_files(bundle) == before
    assert released.read(released.manifest.model)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_interrupt_at_any_line_leaves_none_open(bundle: Path) -> None:
    before, step = open_files(bundle), 0
    while True:
        step += 1
        interrupt = InterruptAt(step)
        sys.settrace(interrupt)
        try:
            loaded = Bundle.load(bundle)
        except KeyboardInterrupt:
            pass
        else:
            break
        finally:
            sys.settrace(None)
        assert open_files(bundle) == before, step
    assert step > 50
    assert loaded.read(loaded.manifest.model)


@UNCLOSED
def test_nor_does_a_file_that_is_refused(bundle: Path) -> None:
    before = open_files(bundle)
    model = Bundle.load(bundle).model_path
    content_of_it = model.read_bytes()
    model.unlink()
    for make in (model.mkdir, lambda: os.mkfifo(model), lambda: model.write_bytes(b"other")):
        make()
        with pytest.raises(BundleError):
            Bundle.load(bundle)
        assert open_files(bundle) == before
        model.rmdir() if model.is_dir() else model.unlink()
    model.write_bytes(bytes([content_of_it[0] ^ 1]) + content_of_it[1:])
    with pytest.raises(BundleError):
        Bundle.load(bundle)
    assert open_files(bundle) == before
