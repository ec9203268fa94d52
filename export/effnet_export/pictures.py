"""Which pictures an export is calibrated on, typed by and compared on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from effnet_edge.errors import UsageError
from effnet_edge.labels import class_indices
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.pictures.sets import ImageSet
from effnet_export.calibration import is_table, named_pictures, pictures_to_calibrate_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effnet_edge.labels import Label
    from effnet_export.pipeline import ExportRequest

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
        self,
        request: ExportRequest,
        precision: str,
        labels: Sequence[Label] | None,
        channels: int,
    ) -> None:
        self._request = request
        self._channels = channels
        self.calibrated_on = self._named(labels) if precision == "int8" else None
        self._check_budget()

    def for_typing(self) -> ImageSet | EmbeddedPhotos:
        """Those of the calibration, whatever the precision; a table has none."""
        if isinstance(self.calibrated_on, (ImageSet, EmbeddedPhotos)):
            return self.calibrated_on
        request = self._request
        path = None if self._names_table() else request.calibration
        return named_pictures(path, request.calibration_size, None, self._channels)

    def for_gates(self) -> ImageSet | EmbeddedPhotos:
        """Embedded photos, or the user's own where only these have the channels."""
        if self._channels not in {1, 3}:
            pictures = self.for_typing()
            if isinstance(pictures, ImageSet):
                return pictures.subset(GATE_PICTURES)
        return EmbeddedPhotos(GATE_PICTURES, channels=self._channels)

    def _names_table(self) -> bool:
        path = self._request.calibration
        return path is not None and is_table(path)

    def _named(self, labels: Sequence[Label] | None) -> CalibratedOn:
        """What to calibrate on: a table, or pictures, labelled where they can be."""
        request = self._request
        if request.calibration is not None and is_table(request.calibration):
            return request.calibration
        classes = class_indices(labels or ()) if request.output_kind == "single-label" else None
        return pictures_to_calibrate_on(
            request.calibration, request.calibration_size, classes, self._channels
        )

    def _check_budget(self) -> None:
        named, request = self.calibrated_on, self._request
        if request.budget is None:
            return
        option = "--max-drop" if request.max_drop is not None else "--max-kl"
        if named is None:
            raise UsageError(f"{option} goes with --int8: nothing else is quantized")
        if request.output_kind == "features":
            raise UsageError(
                f"{option} goes with classes, and --features leaves none: leave it out"
            )
        if request.max_drop is not None and request.output_kind == "multi-label":
            raise UsageError("--max-drop goes with one class a picture: use --max-kl")
        if isinstance(named, Path):
            raise UsageError(
                f"{option} needs pictures to measure on: give --calibration DIR or CSV, "
                f"or leave {option} out to use {named} as it is"
            )
        if request.max_drop is not None and named.labels is None:
            raise UsageError(
                f"--max-drop needs the class of every picture, which {named.source} does not "
                "tell: name the folders by class or WordNet id, give a CSV, or use --max-kl"
            )
