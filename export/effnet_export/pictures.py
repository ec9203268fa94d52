"""Which pictures an export is calibrated on, typed by and compared on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from effnet_edge.errors import UsageError
from effnet_edge.labels import ClassIndices
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.pictures.sets import ImageSet
from effnet_export.calibration import all_pictures, pictures_to_calibrate_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effnet_edge.labels import Label
    from effnet_export.request import ExportRequest

GATE_PICTURES = 16
MOST_HELD_OUT = 200
ENOUGH_TO_HOLD_OUT = 3 * GATE_PICTURES
"""Of fewer pictures, all are needed to calibrate on."""

CalibratedOn: TypeAlias = Path | ImageSet | EmbeddedPhotos
"""A table, or pictures."""


class ExportPictures:
    """The pictures of one export.

    Args:
        labels: of the network's classes, to label the pictures with.
        channels: of the network's input.
        held_out_share: of one's own pictures, 0..1; nothing is calibrated on so many of them, up to
            `MOST_HELD_OUT`, but on as many as the gates need in any case.

    Raises:
        UsageError: there are none where the request says, or a budget cannot be measured on them.
    """

    def __init__(
        self,
        request: ExportRequest,
        labels: Sequence[Label] | None,
        channels: int,
        held_out_share: float = 0.0,
    ) -> None:
        self._size = request.calibration_size
        self._channels = channels
        self._own = self._held_out = None
        if request.calibration is not None and request.table is None:
            one_class = request.network.output_kind == "single-label"
            classes = ClassIndices(labels or ()) if one_class else None
            self._own = all_pictures(request.calibration, classes, channels)
            if self._own.different >= ENOUGH_TO_HOLD_OUT:
                wanted = min(round(held_out_share * self._own.different), MOST_HELD_OUT)
                self._held_out, self._own = self._own.hold_out(max(wanted, GATE_PICTURES))
        self.calibrated_on: CalibratedOn | None = None
        if request.calibrates:
            self.calibrated_on = request.table or self._to_calibrate_on()
        if request.max_drop is not None:
            check_labelled(self.calibrated_on)

    def for_typing(self) -> ImageSet | EmbeddedPhotos:
        """Those of the calibration, whatever the precision; a table has none."""
        if self._own is not None:
            return self._own.subset(self._size)
        return EmbeddedPhotos(self._size, channels=self._channels)

    def for_gates(self) -> ImageSet | EmbeddedPhotos:
        """The user's own, which nothing is calibrated on; embedded photos where there are too few.

        Where no embedded photo has the channels, they are the user's own however few these are.
        """
        if self._held_out is not None:
            return self._held_out.subset(GATE_PICTURES)
        if self._channels not in {1, 3} and self._own is not None:
            return self._own.subset(GATE_PICTURES)
        return EmbeddedPhotos(GATE_PICTURES, channels=self._channels)

    def held_out(self) -> ImageSet | EmbeddedPhotos:
        """All that nothing is calibrated on, the pictures of the gates among them."""
        return self.for_gates() if self._held_out is None else self._held_out

    def _to_calibrate_on(self) -> ImageSet | EmbeddedPhotos:
        if self._own is not None:
            return self._own.subset(self._size)
        return pictures_to_calibrate_on(None, self._size, None, self._channels)


def check_labelled(pictures: CalibratedOn | None) -> None:
    """Raise UsageError for pictures of which the top-1 drop cannot be told; a table has none."""
    if isinstance(pictures, (ImageSet, EmbeddedPhotos)) and pictures.labels is None:
        raise UsageError(
            f"--max-drop needs the class of every picture, which {pictures.source} does not "
            "tell: name the folders by class or WordNet id, give a CSV that has it, or use --max-kl"
        )
