"""Parameters of which the quick tests take few."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from _pytest.mark.structures import ParameterSet


def quick(
    those: Collection[object], of: Iterable[object], others: str = "slow"
) -> list[ParameterSet]:
    """All of `of`; what is not among `those` has the mark `others`, "slow" or "sample"."""
    mark = getattr(pytest.mark, others)
    return [pytest.param(each, marks=() if each in those else mark) for each in of]
