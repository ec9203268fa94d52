"""What a picture goes through before a variant sees it, in the reference and elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError
from effnet_edge.model.families import EDGETPU, LITE
from effnet_edge.model.variants import VARIANTS, Variant
from effnet_edge.pictures.image import Preprocessing
from effnet_edge.size import Size

if TYPE_CHECKING:
    from effnet_edge.pictures.fitting import Fit

# The statistics of ImageNet's training set that the reference normalizes with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The references of Lite, EdgeTPU and V2-S to L subtract 127 or 128 and divide by 128.
CENTRED = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class PixelConventions:
    """What a code base does to pictures; None where it does as the reference.

    Attributes:
        resolution, crop_fraction, interpolation, mean, std, fit: as in `Preprocessing`.
    """

    resolution: Size | None = None
    crop_fraction: float | None = None
    interpolation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fit: Fit | None = None


AS_REFERENCE = PixelConventions()


def variant_preprocessing(
    variant: Variant,
    resolution: Size | int | None = None,
    conventions: PixelConventions = AS_REFERENCE,
    fit: Fit | None = None,
) -> Preprocessing:
    """Of the variant with weights that follow `conventions`.

    Args:
        resolution: height and width, or the side of a square, whatever the conventions and the
            variant say.
        fit: whatever the conventions say; their margin around a crop is then left out where it is
            another than theirs, as stretched and padded pictures are shown whole.

    Raises:
        UsageError: a value of the conventions is out of its range.
    """
    centred = variant.family.centred_pixels
    own_fit = conventions.fit or "crop"
    crop_fraction = conventions.crop_fraction or variant.crop_fraction
    return Preprocessing(
        resolution=Size.of(resolution or conventions.resolution or variant.resolution),
        crop_fraction=crop_fraction if fit in (None, own_fit) else 1.0,
        interpolation=conventions.interpolation or "bicubic",
        mean=conventions.mean or (CENTRED if centred else IMAGENET_MEAN),
        std=conventions.std or (CENTRED if centred else IMAGENET_STD),
        fit=fit or own_fit,
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


def _evaluated(
    side: int,
    resized: int,
    interpolation: str = "bicubic",
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> PixelConventions:
    """The short side resized to `resized` pixels, and a square cut from it."""
    return PixelConventions(Size.of(side), side / resized, interpolation, mean, std)


# `transforms` of the weights in torchvision 0.28's models/efficientnet.py; for b1 those of its
# default weights, IMAGENET1K_V2.
TORCHVISION_PIXELS = {
    "b0": _evaluated(224, 256),
    "b1": _evaluated(240, 255, "bilinear"),
    "b2": _evaluated(288, 288),
    "b3": _evaluated(300, 320),
    "b4": _evaluated(380, 384),
    "b5": _evaluated(456, 456),
    "b6": _evaluated(528, 528),
    "b7": _evaluated(600, 600),
    "v2-s": _evaluated(384, 384, "bilinear"),
    "v2-m": _evaluated(480, 480, "bilinear"),
    "v2-l": _evaluated(480, 480, mean=CENTRED, std=CENTRED),
}

# predict.py of both folders: torchvision's Resize, bilinear, and a crop of the same size.
TUTORIAL_PIXELS = {
    name: PixelConventions(
        crop_fraction=1.0,
        interpolation="bilinear",
        mean=CENTRED if name.startswith("v2") else IMAGENET_MEAN,
        std=CENTRED if name.startswith("v2") else IMAGENET_STD,
    )
    for name in VARIANTS
}


# preprocessor_config.json of google/efficientnet-b0 to b7: pictures are resized whole.
HUGGING_FACE_PIXELS = {
    name: PixelConventions(crop_fraction=1.0, fit="stretch")
    for name, variant in VARIANTS.items()
    if not variant.family.centred_pixels
}


def _less_and_over_128(subtracted: float) -> PixelConventions:
    """(x − subtracted) / 128 for pixels of 0 to 255."""
    mean, std = subtracted / 255, 128 / 255
    return PixelConventions(mean=(mean, mean, mean), std=(std, std, std))


# A `Rescaling` layer of 1/128 and −1 in keras/src/applications/efficientnet_v2.py; in V2-B0 to B3 a
# `Normalization` with ImageNet's statistics.
KERAS_V2_PIXELS = {name: _less_and_over_128(128) for name in ("v2-s", "v2-m", "v2-l")}

# MEAN_RGB and STDDEV_RGB of the builders in https://github.com/tensorflow/tpu (lite, edgetpu), and
# https://github.com/google/automl, efficientnetv2/preprocessing.py.
REFERENCE_PIXELS = {
    name: _less_and_over_128(127 if variant.family in (LITE, EDGETPU) else 128)
    for name, variant in VARIANTS.items()
    if variant.family.centred_pixels
}
