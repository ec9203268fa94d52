"""What goes into a model file: its type, its layout, and which numbers stand for a pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.parity.models.reading import LAYOUTS, Layout, PixelRange, Reading
from effnet_edge.pictures.image import MAX_CHANNELS, normalize
from effnet_edge.size import Size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from effnet_edge.pictures.image import Preprocessing

COLOURS = 3
_TYPES = ("uint8", "float16", "float32", "float64")
_CHANNEL_AXIS: dict[Layout, int] = {"nchw": 1, "nhwc": 3}
# (x / 255 - mean) / std and (x - mean) / std: deviations of pictures are about 0.2 to 1, their
# means at most 1, so that both ranges are far from these.
_LEAST_FACTOR_OF_UNITS = 0.2
_LARGEST_ZERO_OF_UNITS = 4.0


@dataclass(frozen=True)
class WayIn:
    """What a graph does with its input x before its first convolution: factor · (x - zero).

    Attributes:
        layout: of the input, as the first convolution finds it; None where none was found.
        channels: that the first convolution takes; None where none was found.
        rescaled: whether the graph adds or multiplies by anything.
        factor, zero: the means over the channels.
    """

    layout: Layout | None = None
    channels: int | None = None
    rescaled: bool = False
    factor: float = 1.0
    zero: float = 0.0

    @property
    def pixels(self) -> PixelRange:
        """What the input must be, so that this makes normalized pixels of it."""
        if not self.rescaled:
            return "normalized"
        small = abs(self.factor) < _LEAST_FACTOR_OF_UNITS
        return "0..255" if small or abs(self.zero) > _LARGEST_ZERO_OF_UNITS else "0..1"


@dataclass(frozen=True)
class Port:
    """An input as a file describes it.

    Attributes:
        name: of the input.
        dtype: NumPy's name of the element type, or the library's for what NumPy has not.
        shape: None for a dimension that is left open.
        layout: where the file names the axes.
        way: what the graph does with it first.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    layout: Layout | None = None
    way: WayIn = WayIn()


@dataclass(frozen=True)
class Entrance:
    """How pictures go into a model; None for sizes that it leaves open."""

    name: str
    dtype: str
    layout: Layout
    pixels: PixelRange
    channels: int | None
    height: int | None
    width: int | None

    @classmethod
    def of(cls, port: Port, model: str, reading: Reading) -> Entrance:
        """Decide what the description leaves open: by what a person says, then by the graph.

        Args:
            model: what errors call it.

        Raises:
            UsageError: the layout cannot be told, or contradicts what was said.
            BackendError: it takes no batch of pictures.
        """
        if port.dtype not in _TYPES or len(port.shape) != 4:
            raise BackendError(
                f"{model}: it has no input for a batch of pictures: {port.name!r} is {port.dtype} "
                f"{_told_shape(port.shape)}, and not (N, C, H, W) or (N, H, W, C) of "
                f"{', '.join(_TYPES)}"
            )
        layout = reading.layout or port.layout or _layout(port, model)
        axis = _CHANNEL_AXIS[layout]
        channels = port.shape[axis] or port.way.channels
        if channels is not None and channels > MAX_CHANNELS:
            raise UsageError(
                f"{model}: its input {port.name!r} {_told_shape(port.shape)} would have {channels} "
                f"channels as {layout.upper()}, and {MAX_CHANNELS} is the most: "
                "give another --layout"
            )
        height, width = (size for i, size in enumerate(port.shape) if i not in (0, axis))
        return cls(
            port.name, port.dtype, layout, _pixels(port, model, reading), channels, height, width
        )

    @property
    def size(self) -> Size | None:
        """Of the pictures; a square where one side is open, None where both are."""
        height, width = self.height or self.width, self.width or self.height
        return Size(height, width) if height and width else None

    def check(self, model: str, preprocessing: Preprocessing, told_by: str) -> None:
        """Raise UsageError where pictures that are prepared so do not fit.

        Args:
            told_by: what the preprocessing is from, and a verb.
        """
        size, channels = preprocessing.resolution, preprocessing.channels
        if self.channels not in (None, channels):
            raise UsageError(
                f"{model} takes {self.channels} channels and {told_by} {channels}: compare models "
                "of the same pictures"
            )
        own = Size(self.height or size.height, self.width or size.width)
        if own != size:
            raise UsageError(
                f"{model} takes {own} pixels (height×width) and {told_by} {size}: compare models "
                "of the same pictures"
            )

    def values(self, batch: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.generic]:
        """What the input takes for uint8 images (N, H, W, C), in its type and layout."""
        channels_first: NDArray[np.generic]
        if self.pixels == "normalized":
            channels_first = normalize(batch, preprocessing)
        else:
            channels_first = batch.transpose(0, 3, 1, 2)
            if self.pixels == "0..1":
                channels_first = channels_first.astype(np.float32) / np.float32(255)
        laid_out = channels_first.transpose(0, 2, 3, 1) if self.layout == "nhwc" else channels_first
        return np.ascontiguousarray(laid_out, dtype=self.dtype)

    def __str__(self) -> str:
        """In words, for people: "float32 NHWC (N, 224, 224, 3), pixels of 0..255"."""
        pixels = "normalized pixels" if self.pixels == "normalized" else f"pixels of {self.pixels}"
        sizes: list[int | None] = [self.height, self.width]
        sizes.insert(_CHANNEL_AXIS[self.layout] - 1, self.channels)
        return f"{self.dtype} {self.layout.upper()} {_told_shape((None, *sizes))}, {pixels}"


def _layout(port: Port, model: str) -> Layout:
    sizes = {layout: port.shape[axis] for layout, axis in _CHANNEL_AXIS.items()}
    possible = [layout for layout, size in sizes.items() if size and size <= MAX_CHANNELS]
    likely = [layout for layout in possible if sizes[layout] == COLOURS] or possible
    found = likely[0] if len(likely) == 1 else port.way.layout
    if found is None:
        raise UsageError(
            f"{model}: its input {port.name!r} {_told_shape(port.shape)} may be (N, C, H, W) or "
            f"(N, H, W, C): give --layout {' or '.join(LAYOUTS)}"
        )
    return found


def _pixels(port: Port, model: str, reading: Reading) -> PixelRange:
    if port.dtype == "uint8":
        if reading.pixels not in (None, "0..255"):
            raise UsageError(
                f"{model}: its input {port.name!r} is uint8, which pixels of 0..255 are: "
                f"leave --pixels {reading.pixels} out"
            )
        return "0..255"
    return reading.pixels or port.way.pixels


def _told_shape(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('N' if size is None else str(size) for size in shape)})"


def only_input(names: Sequence[str], model: str) -> None:
    """Raise BackendError where there is not just one input."""
    if not names:
        raise BackendError(f"{model}: it has no input for a batch of pictures")
    if len(names) > 1:
        told = ", ".join(map(repr, names))
        raise BackendError(
            f"{model}: it has {len(names)} inputs ({told}): only models of one input, a batch of "
            "pictures, are compared"
        )


class Rescaling:
    """Follows the elementwise steps behind an input, as factor · x + offset a channel."""

    def __init__(self) -> None:
        self._factor: NDArray[np.float64] = np.ones(1)
        self._offset: NDArray[np.float64] = np.zeros(1)
        self.rescaled = False

    def step(self, operation: str, constant: NDArray[np.generic], *, constant_first: bool) -> bool:
        """Follow x ∘ constant, or constant ∘ x; False for an operation that is none of the four."""
        value = np.asarray(constant, np.float64).reshape(-1)
        if value.size > MAX_CHANNELS:  # not one a channel
            return False
        if operation == "Add":
            self._offset = self._offset + value
        elif operation == "Sub":
            sign = -1.0 if constant_first else 1.0
            self._factor, self._offset = sign * self._factor, sign * (self._offset - value)
        elif operation == "Mul":
            self._factor, self._offset = self._factor * value, self._offset * value
        elif operation == "Div" and not constant_first:
            self._factor, self._offset = self._factor / value, self._offset / value
        else:
            return False
        self.rescaled = True
        return True

    def way(self, layout: Layout | None = None, channels: int | None = None) -> WayIn:
        """What has been followed, up to a convolution if its layout is given."""
        factor = float(np.mean(self._factor))
        zero = -float(np.mean(self._offset)) / factor if factor else math.nan
        return WayIn(layout, channels, self.rescaled, factor, zero)
