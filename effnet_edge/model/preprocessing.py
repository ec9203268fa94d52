"""What the reference does to a picture before a variant sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.image import Preprocessing

if TYPE_CHECKING:
    from effnet_edge.model.variants import Variant

# The statistics of ImageNet's training set that the reference normalizes with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def variant_preprocessing(variant: Variant, resolution: int | None = None) -> Preprocessing:
    """For the variant's own resolution, or another side in pixels."""
    return Preprocessing(
        resolution=variant.resolution if resolution is None else resolution,
        crop_fraction=variant.crop_fraction,
        interpolation="bicubic",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
