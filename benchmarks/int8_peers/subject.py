"""What every method quantizes, and the pictures that it is given and judged on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import UsageError
from effnet_edge.labels import imagenet_labels
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import Source, load_source
from effnet_edge.pictures.image import normalize
from effnet_edge.pictures.sets import ImageSet

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from effnet_edge.model.network import EfficientNet
    from effnet_edge.pictures.image import Preprocessing

VARIANT = "b0"


@dataclass(frozen=True)
class Pictures:
    """A labelled set, decoded once.

    Attributes:
        path: of the folder or CSV file.
        pixels: uint8 (N, R, R, 3).
        labels: int64 (N,), class indices.
        sha256: of the pixels and labels.
    """

    path: Path
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    sha256: str

    @classmethod
    def read(cls, path: Path, preprocessing: Preprocessing) -> Pictures:
        """Read a folder whose subfolders are named by WordNet id, or a CSV file.

        Raises:
            UsageError: no such set, or pictures without labels.
            ImageError: a picture that cannot be read.
        """
        classes = {label.wnid: index for index, label in enumerate(imagenet_labels()) if label.wnid}
        read = ImageSet.from_folder if path.is_dir() else ImageSet.from_csv
        images = read(path, classes)
        if images.labels is None:
            raise UsageError(f"{path} is not labelled: name its folders by WordNet id")
        (batch,) = images.batches(preprocessing, len(images))
        labels = np.asarray(images.labels, np.int64)
        digest = hashlib.sha256(batch[0].tobytes() + labels.tobytes()).hexdigest()
        return cls(path, batch[0], labels, digest)

    def normalized(self, preprocessing: Preprocessing) -> list[NDArray[np.float32]]:
        """The network's inputs, one by one: float32 (1, 3, R, R)."""
        return [normalize(picture[None], preprocessing) for picture in self.pixels]


@dataclass(frozen=True)
class Subject:
    """The trained network, and the pictures to calibrate on."""

    source: Source
    calibration: Pictures

    @classmethod
    def load(cls, calibration: Path) -> Subject:
        """B0 with its ImageNet weights."""
        source = load_source(NetworkRequest(VARIANT))
        return cls(source, Pictures.read(calibration, source.preprocessing))

    @property
    def preprocessing(self) -> Preprocessing:
        """Of the pictures."""
        return self.source.preprocessing

    @cached_property
    def folded(self) -> EfficientNet:
        """The network without batch norms; not to be changed."""
        return fold_batch_norm(self.source.network).eval()

    @cached_property
    def calibration_inputs(self) -> list[NDArray[np.float32]]:
        """What the peers calibrate on: every picture, float32 (1, 3, R, R)."""
        return self.calibration.normalized(self.preprocessing)
