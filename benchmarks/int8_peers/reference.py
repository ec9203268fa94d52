"""PyTorch's answers in FP32, and how far a candidate's are from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.parity import Comparison
from effnet_edge.parity.models.torch import TorchClassifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from effnet_edge.model.network import EfficientNet
    from effnet_edge.parity import ParityResult
    from effnet_edge.pictures.image import Preprocessing
    from int8_peers.subject import Pictures


@dataclass(frozen=True)
class Reference:
    """A network's answers to pictures.

    Attributes:
        logits: float32 (N, classes), each computed by itself.
    """

    pictures: Pictures
    logits: NDArray[np.float32]

    @classmethod
    def of(
        cls, network: EfficientNet, preprocessing: Preprocessing, pictures: Pictures
    ) -> Reference:
        """Run the network on every picture."""
        torch = TorchClassifier(network, preprocessing)
        return cls(pictures, np.concatenate([torch.infer(each[None]) for each in pictures.pixels]))

    def compare(
        self,
        candidate: str,
        precision: str,
        infer: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    ) -> ParityResult:
        """Run a candidate picture by picture and compare.

        Args:
            candidate: its name.
            precision: what it runs in.
            infer: uint8 (1, R, R, 3) to logits float32 (1, classes).
        """
        comparison = Comparison("torch", candidate, "FP32", precision)
        for index, picture in enumerate(self.pictures.pixels):
            one = slice(index, index + 1)
            comparison.update(self.logits[one], infer(picture[None]), self.pictures.labels[one])
        return comparison.result()
