"""Values of options that several commands read: batches, sizes, channels, compute capabilities."""

from __future__ import annotations

import click

from effnet_edge.errors import UsageError
from effnet_edge.size import Size

SMALLEST_SIDE, LARGEST_SIDE = 32, 2048
# A GPU's grid has no more in its last dimension.
LARGEST_BATCH = 65535


class BatchType(click.ParamType[tuple[int, int, int]]):
    """`N` or `MIN:OPT:MAX`, as (min, opt, max)."""

    name = "N|MIN:OPT:MAX"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, int, int]:
        """Parse and check the order and the largest."""
        if isinstance(value, tuple):
            return value
        try:
            sizes = [int(part) for part in str(value).split(":")]
        except ValueError:
            sizes = []
        if len(sizes) == 1:
            sizes *= 3
        if len(sizes) != 3 or not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
            self.fail(
                f"'{value}' is neither a number of images nor MIN:OPT:MAX with "
                "1 ≤ MIN ≤ OPT ≤ MAX, such as 1:8:32",
                param,
                ctx,
            )
        if sizes[2] > LARGEST_BATCH:
            self.fail(f"an engine takes at most {LARGEST_BATCH} images, not {value}", param, ctx)
        return sizes[0], sizes[1], sizes[2]


class Resolution(click.ParamType[Size]):
    """`N` or `HEIGHTxWIDTH`, in pixels."""

    name = "N|HEIGHTxWIDTH"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Size:
        """Parse and check the range."""
        if isinstance(value, Size):
            return value
        try:
            size = Size.parse(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)
        if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in (size.height, size.width)):
            self.fail(
                f"{value} is not in the range of {SMALLEST_SIDE} to {LARGEST_SIDE} px a side",
                param,
                ctx,
            )
        return size


class ChannelValues(click.ParamType[tuple[float, ...]]):
    """Numbers separated by commas, one a channel."""

    name = "X,…"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[float, ...]:
        """Parse; how many there must be is for the network to say."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"'{value}' is not a number a channel, such as 0.45,0.41,0.39", param, ctx)


def capabilities(text: str | None) -> tuple[str, ...]:
    """The parts of "8.6,8.9".

    Raises:
        click.BadParameter: not a list of such numbers.
    """
    parts = tuple(each.strip() for each in text.split(",")) if text is not None else ()
    for each in parts:
        major, _, minor = each.partition(".")
        if not (major.isdigit() and minor.isdigit()):
            raise click.BadParameter(
                f"'{each}' is not a compute capability such as 8.6",
                param_hint="--compute-capability",
            )
    return parts
