"""The photographs that are on every build host: those that scikit-image and scikit-learn ship.

Enough to prove that two graphs compute the same, and to calibrate when nothing better is at hand.
"""

from __future__ import annotations

import importlib.util
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import UsageError
from effnet_edge.extras import install_hint
from effnet_edge.pictures.fitting import window
from effnet_edge.pictures.image import Pixels, Preprocessing, crop_and_resize, decode
from effnet_edge.size import Size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effnet_edge.pictures.protocol import Batch, Outcome

# Photographs only: drawings, masks, scanned text and test patterns have other statistics.
PHOTOGRAPHS = {
    "skimage": (
        "data",
        (
            "astronaut.png",
            "brick.png",
            "camera.png",
            "chelsea.png",
            "coffee.png",
            "coins.png",
            "grass.png",
            "gravel.png",
            "hubble_deep_field.jpg",
            "ihc.png",
            "moon.png",
            "motorcycle_left.png",
            "retina.jpg",
            "rocket.jpg",
        ),
    ),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
}

# Crops cover from this share of the largest one up to all of it, so that objects vary in size.
SMALLEST_CROP = 0.35


@dataclass(frozen=True)
class EmbeddedPhotos:
    """`count` random crops of the embedded photographs; the same for the same seed.

    They are pictures of the shape that the network sees most of: its input's own, or the whole
    photograph's where pictures are stretched or padded.

    For one channel the photographs are read in grey. There are none for other channels than RGB:
    their grey stands in, which shows whether two models compute the same, and is nothing to
    calibrate on.
    """

    count: int
    seed: int = 0
    channels: int = 3

    labels = None

    @property
    def source(self) -> str:
        """How a person would name the set."""
        photos = f"{self.count} crops of the photos in scikit-image and scikit-learn"
        if self.channels == 3:
            return photos
        return f"{photos}, {'in grey' if self.channels == 1 else 'their grey in every channel'}"

    def __len__(self) -> int:
        return self.count

    def subset(self, count: int) -> EmbeddedPhotos:
        """The first `count` crops, or all where there are no more."""
        return replace(self, count=min(count, self.count))

    def batches(
        self,
        preprocessing: Preprocessing,
        batch_size: int,
        skipped: list[str] | None = None,
        outcomes: list[Outcome] | None = None,
    ) -> Iterator[Batch]:
        """The network's inputs, uint8 (n, H, W, channels), and None for their labels.

        Raises:
            UsageError: scikit-image or scikit-learn is not installed.
        """
        del skipped
        read_as = 3 if self.channels == 3 else 1
        photos = [
            decode(path, read_as).repeat(self.channels // read_as, axis=2)
            for path in embedded_photographs()
        ]
        generator = random.Random(self.seed)
        for start in range(0, self.count, batch_size):
            indices = range(start, min(start + batch_size, self.count))
            crops = [
                _random_crop(photos[index % len(photos)], preprocessing, generator)
                for index in indices
            ]
            if outcomes is not None:
                outcomes += [(f"crop {index + 1}", None) for index in indices]
            yield np.stack(crops), None


def embedded_photographs() -> list[Path]:
    """The photographs' files; the libraries are found, not imported.

    Raises:
        UsageError: scikit-image or scikit-learn, or a photograph of it, is not installed.
    """
    paths = []
    for package, (folder, names) in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        roots = spec.submodule_search_locations if spec else None
        if not roots:
            raise UsageError(
                f"the embedded photos come with {package}, which is not installed: "
                f"{install_hint('export')}, or give pictures of your own"
            )
        paths += [Path(roots[0]) / folder / name for name in names]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UsageError(f"the embedded photo {missing[0]} is missing: give pictures of your own")
    return paths


def _random_crop(photo: Pixels, preprocessing: Preprocessing, generator: random.Random) -> Pixels:
    height, width = photo.shape[:2]
    # Of `random`, only random() is promised to give the same numbers in every Python.
    share, down, right = generator.random(), generator.random(), generator.random()
    whole = replace(preprocessing, crop_fraction=1.0)
    largest = window(Size(height, width), whole.resolution, whole.fit, whole.crop_fraction).cut
    scale = SMALLEST_CROP + (1 - SMALLEST_CROP) * share
    rows, columns = (max(1, round(side * scale)) for side in (largest.height, largest.width))
    top, left = round(down * (height - rows)), round(right * (width - columns))
    return crop_and_resize(photo[top : top + rows, left : left + columns], whole)
