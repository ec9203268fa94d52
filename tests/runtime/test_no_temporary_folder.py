"""A device whose disk is only read runs its engines; what cannot be told there says so."""

from __future__ import annotations

import tempfile
import threading
from typing import TYPE_CHECKING

import pytest
from runner_answers import CPU_TARGETS
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.errors import BackendError
from effnet_edge.runtime import EngineRunner, litert_interpreter

if TYPE_CHECKING:
    from pathlib import Path


def without_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_engines_run(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_bundle(tmp_path / "bundle", target, tiny_model())
    without_temporary_folder(monkeypatch, tmp_path)
    monkeypatch.setattr(litert_interpreter, "_announced", threading.Event())

    with EngineRunner.load(path) as runner:
        runner.warmup()


def test_a_profile_that_cannot_be_kept_is_told_with_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_bundle(tmp_path / "bundle", "onnxruntime", tiny_model())
    without_temporary_folder(monkeypatch, tmp_path)

    with (
        EngineRunner.load(path) as runner,
        pytest.raises(BackendError, match=r"model\.onnx: the profile .*nowhere.*set TMPDIR"),
    ):
        _ = runner.execution_precision
