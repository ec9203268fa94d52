from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from effnet_export.doctor import export_status

ROOT = Path(__file__).parents[2]


def test_everything_that_the_extra_installs_is_looked_at() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib is Python 3.11's")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {each.partition(">")[0] for each in project["optional-dependencies"]["export"]}

    status = export_status()

    assert status.works, status.detail
    assert set(status.versions) == named


@pytest.mark.parametrize("library", ["h5py", "google-crc32c", "huggingface-hub", "platformdirs"])
def test_a_library_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    installed = metadata.version

    def version(name: str) -> str:
        if name == library:
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(metadata, "version", version)
    status = export_status()

    assert not status.works
    assert status.detail == f"missing: {library}"
    assert status.install_hint == "pip install 'effnet-edge[export]'"


@pytest.mark.parametrize(
    ("library", "module"),
    [
        ("h5py", "h5py"),
        ("google-crc32c", "google_crc32c"),
        ("huggingface-hub", "huggingface_hub"),
        ("platformdirs", "platformdirs"),
        ("safetensors", "safetensors.numpy"),
        ("onnx", "onnx"),
    ],
)
def test_a_library_that_cannot_be_imported_is_broken(
    monkeypatch: pytest.MonkeyPatch, library: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    status = export_status()
    assert not status.works
    assert list(status.broken) == [library]


def test_wrong_checksums_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    google_crc32c = pytest.importorskip("google_crc32c")
    monkeypatch.setattr(google_crc32c, "value", lambda _data: 0)
    assert export_status().detail == "google-crc32c: gives wrong values"


def test_a_version_that_is_too_old_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "0.1" if name == "h5py" else installed(name)
    )
    assert export_status().detail == "h5py: 0.1 is here, >=3.11 is needed"


def test_sources_that_were_not_installed_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert export_status().detail == "missing: effnet-edge"
