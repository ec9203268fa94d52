"""What a finished candidate loses, on pictures that none was calibrated on, and what it takes."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from effnet_calibration.threads import THREADS
from effnet_edge.bench import in_turns
from effnet_edge.errors import UsageError
from effnet_edge.parity import Comparison
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.runtime import EngineRunner
from effnet_export.gate import BATCH_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from effnet_edge.bundle import Bundle
    from effnet_edge.parity import ParityResult
    from effnet_edge.progress import Progress
    from effnet_export.loading import Loaded

ROUNDS = 100
WARMUP = 10
MOST_SECONDS = 60.0
"""Of the timing in all; fewer rounds are made of slow networks."""


class Judge:
    """Holds bundles against the network in PyTorch, which answers each picture once.

    Raises:
        UsageError: none of the pictures can be read, or one's label is no class.
    """

    def __init__(self, loaded: Loaded, progress: Progress) -> None:
        source, pictures = loaded.source, loaded.pictures.held_out()
        self._source = pictures.source
        self._output = source.network.output_kind
        self._skipped: list[str] = []
        reference = TorchClassifier(source.network, source.preprocessing)
        self._reference = reference
        self._answered = []
        itself = Comparison(reference.name, reference.name, "FP32", "FP32", self._output)
        for pixels, labels in pictures.batches(source.preprocessing, BATCH_SIZE, self._skipped):
            logits = reference.infer(pixels)
            itself.update(logits, logits, labels)  # sees that each label is a class
            self._answered.append((pixels, labels, logits))
            progress("pictures", len(self._answered) * BATCH_SIZE, len(pictures))
        if not self._answered:
            raise UsageError(f"{self._source}: none of the pictures can be read")

    @property
    def judged_on(self) -> str:
        """Which pictures, in words."""
        unread = len(self._skipped)
        return self._source + (f" ({unread} of them cannot be read)" if unread else "")

    def loss(self, bundle: Bundle) -> ParityResult:
        """What a bundle's engine loses, with labels its drop, too."""
        reference = self._reference
        with EngineRunner.of(bundle, threads=THREADS) as runner:
            comparison = Comparison(
                reference.name,
                bundle.path.name,
                reference.execution_precision,
                runner.execution_precision,
                self._output,
            )
            for pixels, labels, logits in self._answered:
                comparison.update(logits, runner.infer(pixels), labels)
        return comparison.result(self._source, tuple(self._skipped))


def seconds_in_turns(bundles: Mapping[str, Bundle], progress: Progress) -> dict[str, list[float]]:
    """Time the engines of bundles, which take turns in another order each round.

    Returns:
        The seconds of each call, the same number for all of them, on as many images of noise as
        their batch is best for. The engines choose their own number of threads.
    """
    with ExitStack() as stack:
        calls = {}
        for name, bundle in bundles.items():
            runner = stack.enter_context(EngineRunner.of(bundle))
            taken, batch = bundle.manifest.input, bundle.manifest.batch.optimum
            shape = (batch, taken.height, taken.width, taken.channels)
            pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            calls[name] = partial(runner.infer, pixels)
        told = partial(progress, "rounds")
        return in_turns(calls, ROUNDS, WARMUP, progress=told, shuffled=True, limit=MOST_SECONDS)
