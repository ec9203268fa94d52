"""What is wrong with an ONNX file is told in one line that names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from broken_onnx import UNREADABLE, with_weights_beside, without_its_weights
from tiny_bundles import tiny_model

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.graphs.files import load_onnx
from effnet_edge.graphs.tensors import initializers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("break_it", UNREADABLE)
def test_a_broken_file_is_told_in_one_line(
    break_it: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "broken.onnx"
    break_it(path)

    with pytest.raises(BackendError) as caught:
        load_onnx(path)

    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_a_wrong_request(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.onnx: no such ONNX file"):
        load_onnx(tmp_path / "nothing.onnx")


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    path = with_weights_beside(tmp_path / "model.onnx")

    found, expected = (initializers(each.graph) for each in (load_onnx(path), tiny_model()))

    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in expected)


def test_the_graph_alone_needs_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    without_its_weights(path)

    graph = load_onnx(path, weights=False).graph

    assert [each.name for each in graph.node] == [each.name for each in tiny_model().graph.node]
