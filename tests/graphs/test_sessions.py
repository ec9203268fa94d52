"""ONNX Runtime's sessions: every refusal is one line for a person."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
from broken_onnx import REFUSED
from tiny_bundles import SIDE, tiny_model

from effnet_edge.errors import BackendError
from effnet_edge.graphs.sessions import Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("break_it", REFUSED)
def test_a_model_that_is_refused_is_told_in_one_line(
    break_it: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "broken.onnx"
    break_it(path)

    for model in (path, path.read_bytes()):
        with pytest.raises(BackendError) as caught:
            Session(model, "broken.onnx", built_with="1.0")

        text = str(caught.value)
        built = f"built with ONNX Runtime 1.0, here ONNX Runtime {onnxruntime.__version__}"
        assert text.startswith(f"broken.onnx: cannot be loaded ({built}): ")
        assert not any(noise in text for noise in ("\n", "ONNXRuntimeError", "onnxruntime_src"))


def test_the_reason_is_what_onnx_runtime_says(tmp_path: Path) -> None:
    for break_it, reason in zip(
        REFUSED[:3],
        ("No Op registered for Nonsense", "Opset 99", "Unsupported model IR version: 99"),
        strict=True,
    ):
        break_it(tmp_path / "broken.onnx")
        with pytest.raises(BackendError, match=reason):
            Session(tmp_path / "broken.onnx", "broken.onnx")


def test_a_batch_that_it_cannot_run_is_told_in_one_line() -> None:
    session = Session(tiny_model().SerializeToString(), "tiny")

    with pytest.raises(BackendError, match="tiny: ONNX Runtime failed on a batch: ") as caught:
        session.run({"pixels": np.zeros((1, SIDE, SIDE, 4), np.uint8)})

    assert "\n" not in str(caught.value)


def test_without_the_library_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(BackendError, match=r"pip install 'effnet-edge\[onnxruntime\]'"):
        Session(tiny_model().SerializeToString(), "tiny")


def test_options_do_not_change_the_answer() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    model = tiny_model().SerializeToString()

    plain = Session(model, "tiny").run({"pixels": pixels})[0]
    other = Session(model, "tiny", optimized=False, spinning=False, threads=1)

    np.testing.assert_allclose(other.run({"pixels": pixels})[0], plain, rtol=1e-5)


def test_the_name_of_an_axis_that_is_no_text_is_told_in_one_line() -> None:
    data = tiny_model(batch="axis").SerializeToString()
    assert b"axis" in data

    with pytest.raises(BackendError, match=r"tiny: cannot be loaded .*: .*decode byte 0xe4"):
        Session(data.replace(b"axis", b"\xe4xis"), "tiny")
