"""Height and width in pixels, in this order everywhere: in arrays, tensors, options and manifests.

Pillow alone says (width, height).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from effnet_edge.errors import UsageError

_TEXT = re.compile(r"([0-9]{1,9})(?:[xX×]([0-9]{1,9}))?")


@dataclass(frozen=True)
class Size:
    """Of a picture or of a feature map; raises `UsageError` where a side is below 1."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise UsageError(f"a resolution of {self} px: height and width must be 1 or more")

    @classmethod
    def of(cls, value: Size | int) -> Size:
        """`value` itself, or the square whose side it is."""
        return value if isinstance(value, Size) else cls(value, value)

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read "192x320", height first, or "224" for a square; raises `UsageError` for others."""
        found = _TEXT.fullmatch(text.strip())
        if found is None:
            raise UsageError(
                f"'{text}' is no resolution: give HEIGHTxWIDTH in pixels, such as 192x320, or one "
                "number for a square"
            )
        height, width = found.groups()
        return cls(int(height), int(width or height))

    @property
    def pixels(self) -> int:
        """How many there are."""
        return self.height * self.width

    def strided(self, stride: int) -> Size:
        """What a convolution of that stride makes of it, under either padding of the networks."""
        return Size(math.ceil(self.height / stride), math.ceil(self.width / stride))

    def __str__(self) -> str:
        """As people read it: "192×320"."""
        return f"{self.height}×{self.width}"
