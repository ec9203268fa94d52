"""Sees by a few answers whether a model ends in a softmax or a sigmoid that no graph shows.

Were such probabilities taken for logits, two different models would look alike: the softmax of
numbers within 0 and 1 is nearly the same for all classes, and their sigmoid is never below a half.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from effnet_edge.errors import BackendError, NotFiniteError, UsageError
from effnet_edge.parity.models.ending import ENDING_NAMES, ending_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.models.ending import Ending, WayOut
    from effnet_edge.parity.models.reading import SaidEnding
    from effnet_edge.pictures.image import Preprocessing

_PICTURES = 4
_MORE_PICTURES = 28
# So many logits of one model do not lie within 0 and 1 by chance, unless it always says yes.
_ENOUGH_NUMBERS = 40
_PATCHES = (1, 4, 16, 64)


class Ended(Protocol):
    """A model that is read as its way out says."""

    way_out: WayOut

    @property
    def name(self) -> str:
        """What a person calls it."""

    def answers(self, batch: NDArray[np.uint8]) -> NDArray[np.generic]:
        """What comes out for images (N, H, W, C), as it is."""


def settle_ending(
    model: Ended, preprocessing: Preprocessing, output: OutputKind, said: SaidEnding | None = None
) -> None:
    """Set what a model ends in where its graph does not show it: as said, else by its answers.

    Args:
        output: what the numbers mean as far as that is known; values and features have no ending.
        said: what a person says of it.

    Raises:
        UsageError: the graph shows another ending than what is said.
        ServerError, NotFiniteError: a server gives no answer, or one that is not finite.
    """
    shown = model.way_out.ending
    if shown is not None:
        if said not in (None, shown):
            raise UsageError(
                f"{model.name} ends in {ENDING_NAMES[shown]}, as its graph shows: leave --ending "
                f"{said} out"
            )
        return
    found: Ending | None = None
    if said is not None:
        found = None if said == "logits" else said
    elif output in ("single-label", "multi-label"):
        found = _seen_ending(model, preprocessing, output)
    if found is not None:
        model.way_out = model.way_out.ending_in(found)


def _seen_ending(model: Ended, preprocessing: Preprocessing, output: OutputKind) -> Ending | None:
    try:
        answers = model.answers(_pictures(preprocessing, 0, _PICTURES))
        if ending_of(answers, output) is not None and answers.size < _ENOUGH_NUMBERS:
            more = model.answers(_pictures(preprocessing, _PICTURES, _MORE_PICTURES))
            answers = np.concatenate([answers, more])
    except NotFiniteError:
        raise
    except BackendError:  # the comparison fails, too, and tells the picture or its file
        return None
    return ending_of(answers, output)


def _pictures(preprocessing: Preprocessing, first: int, count: int) -> NDArray[np.uint8]:
    """Noise in grains of several sizes, whose answers differ as those to photographs do."""
    size, channels = preprocessing.resolution, preprocessing.channels
    pictures = []
    for index in range(first, first + count):
        side = _PATCHES[index % len(_PATCHES)]
        grains = (-(-size.height // side), -(-size.width // side), channels)
        grain = np.random.default_rng(index).integers(0, 256, grains, np.uint8)
        whole = grain.repeat(side, axis=0).repeat(side, axis=1)
        pictures.append(whole[: size.height, : size.width])
    return np.stack(pictures)
