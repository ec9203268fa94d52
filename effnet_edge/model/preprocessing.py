"""What the reference does to a picture before a variant sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.image import Preprocessing

if TYPE_CHECKING:
    from effnet_edge.model.variants import Variant

# The statistics of ImageNet's training set that the reference normalizes with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The references of Lite, EdgeTPU and V2-S to L subtract 127 or 128 and divide by 128.
CENTRED = (0.5, 0.5, 0.5)


def variant_preprocessing(variant: Variant, resolution: int | None = None) -> Preprocessing:
    """For the variant's own resolution, or another side in pixels."""
    centred = variant.family.centred_pixels
    return Preprocessing(
        resolution=variant.resolution if resolution is None else resolution,
        crop_fraction=variant.crop_fraction,
        interpolation="bicubic",
        mean=CENTRED if centred else IMAGENET_MEAN,
        std=CENTRED if centred else IMAGENET_STD,
    )
