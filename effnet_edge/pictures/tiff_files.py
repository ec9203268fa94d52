"""TIFF files that Pillow reads, and reads wrongly: refused, or told how to be read.

TIFF revision 6.0, and Pillow's `TiffImagePlugin` as of 10.3 to 13.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effnet_edge.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES, _FORMAT = 258, 259, 262, 277, 284, 339
_APART, _NOT_COMPRESSED, _WHITE_IS_ZERO, _SIGNED = 2, 1, 0, 2
_MOST_LEVELS = 65535


def tags_of(image: Image.Image) -> Mapping[int, Any]:
    """The tags of a picture that was opened from a TIFF file; none of any other."""
    return getattr(image, "tag_v2", None) or {}


def check_layout(image: Image.Image, name: str) -> None:
    """Refuse what Pillow puts together wrongly.

    Raises:
        ImageError: samples with a sign, whose white nobody tells; planes of 16 bits apart that are
            not compressed, of which it skips every other row; grey and alpha apart, of which it
            takes one.
    """
    tags = tags_of(image)
    samples, bits = tags.get(_SAMPLES, 1), max(tags.get(_BITS, (1,)), default=1)
    if bits == 16 and _SIGNED in tags.get(_FORMAT, ()):
        raise ImageError(f"{name} has pixels with a sign; save it without")
    raw = tags.get(_COMPRESSION, _NOT_COMPRESSED) == _NOT_COMPRESSED
    if tags.get(_PLANES) == _APART and (samples == 2 or (samples > 1 and bits > 8 and raw)):
        raise ImageError(
            f"{name} has its channels one after another, which is not read for {samples} of them "
            f"with {bits} bits; save it with the channels of a pixel together (contiguous)"
        )


def grey_levels(image: Image.Image) -> tuple[int, int]:
    """What is black and what is white in a picture of mode "I" or "I;16"."""
    tags = tags_of(image)
    bits = max(tags.get(_BITS, (16,)), default=16)
    white = (1 << bits) - 1 if 8 < bits < 16 else _MOST_LEVELS
    return (white, 0) if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else (0, white)
