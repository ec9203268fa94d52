"""Where an export may write, said before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tiny_bundles import manifest, tiny_model, write_bundle

from effnet_edge.bundle import Bundle
from effnet_edge.cli.common import Settings
from effnet_edge.cli.export import _next_step
from effnet_edge.cli.main import cli
from effnet_edge.errors import EffnetEdgeError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: object) -> None:
    cli.main(list(map(str, arguments)), standalone_mode=False, obj=Settings())


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", "onnxruntime", tiny_model())


def test_a_bundle_is_not_replaced_without_a_word(bundle: Path) -> None:
    before = {path: path.read_bytes() for path in bundle.iterdir()}

    with pytest.raises(UsageError, match="is there already: --force replaces it"):
        run("export", "b0", "-o", bundle)

    assert {path: path.read_bytes() for path in bundle.iterdir()} == before


def test_the_default_name_is_looked_at_too(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.rename(tmp_path / "b0-openvino-fp16")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match="b0-openvino-fp16 is there already"):
        run("export", "B0")


def test_force_replaces_nothing_but_a_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "thesis.tex").write_text("do not touch")

    with pytest.raises(EffnetEdgeError, match="is not a bundle"):
        run("export", "b0", "--weights", "random", "--force", "-o", folder)

    assert (folder / "thesis.tex").read_text() == "do not touch"


@pytest.mark.parametrize("inner", ["inner", "a/b/c", "./x/../inner"])
def test_nothing_goes_into_a_bundle(bundle: Path, inner: str) -> None:
    for force in ((), ("--force",)):
        with pytest.raises(UsageError, match="lies in the bundle"):
            run("export", "b0", *force, "-o", bundle / inner)

    Bundle.load(bundle)


@pytest.mark.parametrize("name", ["file/bundle", "file/a/b", "x" * 300])
def test_a_place_that_cannot_be_written_is_found_before_the_work(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match="cannot be written"):
        run("export", "b0", "-o", tmp_path / name)


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("my bundle", "'my bundle'"),
        ("a;b", "'a;b'"),
        ("$(x)", "'$(x)'"),
        ("-v", "./-v"),
        ("b", "b"),
    ],
)
def test_a_command_to_copy_is_quoted(
    name: str, quoted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert f" {quoted} PHOTO" in _next_step(Bundle(tmp_path / name, manifest(), None))
