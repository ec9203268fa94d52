"""The tables of limits in the documentation are those that exports are held to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from effnet_export.gate import FAST_BY_DEFAULT, FITTED_ACTIVATIONS, INT8

if TYPE_CHECKING:
    from collections.abc import Mapping

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity import Gate

PAGE = Path(__file__).parents[2] / "docs" / "quantization.md"


@pytest.mark.parametrize("gates", [INT8, FITTED_ACTIVATIONS, FAST_BY_DEFAULT])
def test_every_limit_is_told(gates: Mapping[OutputKind, Gate]) -> None:
    rows = [f"| {kind} | `{gate.describe(kind)}` |" for kind, gate in gates.items()]
    assert "\n".join(rows) in PAGE.read_text(encoding="utf-8")
