"""Paddings that a code base fixes when it builds a network, held against those at another size.

TensorFlow's SAME follows the picture. Where a network is built for one size and given another, or
is built without one, it pads as the size would that it was built for: it is not SAME then.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.errors import CheckpointError, CheckpointWarning
from effnet_edge.model.paddings import strided_convolutions
from effnet_edge.size import Size

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from effnet_edge.model.paddings import Pads
    from effnet_edge.model.variants import Padding, Variant

_PERIOD = 32
"""Pixels: of sizes so far apart SAME pads all strided convolutions alike."""


@dataclass(frozen=True)
class FixedPads:
    """What strided convolutions are padded with, whatever the size of the picture.

    Attributes:
        whose: the file, and what in it pads so.
        pads: by our names of the convolutions.
        unless: what would make it untrue, with a place for the `{size}`, where it is only what the
            code base does by itself; empty where the file says so.
    """

    whose: str
    pads: Mapping[str, Pads]
    unless: str = ""

    def check(self, variant: Variant, size: Size, padding: Padding, *, is_asked_for: bool) -> None:
        """Hold them against what a network of that size and padding has.

        Args:
            is_asked_for: whether a person said the padding, which outweighs what a file tells.

        Raises:
            CheckpointError: they differ, and nobody asked for that.
        """
        if self.unless and padding == "symmetric":
            return
        if all(self.fits(variant, size, padding, axis) for axis in (0, 1)):
            return
        if is_asked_for or self.unless:
            told = self._assumed(variant, size) if self.unless else self._overruled(size, padding)
            warnings.warn(told, CheckpointWarning, stacklevel=2)
            return
        raise CheckpointError(
            f"{self.whose} pads otherwise than SAME does at {size}: "
            f"{self._way_out(variant, size)}--padding same for SAME at that size, which is another "
            "network"
        )

    def fits(self, variant: Variant, size: Size, padding: Padding, axis: int) -> bool:
        """Whether a network of that size has them along the axis, 0 for the height."""
        return all(
            convolution.pads(padding)[axis] == self.pads[convolution.name][axis]
            for convolution in strided_convolutions(variant, size)
            if convolution.name in self.pads
        )

    def nearest(self, variant: Variant, size: Size) -> Size | None:
        """The size at which SAME has them that is nearest to this one."""
        sides = [
            next(
                (each for each in _around(side) if self.fits(variant, Size.of(each), "same", at)), 0
            )
            for at, side in enumerate((size.height, size.width))
        ]
        return Size(*sides) if all(sides) else None

    def _overruled(self, size: Size, padding: Padding) -> str:
        return (
            f"{self.whose} pads otherwise than --padding {padding} does at {size}, and was "
            "overruled: this is another network"
        )

    def _assumed(self, variant: Variant, size: Size) -> str:
        return (
            f"{self.whose}, unless {self.unless.format(size=size)}, pads otherwise than SAME does "
            f"at {size}, as it is exported: {self._way_out(variant, size)}hold it against the "
            "original with --against"
        )

    def _way_out(self, variant: Variant, size: Size) -> str:
        found = self.nearest(variant, size)
        if found is None:
            return "give "
        side = f"{found.height}" if found.height == found.width else f"{found.height}x{found.width}"
        return f"give --resolution {side}, the nearest at which they are alike, or "


def pads_at_own_size(variant: Variant) -> dict[str, Pads]:
    """SAME at the size that the variant was published for."""
    size = Size.of(variant.resolution)
    return {each.name: each.pads("same") for each in strided_convolutions(variant, size)}


def pads_of_transformers(variant: Variant, centred_blocks: Collection[int]) -> dict[str, Pads]:
    """`EfficientNetEmbeddings` and `correct_pad` of transformers' modeling_efficientnet.py.

    Args:
        centred_blocks: those whose strided convolution has the same padding on both sides; all
            others have a pixel less above and on the left.
    """
    pads = {}
    for each in strided_convolutions(variant, Size.of(variant.resolution)):
        after = each.kernel // 2
        before = after if each.block in centred_blocks else after - 1
        pads[each.name] = ((before, after), (before, after))
    return pads


def pads_of_keras(
    name: str, variant: Variant, stated: Mapping[str, Pads], theirs: Mapping[str, str]
) -> dict[str, Pads]:
    """From those that Keras's layers of padding state.

    Args:
        name: of the checkpoint, for errors.
        stated: by the names of the layers.
        theirs: Keras's names of our tensors.

    Raises:
        CheckpointError: another layer pads than one before a strided convolution.
    """
    ours = {
        f"{theirs[f'{each.name}.weight'].removesuffix('.weight')}_pad": each.name
        for each in strided_convolutions(variant, Size.of(variant.resolution))
    }
    for layer, pads in stated.items():
        if layer not in ours and pads != ((0, 0), (0, 0)):
            raise CheckpointError(
                f"{name}: its layer {layer} pads by {pads}: no EfficientNet here computes so"
            )
    return {ours[layer]: pads for layer, pads in stated.items() if layer in ours}


def _around(side: int) -> list[int]:
    """Sides from the nearest to the farthest, within a period."""
    sides = range(max(1, side - _PERIOD), side + _PERIOD + 1)
    return sorted(sides, key=lambda each: abs(each - side))
