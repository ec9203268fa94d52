"""Where a build puts its engine, and what happens to the bundle there in the meantime."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NoReturn

import pytest
from signing_keys import write_keys
from tensorrt_builds import FILE
from tensorrt_commands import command
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.bundle import Bundle
from effnet_edge.bundle.signing import SigningKey
from effnet_edge.bundle.writing import sign_bundle
from effnet_edge.errors import BundleError, UsageError
from effnet_edge.runtime.tensorrt.build import build_engine
from effnet_edge.runtime.tensorrt.plan import BuildOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fake_tensorrt import FakeTensorRt

    from effnet_edge.progress import Progress


@pytest.fixture
def place(tmp_path: Path, library: FakeTensorRt) -> Path:
    library.dla_cores = 2
    return write_bundle(tmp_path / "b", "tensorrt", tiny_model(batch="N"))


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def meanwhile(act: Callable[[], object]) -> Progress:
    """Somebody else's act, in the midst of a build."""

    def progress(_phase: str, done: int, _total: int) -> None:
        if done == 1:
            act()

    return progress


@pytest.mark.parametrize("name", [".", "../b"])
def test_the_current_directory_is_refused_before_the_work(
    place: Path,
    name: str,
    library: FakeTensorRt,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    assert command("build", name, "--quiet") == 2
    assert capsys.readouterr().err == (
        f"effnet-edge: error: {place}: is the current directory, or one above it, and cannot be "
        "replaced: choose another place, or go elsewhere first\n"
    )
    assert library.configs == []


def test_where_nothing_can_be_written_nothing_is_built(
    place: Path, library: FakeTensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    bundle = Bundle.load(place)
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(BundleError, match=r"cannot be written to \(Read-only file system\)"):
        build_engine(bundle)
    assert library.configs == []


def test_through_a_link_the_bundle_behind_it_gets_the_engine(place: Path) -> None:
    link = place.with_name("current")
    link.symlink_to(place.name)
    assert command("build", link, "--quiet") == 0
    assert link.is_symlink()
    assert Bundle.load(place).manifest.engines[-1].file == FILE
    assert {each.name for each in place.parent.iterdir()} == {"b", "current", "b.timing-cache"}


def test_a_bundle_that_was_exported_meanwhile_stays(place: Path) -> None:
    def export() -> None:
        write_bundle(place, "tensorrt", tiny_model(batch="N"), variant="b3")
        exported.update(contents(place))

    exported: dict[str, bytes] = {}
    with pytest.raises(BundleError, match="was replaced while it was built from"):
        build_engine(Bundle.load(place), on_progress=meanwhile(export))
    assert contents(place) == exported


def test_engines_that_were_built_meanwhile_stay(place: Path) -> None:
    other = meanwhile(lambda: build_engine(Bundle.load(place), BuildOptions(dla_core=1)))
    build_engine(Bundle.load(place), on_progress=other)
    cores = {each.file: each.dla_core for each in Bundle.load(place).manifest.engines}
    assert cores == {"engine.plan": None, "engine-sm87-test-gpu-dla1.plan": 1, FILE: None}


def test_a_signature_that_was_made_meanwhile_stays(place: Path, tmp_path: Path) -> None:
    key = SigningKey(write_keys(tmp_path, "maker")[0])
    sign = meanwhile(lambda: sign_bundle(place, key))
    with pytest.raises(UsageError, match="is signed, and an engine changes what was signed"):
        build_engine(Bundle.load(place), on_progress=sign)
    assert (place / "manifest.sig").exists()


def test_what_others_built_meanwhile_is_not_signed(place: Path, tmp_path: Path) -> None:
    key = SigningKey(write_keys(tmp_path, "device")[0])
    other = meanwhile(lambda: build_engine(Bundle.load(place), BuildOptions(dla_core=1)))
    with pytest.raises(BundleError, match="was replaced while it was built from"):
        build_engine(Bundle.load(place), on_progress=other, key=key)
    assert Bundle.load(place).manifest.engines[-1].dla_core == 1
