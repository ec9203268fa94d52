"""What a person says of a model file that the file itself does not tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from effnet_edge.errors import BackendError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

Layout = Literal["nchw", "nhwc"]
PixelRange = Literal["normalized", "0..1", "0..255"]
"""(x / 255 - mean) / std, x / 255 or x, for a pixel x of 0 to 255."""

SaidEnding = Literal["logits", "softmax", "log-softmax", "sigmoid"]
"""What the numbers of a model went through last; "logits" for nothing."""

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
PIXEL_RANGES: tuple[PixelRange, ...] = get_args(PixelRange)
SAID_ENDINGS: tuple[SaidEnding, ...] = get_args(SaidEnding)


@dataclass(frozen=True)
class Reading:
    """How to read one file; None for what the file is to tell.

    Attributes:
        layout: of its input.
        pixels: the numbers that its input takes for them.
        output: the one of its outputs that is compared.
        outputs: the same where it was said for several models: the one that this model has.
        ending: what its numbers went through last.
    """

    layout: Layout | None = None
    pixels: PixelRange | None = None
    output: str | None = None
    outputs: tuple[str, ...] = ()
    ending: SaidEnding | None = None

    def choose_output(self, names: Sequence[str], model: str) -> int:
        """The index of the output that is compared.

        Raises:
            UsageError: it has several and none was chosen, or not that one.
            BackendError: it has none.
        """
        if not names:
            raise BackendError(f"{model}: it has no output")
        told = ", ".join(map(repr, names))
        if self.output is not None and self.output not in names:
            raise UsageError(
                f"--output {self.output}: {model} has no output of this name, but {told}"
            )
        chosen = [self.output] if self.output else [name for name in self.outputs if name in names]
        if len(chosen) == 1:
            return names.index(chosen[0])
        if len(names) == 1:
            return 0
        raise UsageError(
            f"{model} has {len(names)} outputs ({told}): give --output NAME, or --output "
            "MODEL=NAME for each model that has several"
        )


AS_TOLD = Reading()
"""Nothing is said: the file is to tell everything."""
