"""The process that tries a Keras file first runs no code that lies beside it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from effnet_edge.errors import CheckpointError
from effnet_edge.model.checkpoints import hdf5_process

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "search",
    ["", *(pytest.param(each, marks=pytest.mark.sample) for each in (".", "here"))],
)
def test_nothing_is_imported_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: str
) -> None:
    for module in ("numpy", "h5py", "zipfile", "sitecustomize", "effnet_edge"):
        (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path) if search == "here" else search, *sys.path])
    monkeypatch.setenv("PYTHONPATH", search)
    with pytest.raises(CheckpointError, match=r"downloaded\.h5 is truncated or damaged"):
        hdf5_process.read_hdf5("downloaded.h5", b"no HDF5")
    assert not (tmp_path / "ran").exists()
