"""How a picture of any shape is brought to the height and width of a network's input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from effnet_edge.size import Size

Fit = Literal["crop", "stretch", "pad"]
"""What happens to a picture of another shape than the input's.

`crop` cuts the largest centre of the input's shape; `stretch` takes the whole picture and scales
height and width each by its own factor; `pad` takes the whole picture, keeps its shape and fills up
with borders. timm's `crop_mode` calls them `center`, `squash` and `border`.
"""
FITS: tuple[Fit, ...] = get_args(Fit)


@dataclass(frozen=True)
class Window:
    """The centre of a picture that is cut out, and what it is resized to.

    Only under `pad` is `shown` less than the input: the rest are borders.
    """

    cut: Size
    shown: Size


def window(picture: Size, target: Size, fit: Fit, crop_fraction: float) -> Window:
    """Where a picture comes to lie in an input of size `target`.

    `crop_fraction` of what the fit takes, in (0, 1], is cut; all of it where it is 1.
    """
    # Pixels of the picture in one of the input.
    down, across = picture.height / target.height, picture.width / target.width
    if fit == "crop":
        down = across = min(down, across)
    elif fit == "pad":
        down = across = max(down, across)
    rows, shown_rows = _along(picture.height, target.height, crop_fraction * down)
    columns, shown_columns = _along(picture.width, target.width, crop_fraction * across)
    return Window(Size(rows, columns), Size(shown_rows, shown_columns))


def _along(picture: int, target: int, step: float) -> tuple[int, int]:
    """How many pixels of one axis are cut out, and what they are resized to; both at least 1."""
    # 0.88 of 25 is 22 and not 21.999…: float error must not cost a row.
    wanted = step * target
    cut = min(picture, max(1, math.floor(wanted + 1e-6)))
    shown = target if wanted <= picture else min(target, max(1, round(picture / step)))
    return cut, shown
