"""Untrained networks that are small enough for a test, and noise-free stand-ins for photos."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from effnet_calibration.path import NetworkPath
from effnet_calibration.quantization import Quantization
from effnet_calibration.schemes import ASYMMETRIC_UINT8, SYMMETRIC_INT8
from effnet_calibration.work import Settings, Step, Work
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.variants import VARIANTS
from effnet_edge.pictures.image import Preprocessing, normalize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from effnet_edge.pictures.sets import Batch

SIDE = 64
CLASSES = 10
QUICK_SCHEMES = (ASYMMETRIC_UINT8, SYMMETRIC_INT8)
PREPROCESSING = Preprocessing(SIDE, 1.0, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def random_network(variant: str = "b0", seed: int = 0) -> EfficientNet:
    """A folded network whose channels differ widely in range, as trained ones do.

    B0 has half of its blocks, and in each stage at least one.
    """
    torch.manual_seed(seed)
    row = VARIANTS[variant]
    network = EfficientNet(
        replace(row, depth=row.depth / 2) if variant == "b0" else row,
        resolution=SIDE,
        num_classes=CLASSES,
        dropout=0.0,
        drop_connect=0.0,
    )
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data = torch.exp2(torch.randn(module.num_features) / 2)
            module.bias.data = torch.randn(module.num_features) / 2
            module.momentum = None  # the running statistics are then those of the next batch
    with torch.no_grad():
        network.train()(normalized(32, seed))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # One size for all channels: dividing by a small variance would amplify any noise.
            module.running_var.fill_(float(module.running_var.mean()))
    return fold_batch_norm(network)


def kept_by(
    step: Step, network: EfficientNet, settings: Settings, before: Sequence[str] = ()
) -> set[str]:
    """The layers left in 16 bit once a step that looks at no picture has decided."""
    work = Work(
        network=network,
        path=NetworkPath.of(network),
        scheme=ASYMMETRIC_UINT8,
        preprocessing=None,
        statistics={},
        exact=None,
        apply=lambda _: None,
        settings=settings,
    )
    part = Quantization(ASYMMETRIC_UINT8.name).keeping(before)
    return set(step.decide(work, part).kept)


class Smooth:
    """`count` smooth colour fields in place of photos, with the interface of an ImageSet."""

    labels = None
    source = "smooth fields"

    def __init__(self, count: int, seed: int = 0) -> None:
        coarse = np.random.default_rng(seed).random((count, 4, 4, 3))
        fields = coarse.repeat(SIDE // 4, 1).repeat(SIDE // 4, 2)
        self.pixels = (fields * 255).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, skipped: list[str] | None = None
    ) -> Iterator[Batch]:
        del preprocessing, skipped
        for start in range(0, len(self), batch_size):
            yield self.pixels[start : start + batch_size], None


def normalized(count: int, seed: int = 0) -> torch.Tensor:
    """The same fields as the network takes them, float32 (count, 3, SIDE, SIDE)."""
    return torch.from_numpy(normalize(Smooth(count, seed).pixels, PREPROCESSING))
