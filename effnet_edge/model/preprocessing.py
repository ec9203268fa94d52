"""What the reference does to a picture before a variant sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError
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


def with_channels(
    preprocessing: Preprocessing,
    channels: int,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Preprocessing:
    """The same for a network of other input channels than RGB, or with another normalization.

    Without `mean` and `std` a greyscale network gets the averages of those of the three colours
    (0.449 and 0.226 for ImageNet's); nothing is known of other channels.

    Raises:
        UsageError: not as many values as channels, or none for channels that need them.
    """
    return replace(
        preprocessing,
        mean=_of_channels("--mean", mean, preprocessing.mean, channels),
        std=_of_channels("--std", std, preprocessing.std, channels),
    )


def _of_channels(
    option: str, given: tuple[float, ...] | None, of_colours: tuple[float, ...], channels: int
) -> tuple[float, ...]:
    if given is not None:
        if len(given) != channels:
            raise UsageError(
                f"{option} has {_values(len(given))}, and the network takes {channels} "
                f"channel{'s' if channels > 1 else ''}: give one for each"
            )
        return given
    if channels == len(of_colours):
        return of_colours
    if channels == 1:
        return (round(sum(of_colours) / len(of_colours), 6),)
    raise UsageError(
        f"the network takes {channels} channels: give {option} with {_values(channels)} in units "
        "of pixel / 255, separated by commas"
    )


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count} values"
