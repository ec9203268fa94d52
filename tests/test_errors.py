"""What libraries say becomes one line that shows every character."""

from __future__ import annotations

import pytest

from effnet_edge.errors import BackendError, first_line, told_as_one_line


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("first\nsecond", "first"),
        ("node 'a\x1b[2Jb'", r"node 'a\x1b[2Jb'"),
        ("a\x14b", r"a\x14b"),
        ("", "ValueError"),
        ("\n  \n", "ValueError"),
    ],
)
def test_an_error_of_a_library_is_one_line_of_text(said: str, shown: str) -> None:
    assert first_line(ValueError(said)) == shown
    with (
        pytest.raises(BackendError) as caught,
        told_as_one_line("a.onnx", "it cannot be read"),
    ):
        raise ValueError(said)
    assert str(caught.value) == f"a.onnx: it cannot be read: {shown}"
