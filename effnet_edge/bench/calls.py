"""What is timed of a bundle: its engine alone, and the way from a file to what a person is told."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import UsageError
from effnet_edge.pictures.sources import read_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from effnet_edge.pictures.image import Pixels
    from effnet_edge.runtime import EngineRunner

MOST_FILES = 100
"""So many different files are taken at most: enough that they differ, few enough to look at all."""

MOST_IMAGES = 64
"""That a network takes at once which does not say how many it takes."""


@dataclass(frozen=True)
class Original:
    """A network that no bundle holds, opened by whoever asks for its time.

    Attributes:
        name: as it is asked for.
        ran_on, execution_precision: what computes it, and in what.
        infer: takes uint8 images (N, H, W, C) of the shape that the bundles beside it take.
    """

    name: str
    ran_on: str
    execution_precision: str
    infer: Callable[[Pixels], object]


class NoiseCalls:
    """Calls with `batch` images of noise each, as many as a bundle takes.

    More than its engine takes at once are the same images again, so that memory does not grow.

    Args:
        original: what is called instead of the bundle's own engine.
    """

    def __init__(self, runner: EngineRunner, batch: int, original: Original | None = None) -> None:
        self._infer = original.infer if original else runner.infer
        self._batch = batch
        side = runner.manifest.input
        self._most = min(batch, MOST_IMAGES if original else runner.manifest.batch.maximum)
        shape = (self._most, side.height, side.width, side.channels)
        self._pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def __call__(self) -> None:
        """Run `batch` images."""
        for start in range(0, self._batch, self._most):
            self._infer(self._pixels[: self._batch - start])


class FileCalls:
    """Calls from `batch` picture files to their classes or values, the files taking turns.

    Of a bundle without a classifier to its features. Files are read from the disk each time, which
    after the first is the system's memory.

    Raises:
        UsageError: there are no files, or one does not exist.
        ImageError: one of them cannot be used.
    """

    def __init__(self, runner: EngineRunner, files: Sequence[Path], batch: int) -> None:
        if not files:
            raise UsageError("there are no pictures to time from")
        spread = np.linspace(0, len(files) - 1, min(len(files), MOST_FILES)).astype(int)
        chosen = [files[at] for at in spread]
        for file in chosen:
            error = read_picture(file, runner.manifest.preprocessing).error
            if error is not None:
                raise error
        self._runner, self._batch = runner, batch
        self._turns, self._lock = cycle(chosen), Lock()

    def __call__(self) -> None:
        """Answer the next files; from any thread."""
        with self._lock:
            files = list(islice(self._turns, self._batch))
        given = files[0] if self._batch == 1 else files
        kind = self._runner.manifest.output.kind
        if kind == "features":
            self._runner.infer(self._runner.prepare(given))
        elif kind == "regression":
            self._runner.estimate(given)
        else:
            self._runner.classify(given)
