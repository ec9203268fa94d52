"""Two models that round are compared on values that both round to the same integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.parity.inside.bisection import find_faults
from effnet_edge.parity.inside.tracing import Grid, Kernel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

GRID = Grid("a/QuantizeLinear", "a", 0.0, 255.0, 256)
HALFWAY = np.array([[0.5, 1.5, 2.25, 3.5]], np.float32)


class Rounding:
    """Gives `a`, and `b`, which is `a` rounded: up where it is halfway, or down."""

    execution_precision = stored_precision = "FP32"

    def __init__(self, name: str, *, up: bool) -> None:
        self.name = name
        self._up = up

    def kernels(self) -> Sequence[Kernel]:
        return [Kernel((name,), "Conv", "FP32") for name in ("a", "b")]

    def grids(self) -> Sequence[Grid]:
        return [GRID]

    def parameters(self, _: str) -> None:
        return None

    def activations(
        self,
        _: NDArray[np.uint8],
        names: Sequence[str],
        given: Mapping[str, NDArray[np.generic]] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        read = np.asarray((given or {}).get("a", HALFWAY), np.float32)
        rounded = np.floor(read + 0.5) if self._up else np.ceil(read - 0.5)
        return {name: {"a": HALFWAY, "b": rounded}[name] for name in names}


def test_which_way_a_model_rounds_what_is_halfway_is_no_fault() -> None:
    batch = np.zeros((1, 2, 2, 3), np.uint8)
    up, down = Rounding("up", up=True), Rounding("down", up=False)
    assert not np.array_equal(
        up.activations(batch, ["b"])["b"], down.activations(batch, ["b"])["b"]
    )

    found = find_faults(up, down, batch)

    assert (found.faults, found.nodes) == ((), 2)
