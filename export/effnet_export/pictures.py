"""Which pictures an export is calibrated on, typed by and compared on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from effnet_edge.errors import UsageError
from effnet_edge.labels import class_indices
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.pictures.sets import ImageSet
from effnet_export.calibration import named_pictures, pictures_to_calibrate_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effnet_edge.labels import Label
    from effnet_export.request import ExportRequest

GATE_PICTURES = 16

CalibratedOn: TypeAlias = Path | ImageSet | EmbeddedPhotos
"""A table, or pictures."""


class ExportPictures:
    """The pictures of one export.

    Args:
        labels: of the network's classes, to label the pictures with.
        channels: of the network's input.

    Raises:
        UsageError: there are none where the request says, or a budget cannot be measured on them.
    """

    def __init__(
        self, request: ExportRequest, labels: Sequence[Label] | None, channels: int
    ) -> None:
        self._request = request
        self._channels = channels
        self.calibrated_on = self._named(labels) if request.chosen_precision == "int8" else None
        if request.max_drop is not None:
            _check_labelled(self.calibrated_on)

    def for_typing(self) -> ImageSet | EmbeddedPhotos:
        """Those of the calibration, whatever the precision; a table has none."""
        if isinstance(self.calibrated_on, (ImageSet, EmbeddedPhotos)):
            return self.calibrated_on
        request = self._request
        path = None if request.table is not None else request.calibration
        return named_pictures(path, request.calibration_size, None, self._channels)

    def for_gates(self) -> ImageSet | EmbeddedPhotos:
        """Embedded photos, or the user's own where only these have the channels."""
        if self._channels not in {1, 3}:
            pictures = self.for_typing()
            if isinstance(pictures, ImageSet):
                return pictures.subset(GATE_PICTURES)
        return EmbeddedPhotos(GATE_PICTURES, channels=self._channels)

    def _named(self, labels: Sequence[Label] | None) -> CalibratedOn:
        """What to calibrate on: a table, or pictures, labelled where they can be."""
        request = self._request
        if request.table is not None:
            return request.table
        one_class = request.network.output_kind == "single-label"
        classes = class_indices(labels or ()) if one_class else None
        return pictures_to_calibrate_on(
            request.calibration, request.calibration_size, classes, self._channels
        )


def _check_labelled(pictures: CalibratedOn | None) -> None:
    if isinstance(pictures, (ImageSet, EmbeddedPhotos)) and pictures.labels is None:
        raise UsageError(
            f"--max-drop needs the class of every picture, which {pictures.source} does not "
            "tell: name the folders by class or WordNet id, give a CSV, or use --max-kl"
        )
