"""What a finished candidate loses, on pictures that none was calibrated on, and what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_calibration.threads import THREADS
from effnet_edge.parity import Comparison
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.pictures.reading import read_batches, told_source
from effnet_edge.runtime import EngineRunner
from effnet_export.gate import BATCH_SIZE
from effnet_export.stand_ins import is_compiled, simulation

if TYPE_CHECKING:
    from effnet_edge.bundle import Bundle
    from effnet_edge.parity import Classifier, ParityResult
    from effnet_edge.progress import Progress
    from effnet_export.loading import Loaded


class Judge:
    """Holds bundles against the network in PyTorch, which answers each picture once.

    Attributes:
        reference: the network.
        itself: the network against itself.

    Raises:
        UsageError: none of the pictures can be read, or one's label is no class.
    """

    def __init__(self, loaded: Loaded, progress: Progress) -> None:
        source, pictures = loaded.source, loaded.pictures.held_out()
        self._source = pictures.source
        self._output = source.network.output_kind
        self._skipped: list[str] = []
        reference = TorchClassifier(source.network, source.preprocessing)
        self.reference = reference
        self._answered = []
        itself = Comparison(reference.name, reference.name, "FP32", "FP32", self._output)
        for pixels, labels in read_batches(
            pictures, source.preprocessing, BATCH_SIZE, self._skipped
        ):
            logits = reference.infer(pixels)
            itself.update(logits, logits, labels)  # sees that each label is a class
            self._answered.append((pixels, labels, logits))
            progress("pictures", len(self._answered) * BATCH_SIZE, len(pictures))
        self.itself = itself.result(self._source)

    @property
    def judged_on(self) -> str:
        """Which pictures, in words."""
        return told_source(self._source, self._skipped)

    def loss(self, bundle: Bundle) -> ParityResult:
        """What a bundle's engine loses, with labels its drop, too.

        Where the device builds the engine it is what its graph loses, simulated.
        """
        if is_compiled(bundle):
            return self._loss(simulation(bundle))
        with EngineRunner.of(bundle, threads=THREADS) as runner:
            return self._loss(runner)

    def _loss(self, candidate: Classifier) -> ParityResult:
        reference = self.reference
        comparison = Comparison(
            reference.name,
            candidate.name,
            reference.execution_precision,
            candidate.execution_precision,
            self._output,
        )
        for pixels, labels, logits in self._answered:
            comparison.update(logits, candidate.infer(pixels), labels)
        return comparison.result(self._source, tuple(self._skipped))
