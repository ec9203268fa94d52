"""Objects whose making was interrupted end without a word, whatever they release at their end."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import effnet_edge
from effnet_edge.runtime.device_array import _Capsule

if TYPE_CHECKING:
    from collections.abc import Iterator


def finalized_classes() -> set[type]:
    """Every class of the package that has a `__del__` of Python."""
    package = Path(effnet_edge.__path__[0])
    modules = [
        importlib.import_module(".".join(file.relative_to(package.parent).with_suffix("").parts))
        for file in package.rglob("*.py")
        if "def __del__" in file.read_text()
    ]
    return {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and "__del__" in vars(value)
    }


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    lost: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda each: lost.append(each.exc_value))
    yield lost
    assert lost == []


def test_a_half_made_object_ends_silently(told: list[Any]) -> None:
    classes = finalized_classes()
    assert classes
    for each in classes:
        made = each.__new__(each)
        del made
        assert told == [], each


@pytest.mark.usefixtures("told")
def test_a_capsule_that_was_taken_before_is_refused_alone() -> None:
    capsule = np.zeros(3, np.float32).__dlpack__()
    taken = _Capsule(capsule)
    with pytest.raises(ValueError, match="PyCapsule_GetPointer"):
        _Capsule(capsule)
    assert list(taken.tensor.shape[:1]) == [3]
