"""Models of a comparison: batches of their own size, and files that cannot be opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import openvino
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundles import PREPROCESSING, tiny_model

from effnet_edge.errors import BackendError
from effnet_edge.parity.models.batches import Traces, filled_batches, joined
from effnet_edge.parity.models.onnx import OnnxClassifier, onnx_entrance
from effnet_edge.parity.models.openvino import OpenVinoClassifier, openvino_entrance
from effnet_edge.runtime.openvino_core import openvino_core

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@given(st.integers(1, 20), st.integers(1, 7), st.one_of(st.none(), st.integers(0, 7)))
def test_batches_fit_the_model_and_join_to_what_was_cut(
    length: int, least: int, spread: int | None
) -> None:
    most = None if spread is None else least + spread
    values = [np.arange(1, length + 1), np.arange(2 * length).reshape(length, 2)]

    parts = list(filled_batches(values, least, most))

    assert all(least <= len(each) <= (most or length + least) for part in parts for each in part)
    assert len(parts) == (1 if most is None else -(-length // most))
    for index, whole in enumerate(values):
        np.testing.assert_array_equal(joined([part[index] for part in parts], length), whole)
        filling = np.concatenate([part[index] for part in parts])[length:]
        assert not filling.any()


def test_one_trace_with_values_given_and_one_without_are_kept() -> None:
    made: list[tuple[str, ...]] = []
    traces: Traces[int] = Traces()

    def get(*names: str, given: tuple[str, ...] = ()) -> int:
        def make() -> int:
            made.append(names)
            return len(made)

        return traces.get(names, dict.fromkeys(given, np.zeros(1)), make)

    assert [get("a"), get("b", given=("a",)), get("a"), get("b", given=("a",))] == [1, 2, 1, 2]
    assert [get("c"), get("b", given=("a",)), get("a"), get("b", given=("c",))] == [3, 2, 4, 5]


def save_ir(path: Path) -> tuple[str, bytes]:
    converted = openvino_core().read_model(tiny_model().SerializeToString())
    openvino.save_model(converted, path, compress_to_fp16=False)
    return path.read_text(), path.with_suffix(".bin").read_bytes()


BROKEN_IRS: dict[str, Callable[[str, bytes], tuple[str, bytes | None]]] = {
    "no .bin": lambda xml, _: (xml, None),
    "half a .bin": lambda xml, weights: (xml, weights[: len(weights) // 2]),
    "half an .xml": lambda xml, weights: (xml[: len(xml) // 2], weights),
    "empty": lambda _, weights: ("", weights),
    "HTML": lambda _, weights: ("<html><body/></html>", weights),
    "unknown operation": lambda xml, weights: (xml.replace('"ReLU"', '"Nonsense"'), weights),
    "later format": lambda xml, weights: (xml.replace('version="11"', 'version="99"', 1), weights),
}


@pytest.mark.parametrize("kind", BROKEN_IRS)
def test_an_ir_that_cannot_be_opened_is_told_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.xml"
    xml, weights = BROKEN_IRS[kind](*save_ir(path))
    path.write_text(xml)
    path.with_suffix(".bin").unlink()
    if weights is not None:
        path.with_suffix(".bin").write_bytes(weights)

    for opening in (openvino_entrance, lambda file: OpenVinoClassifier(file, PREPROCESSING)):
        with pytest.raises(BackendError) as caught:
            opening(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_an_onnx_file_whose_weights_are_missing_names_it(tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "model.onnx"
    onnx.save_model(tiny_model(), path, save_as_external_data=True, location="w", size_threshold=0)
    (tmp_path / "w").unlink()

    with pytest.raises(BackendError, match=r"model\.onnx: the files with its weights"):
        OnnxClassifier(path, PREPROCESSING)
    with pytest.raises(BackendError, match=r"model\.onnx: the files with its weights"):
        onnx_entrance(path)
