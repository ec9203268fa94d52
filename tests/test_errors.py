"""What libraries say becomes one line that shows every character."""

from __future__ import annotations

import pickle
import warnings

import pytest
import torch

from effnet_calibration.errors import CalibrationError, CalibrationWarning
from effnet_edge.errors import (
    BackendError,
    CheckpointWarning,
    GateError,
    UsageError,
    first_line,
    is_lack_of_memory,
    told_as_one_line,
)


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


@pytest.mark.parametrize("kind", [UsageError, GateError, CalibrationError])
def test_an_error_shows_what_it_quotes(kind: type[UsageError]) -> None:
    error = kind("a\x1b[2J: no such file\nb\ud800")
    assert str(error) == r"a\x1b[2J: no such file\nb\ud800"
    assert str(kind(str(error))) == str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("kind", [CheckpointWarning, CalibrationWarning])
def test_a_warning_shows_what_it_quotes(kind: type[CheckpointWarning]) -> None:
    with pytest.warns(kind) as caught:
        warnings.warn("passed over: \x1b[2J\ud800", kind, stacklevel=1)
    assert str(caught[0].message) == r"passed over: \x1b[2J\ud800"


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (MemoryError(), True),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
                "memory: you tried to allocate 150528000000 bytes. Error code 12"
            ),
            True,
        ),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_a_lack_of_memory_is_known_in_pytorch_s_words(error: Exception, lacks: bool) -> None:
    assert is_lack_of_memory(error) == lacks


def test_pytorch_says_it_in_these_words() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_lack_of_memory(caught.value)


def test_a_gate_tells_its_problem_without_advice() -> None:
    error = GateError("quantize changed the model", "try more pictures")
    assert str(error) == "quantize changed the model; try more pictures"
    assert error.problem == "quantize changed the model"
    assert str(GateError("it did")) == GateError("it did").problem == "it did"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
