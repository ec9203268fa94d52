"""What a network loses by a quantization, in float32 simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from effnet_calibration.errors import CalibrationError
from effnet_calibration.memory import batch_size, images_in_memory
from effnet_calibration.outputs import ExactOutputs
from effnet_calibration.path import channels_last
from effnet_calibration.quantized import simulate
from effnet_edge.parity import Comparison
from effnet_edge.pictures.image import normalize
from effnet_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from effnet_calibration.quantization import Quantization
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.parity import ParityResult
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Batch, Pictures
    from effnet_edge.progress import Progress


class LossMeter:
    """Measures quantizations of one network on pictures.

    The pictures are held as they are read, 8 bits a value; the exact logits are computed once.

    Args:
        exact: the network's outputs on the first of the pictures, where they are known already.

    Attributes:
        exact: these, on as many of the pictures as `images_in_memory` says.
    """

    def __init__(
        self,
        network: EfficientNet,
        pictures: Pictures,
        preprocessing: Preprocessing,
        exact: ExactOutputs | None = None,
    ) -> None:
        self._network = channels_last(network)
        self._preprocessing = preprocessing
        self._source = pictures.source
        self._batch_size = batch_size(network)
        # What cannot be read was counted and judged when the network was calibrated.
        self._batches: list[Batch] = list(pictures.batches(preprocessing, self._batch_size, []))
        self._images = sum(len(pixels) for pixels, _ in self._batches)
        if not self._images:
            raise CalibrationError(f"{pictures.source} has no pictures to measure the loss on")
        if exact is None:
            limit = images_in_memory(network)
            exact = ExactOutputs.of(self._network, self._normalized(0, limit))
        self.exact = exact
        self._exact_logits = self._completed(self._network, exact.logits)

    def spread(self, count: int) -> list[Tensor]:
        """At most `count` pictures from all over the set, in batches, float32 (n, 3, H, W)."""
        step = max(1, self._images // count)
        pixels = np.concatenate([pixels for pixels, _ in self._batches])[::step][:count]
        normalized = torch.from_numpy(normalize(pixels, self._preprocessing))
        return list(torch.split(normalized, self._batch_size))

    def measure(
        self,
        quantization: Quantization,
        progress: Progress = no_progress,
        logits: Tensor | None = None,
    ) -> ParityResult:
        """The loss by one quantization, whose biases are taken as they are.

        Args:
            logits: what it gives for the first of the pictures, where that is known already.
        """
        comparison = Comparison(
            "torch", "simulated INT8", "FP32", "INT8", self._network.output_kind
        )
        known = torch.empty(0, 0) if logits is None else logits
        simulated = self._network
        if len(known) < self._images:
            simulated = simulate(self._network, quantization)
        start = 0
        for pixels, labels in self._batches:
            stop = start + len(pixels)
            found = self._completed(simulated, known, start, stop)
            comparison.update(self._exact_logits[start:stop], found, labels)
            start = stop
            progress("loss", comparison.images, self._images)
        return comparison.result(self._source)

    def _completed(
        self, network: EfficientNet, known: Tensor, start: int = 0, stop: int | None = None
    ) -> NDArray[np.float32]:
        """The logits of the pictures from `start` to `stop`: the known ones, and the others'."""
        stop = self._images if stop is None else stop
        parts = [known[start:stop].numpy()] if len(known) > start else []
        computed = self._normalized(max(start, len(known)), stop)
        return np.concatenate([*parts, *(_logits(network, batch) for batch in computed)])

    def _normalized(self, start: int, stop: int) -> Iterator[Tensor]:
        """The pictures from `start` to `stop` in the set's batches, float32 (n, 3, H, W)."""
        for pixels, _ in self._batches:
            part = pixels[max(0, start) : max(0, stop)]
            start, stop = start - len(pixels), stop - len(pixels)
            if len(part):
                yield torch.from_numpy(normalize(part, self._preprocessing))


def _logits(network: EfficientNet, batch: Tensor) -> NDArray[np.float32]:
    with torch.inference_mode():
        logits: Tensor = network(batch.contiguous(memory_format=torch.channels_last))
    return logits.numpy()
