"""Two models compared tensor by tensor: where the error comes in, and what only passes it on.

Every batch goes through the candidate twice. As it is, each tensor shows the error that has piled
up so far. With every tensor of the reference given to whoever reads it, it shows what its own
nodes add. The difference between the two runs is what it inherits.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge import nonfinite
from effnet_edge.errors import UsageError
from effnet_edge.parity.inside.tracing import Grid, Kernel, Traceable, shared_tensors
from effnet_edge.parity.measures import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Pictures
    from effnet_edge.progress import Steps

# All tensors of a batch are held at once: as many pictures of any size as these of 224 pixels.
_PIXELS_AT_ONCE = 4 * 224 * 224

_HISTOGRAM_BINS = 64
_HISTOGRAM_SAMPLE = 65536


@dataclass(frozen=True)
class Histogram:
    """How a reference tensor's values are spread: `counts` over equal bins from `low` to `high`.

    Over the first batch, and a regular sample where the tensor is large.
    """

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Saturation:
    """What a grid of integers does to the tensor that is rounded to it.

    Attributes:
        node: that rounds.
        low, high: the ends of the grid, in the tensor's own unit.
        clipped: share (0..1) of the candidate's values outside.
        histogram: of the reference's values.
    """

    node: str
    low: float
    high: float
    clipped: float
    histogram: Histogram


@dataclass(frozen=True)
class LayerError:
    """One tensor of the candidate against the reference's of the same name, over all pictures.

    Attributes:
        name: of the tensor: the path of the PyTorch module.
        operation, precision: what the candidate gives it with.
        sqnr_db: of the tensor as it is, decibels; infinite where equal.
        added_sqnr_db: of the tensor computed from the reference's values: what it adds itself.
        inherited_sqnr_db: the reference's energy over that of what it passes on.
        cosine: between the two tensors as they are.
        max_abs_error: in the tensor's own unit.
        channels: how many it has.
        dead_channels: those in which the candidate gives one and the same value everywhere, and
            the reference does not.
        saturation: for each grid of integers that the tensor is rounded to.
    """

    name: str
    operation: str
    precision: str
    sqnr_db: float
    added_sqnr_db: float
    inherited_sqnr_db: float
    cosine: float
    max_abs_error: float
    channels: int
    dead_channels: int
    saturation: tuple[Saturation, ...]

    @property
    def clipped(self) -> float | None:
        """The largest share that a grid clips, 0..1; None where the tensor is not rounded."""
        return max((each.clipped for each in self.saturation), default=None)

    def to_dict(self) -> dict[str, object]:
        """JSON values only; numbers as `effnet_edge.nonfinite` says."""
        fields: dict[str, object] = nonfinite.encode(asdict(self))
        return fields


def compare_layers(
    reference: Traceable,
    candidate: Traceable,
    pictures: Pictures,
    preprocessing: Preprocessing,
    *,
    progress: Steps | None = None,
) -> list[LayerError]:
    """Every tensor that both models have, in the candidate's order of execution.

    The memory is that of all shared tensors for one batch, three times; the batch shrinks as the
    resolution grows, down to one picture.

    Raises:
        UsageError: the two share no tensor names, or no picture can be read.
        BackendError: a model fails.
    """
    shared = shared_tensors(reference, candidate)
    if not shared:
        raise UsageError(
            f"{reference.name} and {candidate.name} have no tensors of the same name, "
            "so their layers cannot be compared: leave --layers out"
        )
    grids = candidate.grids()
    tallies = {name: _Tally([grid for grid in grids if grid.tensor == name]) for name in shared}
    done = 0
    skipped: list[str] = []
    batch_size = layer_batch_size(preprocessing)
    for pixels, _ in pictures.batches(preprocessing, batch_size, skipped):
        _tally_batch(reference, candidate, pixels, tallies)
        done += len(pixels)
        if progress:
            progress(done + len(skipped), len(pictures))
    if not done:
        raise UsageError(f"there are no pictures in {pictures.source} that can be read")
    return [tally.result(name, shared[name]) for name, tally in tallies.items()]


def layer_batch_size(preprocessing: Preprocessing) -> int:
    """How many pictures of this resolution are compared by layer at a time."""
    return max(1, _PIXELS_AT_ONCE // preprocessing.resolution.pixels)


def _tally_batch(
    reference: Traceable,
    candidate: Traceable,
    pixels: NDArray[np.uint8],
    tallies: dict[str, _Tally],
) -> None:
    names = list(tallies)
    expected = reference.activations(pixels, names)
    found = candidate.activations(pixels, names)
    alone = candidate.activations(pixels, names, expected)
    for name, tally in tallies.items():
        # Popped, so that memory is given back on the way.
        tally.add(_channels_first(expected.pop(name)), found.pop(name), alone.pop(name))


class _Tally:
    """Sums over batches for one tensor, a number a channel where channels matter."""

    def __init__(self, grids: list[Grid]) -> None:
        self._grids = grids
        self._clipped = [0] * len(grids)
        self._histograms: list[Histogram] = []
        self._values = 0
        self._signal = self._candidate_energy = self._product = 0.0
        self._noise = self._added = self._inherited = 0.0
        self._max_error = 0.0
        self._spread = _Spread()

    def add(
        self,
        expected: NDArray[np.float32],
        found: NDArray[np.generic],
        alone: NDArray[np.generic],
    ) -> None:
        found, alone = (_shaped_like(each, expected) for each in (found, alone))
        error = found - expected
        self._values += expected.size
        self._signal += _energy(expected)
        self._candidate_energy += _energy(found)
        self._product += _dot(found, expected)
        self._noise += _energy(error)
        # np.maximum, unlike max, lets a NaN through.
        worst = max(abs(float(error.min())), abs(float(error.max()))) if error.size else 0.0
        self._max_error = float(np.maximum(self._max_error, worst + 0 * float(error.sum())))
        self._added += _energy(np.subtract(alone, expected, out=error))
        self._inherited += _energy(np.subtract(found, alone, out=error))
        self._spread.add(expected, found)
        self._add_to_grids(expected, found)

    def _add_to_grids(self, expected: NDArray[np.float32], found: NDArray[np.float32]) -> None:
        for index, grid in enumerate(self._grids):
            half_step = (grid.high - grid.low) / (grid.levels - 1) / 2
            outside = (found < grid.low - half_step) | (found > grid.high + half_step)
            self._clipped[index] += int(np.count_nonzero(outside))
            if len(self._histograms) == index:
                self._histograms.append(_histogram(expected))

    def result(self, name: str, kernel: Kernel) -> LayerError:
        return LayerError(
            name=name,
            operation=kernel.operation,
            precision=kernel.precision,
            sqnr_db=metrics.decibels(self._signal, self._noise),
            added_sqnr_db=metrics.decibels(self._signal, self._added),
            inherited_sqnr_db=metrics.decibels(self._signal, self._inherited),
            cosine=metrics.cosine_of_sums(self._product, self._signal, self._candidate_energy),
            max_abs_error=self._max_error,
            channels=self._spread.channels,
            dead_channels=self._spread.dead,
            saturation=tuple(
                Saturation(grid.node, grid.low, grid.high, clipped / self._values, histogram)
                for grid, clipped, histogram in zip(
                    self._grids, self._clipped, self._histograms, strict=True
                )
            ),
        )


class _Spread:
    """The smallest and the largest value of every channel, in both models."""

    def __init__(self) -> None:
        self._ends: list[NDArray[np.float32]] = []

    def add(self, expected: NDArray[np.float32], found: NDArray[np.float32]) -> None:
        ends = [values.min(axis=2).min(axis=0) for values in (expected, -expected, found, -found)]
        if not self._ends:
            self._ends = ends
        self._ends = [np.minimum(a, b) for a, b in zip(self._ends, ends, strict=True)]

    @property
    def channels(self) -> int:
        return len(self._ends[0])

    @property
    def dead(self) -> int:
        """A channel is constant where its smallest and its largest value are equal."""
        expected_low, expected_high, found_low, found_high = self._ends
        alive_before = expected_low != -expected_high
        return int(np.count_nonzero(alive_before & (found_low == -found_high)))


def _channels_first(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """(N, C, …) → float32 (N, C, rest)."""
    real = values.astype(np.float32, copy=False)
    return real.reshape(*real.shape[:2], -1) if real.ndim > 1 else real.reshape(-1, 1, 1)


def _shaped_like(values: NDArray[np.generic], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    real = _channels_first(values)
    if real.shape == expected.shape:
        return real
    # Nothing in it is right; a NaN says so in every measure.
    return np.full_like(expected, np.nan)


def _energy(values: NDArray[np.float32]) -> float:
    return _dot(values, values)


def _dot(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    return float(np.dot(left.reshape(-1), right.reshape(-1)))


def _histogram(values: NDArray[np.float32]) -> Histogram:
    flat = values.reshape(-1)
    sample = flat[:: max(1, flat.size // _HISTOGRAM_SAMPLE)]
    low, high = float(flat.min()), float(flat.max())
    if not math.isfinite(low + high):
        return Histogram(0.0, 0.0, ())
    counts, _ = np.histogram(sample, _HISTOGRAM_BINS, (low, high))
    return Histogram(low, high, tuple(int(count) for count in counts))
