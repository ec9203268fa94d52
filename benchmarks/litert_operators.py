"""What a SiLU takes in LiteRT's integers, by how it is said: a line an expression.

    python benchmarks/litert_operators.py [--threads N]

XNNPACK makes one look-up of every operator whose values all come from one 8-bit tensor: a SiLU
without factors, and a hard-swish, are two look-ups and no multiplication. A factor a channel makes
two multiplications of it. A map of 56×56×144 in turns, eight of the kind one after another.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
import numpy as np

from effnet_edge.runtime.litert_interpreter import LiteRtInterpreter
from effnet_export.litert.graph import Grid, LiteRtGraph

if TYPE_CHECKING:
    from collections.abc import Callable

    from effnet_export.litert.graph import Tensor

SHAPE = (1, 56, 56, 144)
TIMES = 8
ROUNDS = 200
VALUES = Grid((0.06,))
UNIT = Grid((1 / 256,), -128)
SIX = Grid((6 / 255,), -128)


class Maker:
    """Appends operators to a graph, each with a tensor of its own."""

    def __init__(self) -> None:
        self.graph = LiteRtGraph(1)
        self._count = 0

    def operator(self, kind: str, inputs: list[Tensor], grid: Grid, options: str = "") -> Tensor:
        """One operator; gives its output."""
        self._count += 1
        output = self.graph.value(f"{kind}{self._count}", SHAPE, "int8", grid)
        return self.graph.operator(kind, inputs, output, options)

    def constant(self, values: list[int]) -> Tensor:
        """Integers on the grid of the values, one for all channels or one a channel."""
        self._count += 1
        return self.graph.constant(f"constant{self._count}", np.array(values, np.int8), VALUES)

    def product(self, first: Tensor, second: Tensor) -> Tensor:
        """Of two tensors."""
        return self.operator("MUL", [first, second], VALUES, "MulOptions")


def silu(made: Maker, x: Tensor) -> Tensor:
    """As it stands where a tensor has no factors."""
    return made.product(x, made.operator("LOGISTIC", [x], UNIT))


def with_factors(made: Maker, x: Tensor) -> Tensor:
    """As it stands where every channel has its factor."""
    factors = made.constant([20 + channel % 100 for channel in range(SHAPE[3])])
    return made.product(x, made.operator("LOGISTIC", [made.product(x, factors)], UNIT))


def hard_swish(made: Maker, x: Tensor) -> Tensor:
    """As `HardSwish6` is written."""
    return made.product(x, made.operator("ADD", [x, made.constant([50])], SIX, "AddOptions"))


def builtin_hard_swish(made: Maker, x: Tensor) -> Tensor:
    """LiteRT's own operator."""
    return made.operator("HARD_SWISH", [x], VALUES)


def builtin_gelu(made: Maker, x: Tensor) -> Tensor:
    """LiteRT's own operator."""
    return made.operator("GELU", [x], VALUES, "GeluOptions")


EXPRESSIONS: dict[str, Callable[[Maker, Tensor], Tensor]] = {
    "SiLU": silu,
    "SiLU with a factor a channel": with_factors,
    "hard-swish, of ADD and MUL": hard_swish,
    "HARD_SWISH": builtin_hard_swish,
    "GELU": builtin_gelu,
}


def interpreter(make: Callable[[Maker, Tensor], Tensor], threads: int) -> LiteRtInterpreter:
    """Eight of them in a row."""
    made = Maker()
    given = value = made.graph.value("x", SHAPE, "int8", VALUES)
    for _ in range(TIMES):
        value = make(made, value)
    return LiteRtInterpreter(made.graph.packed([given], [value]), threads)


@click.command()
@click.option("--threads", default=1, show_default=True)
def main(threads: int) -> None:
    """Print the times."""
    x = np.random.default_rng(0).integers(-128, 128, SHAPE).astype(np.int8)
    opened = {name: interpreter(make, threads) for name, make in EXPRESSIONS.items()}
    spent: dict[str, list[float]] = {name: [] for name in opened}
    for _ in range(ROUNDS):
        for name, each in opened.items():
            start = time.perf_counter()
            each.run([x])
            spent[name].append((time.perf_counter() - start) / TIMES * 1e6)
    for name, times in spent.items():
        click.echo(f"{name:30} {np.median(times):7.1f} µs, least {min(times):.1f}")


if __name__ == "__main__":
    main()
