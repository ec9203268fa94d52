"""What models with a batch of their own, and with inner tensors, have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from effnet_edge.parity.inside.tracing import LOGITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from effnet_edge.parity.inside.tracing import Given

Model = TypeVar("Model")
Number = TypeVar("Number", bound=np.generic)


def filled_batches(
    values: Sequence[NDArray[np.generic]], least: int, most: int | None
) -> Iterator[list[NDArray[np.generic]]]:
    """Cut arrays of equal length into what a model takes at a time, the last filled with zeros.

    `least` and `most` are the fewest and most images that the model takes; None for any number.
    """
    length = len(values[0])
    step = most or max(length, 1)
    for start in range(0, length, step):
        missing = max(least - min(step, length - start), 0)
        yield [_filled(each[start : start + step], missing) for each in values]


def joined(parts: Sequence[NDArray[Number]], length: int) -> NDArray[Number]:
    """The outputs for filled batches as one array, without what the zeros gave."""
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return whole[:length]


def without_logits(given: Given | None) -> Given:
    """What is given but for the logits: nothing that is compared lies behind them.

    A softmax may, and it would be given logits of another rank than its own.
    """
    return {name: value for name, value in (given or {}).items() if name != LOGITS}


class Traces(Generic[Model]):
    """The forms of a model opened at its tensors: the last one with values given, and without."""

    def __init__(self) -> None:
        self._kept: dict[bool, tuple[tuple[tuple[str, ...], tuple[str, ...]], Model]] = {}

    def get(self, names: Sequence[str], given: Given, make: Callable[[], Model]) -> Model:
        """The form that gives `names` and takes `given`, made if it is not the last one."""
        key = (tuple(names), tuple(given))
        kept = self._kept.get(bool(given))
        if kept is None or kept[0] != key:
            self._kept.pop(bool(given), None)  # before the next one is made, for its memory
            kept = self._kept[bool(given)] = (key, make())
        return kept[1]


def _filled(values: NDArray[np.generic], missing: int) -> NDArray[np.generic]:
    if not missing:
        return np.ascontiguousarray(values)
    return np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
