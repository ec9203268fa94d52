"""What a manifest names is a plain file of the bundle, and no number or size in it does harm."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bundle_files import edit, refusal, write
from tiny_bundles import engine_record

from effnet_edge.bundle import Bundle, Calibration, Manifest
from effnet_edge.bundle.content import read_at_most
from effnet_edge.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable

ELSEWHERE = ["../outside", "/etc/passwd", "/dev/zero", "manifest.json", "", ".", "sub/x", "none"]


def name_model(document: dict[str, Any], name: str) -> None:
    document["model"] = name


def name_labels(document: dict[str, Any], name: str) -> None:
    document["labels"] = name


def name_table(document: dict[str, Any], name: str) -> None:
    document["calibration"]["table"] = name


def name_engine(document: dict[str, Any], name: str) -> None:
    document["engines"][0]["file"] = name


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A bundle that names every kind of file, and a file beside it."""
    (tmp_path / "outside").write_text("{}")
    calibration = Calibration("model.bin", "symmetric-int8", "8 photos", 8, "0" * 64)
    engines = (engine_record(file="model.bin"),)
    return write(tmp_path / "b", calibration=calibration, engines=engines).path


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("change", [name_model, name_labels, name_table, name_engine])
def test_no_name_in_a_manifest_leads_elsewhere(
    full: Path, change: Callable[[dict[str, Any], str], None], name: str
) -> None:
    edit(full, lambda document: change(document, name))
    assert "is not among the files" in refusal(full)


def swap(bundle: Path, how: str, name: str = "model.bin") -> None:
    path = bundle / name
    content = path.read_bytes()
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how == "link":
        path.with_name("real").write_bytes(content)
        path.symlink_to("real")
    elif how == "folder":
        path.mkdir()
    elif how == "same size":
        path.write_bytes(bytes(len(content)))
    elif how == "longer":
        path.write_bytes(content + b"x")


@pytest.mark.parametrize("how", ["pipe", "link", "folder", "same size", "longer", "missing"])
def test_what_is_swapped_after_the_check_is_never_read(bundle: Path, how: str) -> None:
    checked, content = Bundle.load(bundle), (bundle / "model.bin").read_bytes()
    swap(bundle, how)
    assert checked.read("model.bin") == content
    with pytest.raises(BundleError, match=r"model\.bin"):
        checked.released().read("model.bin")


@pytest.mark.parametrize("size", [0, 100, 2560])
def test_what_is_changed_in_place_is_refused(bundle: Path, size: int) -> None:
    checked = Bundle.load(bundle)
    (bundle / "model.bin").write_bytes(bytes(size))
    with pytest.raises(BundleError, match=r"model\.bin: is not the file that was exported"):
        checked.read("model.bin")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_open_files_go_with_the_bundle(bundle: Path) -> None:
    before = open_files()
    checked = Bundle.load(bundle)
    assert open_files() == before + 3
    del checked
    assert open_files() == before


@pytest.mark.parametrize("how", ["pipe", "link", "folder"])
def test_a_manifest_that_is_no_regular_file_is_none(bundle: Path, how: str) -> None:
    swap(bundle, how, "manifest.json")
    assert "is not a bundle" in refusal(bundle)


@pytest.mark.timeout(20)
def test_a_pipe_is_refused_at_once(bundle: Path) -> None:
    swap(bundle, "pipe")
    assert "not a regular file" in refusal(bundle)


def test_a_file_without_a_record_is_read_up_to_a_limit(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match="larger than 16 MiB"):
        read_at_most(tmp_path / "sparse", 16 << 20)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda d: d["preprocessing"]["resolution"].update(width=10**6), "resolution.width"),
        (lambda d: d["input"].update(height=10**6, width=10**6), "input.height"),
        (lambda d: d["batch"].update(maximum=10**9), "batch.maximum"),
        (lambda d: d["engines"][0]["batch"].update(minimum=2), "engines: batch"),
        (lambda d: d["engines"][0].update(dla_core=10**30), "dla_core"),
        (lambda d: d["engines"][0].update(dla_core=-1), "dla_core"),
        (lambda d: d["output"].update(classes=10**9), "output.classes"),
        (lambda d: d["files"]["model.bin"].update(bytes=10**400), "number is too large"),
        (lambda d: d["preprocessing"].update(mean=[10**400] * 3), "number is too large"),
    ],
)
def test_sizes_have_limits(
    full: Path, change: Callable[[dict[str, Any]], object], what: str
) -> None:
    edit(full, change)
    assert what in refusal(full)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 400, "9" * 5000, "-" + "9" * 400])
def test_numbers_that_nothing_holds_are_refused(bundle: Path, number: str) -> None:
    path = bundle / "manifest.json"
    path.write_text(
        path.read_text().replace('"crop_fraction": 0.875', f'"crop_fraction": {number}')
    )
    assert "manifest.json" in refusal(bundle)


@pytest.mark.timeout(20)
def test_many_keys_take_no_time() -> None:
    text = json.dumps({str(number): 0 for number in range(300_000)})
    with pytest.raises(BundleError, match="m: must contain"):
        Manifest.from_json(text, "m")
