"""The pictures or the table that a person names for INT8, and the table that comes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_calibration.calibrate import observe, read_pictures, tabulate
from effnet_calibration.table import CalibrationTable
from effnet_calibration.threads import same_threads
from effnet_edge.errors import UsageError
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.pictures.sets import ImageSet
from effnet_edge.pictures.shards import is_shard
from effnet_edge.progress import no_progress
from effnet_export.option_rules import TABLE_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from effnet_calibration.calibrate import Observed
    from effnet_calibration.schemes import QuantizationScheme
    from effnet_calibration.work import Settings
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Pictures
    from effnet_edge.progress import Progress


def is_table(path: Path) -> bool:
    """Whether the path names a calibration table rather than pictures."""
    return path.suffix == TABLE_SUFFIX


def named_pictures(
    path: Path | None, size: int, classes: Mapping[str, int] | None, channels: int = 3
) -> ImageSet | EmbeddedPhotos:
    """At most `size` pictures of a folder, archive or CSV file, or crops of the embedded photos.

    Args:
        classes: class index by name or WordNet id, to label the pictures with; None leaves them
            without labels.
        channels: of the network, which tell the files that are pictures.

    Raises:
        UsageError: what `ImageSet` refuses.
    """
    if path is None:
        return EmbeddedPhotos(size, channels=channels)
    return all_pictures(path, classes, channels).subset(size)


def all_pictures(path: Path, classes: Mapping[str, int] | None, channels: int) -> ImageSet:
    """Those of a folder, an archive or a CSV file; else as `named_pictures`."""
    if path.is_dir():
        return ImageSet.from_folder(path, classes, channels)
    if is_shard(path):
        return ImageSet.from_shards([path], classes, channels)
    return ImageSet.from_csv(path, classes, labelled=None if classes is not None else False)


def pictures_to_calibrate_on(
    path: Path | None,
    size: int,
    classes: Mapping[str, int] | None,
    channels: int,
    option: str = "--calibration",
) -> ImageSet | EmbeddedPhotos:
    """`named_pictures`, where the embedded photos have the channels.

    Args:
        option: by which a person names pictures.

    Raises:
        UsageError: they do not, or what `ImageSet` refuses.
    """
    if path is None and channels not in {1, 3}:
        raise UsageError(
            f"the network takes {channels} channels, which the embedded photos do not have: "
            f"give your own pictures with {option} DIR"
        )
    return named_pictures(path, size, classes, channels)


@dataclass(frozen=True)
class Calibrated:
    """A table, and what it was made from; None for one that was read from a file."""

    table: CalibrationTable
    observed: Observed | None = None


class SharedCalibration:
    """Tables of one network, all of them from one pass over the pictures; each is made once."""

    def __init__(self, observed: Observed) -> None:
        self.observed = observed
        self._tables: dict[tuple[QuantizationScheme, Settings], CalibrationTable] = {}

    def table(
        self, scheme: QuantizationScheme, settings: Settings, progress: Progress = no_progress
    ) -> CalibrationTable:
        """The table for one scheme."""
        key = scheme, settings
        if key not in self._tables:
            self._tables[key] = tabulate(self.observed, (scheme,), settings, progress)
        return self._tables[key]


def calibrated(
    folded: EfficientNet,
    named: Path | Pictures,
    preprocessing: Preprocessing,
    scheme: QuantizationScheme,
    settings: Settings,
    progress: Progress = no_progress,
    shared: SharedCalibration | None = None,
) -> Calibrated:
    """The table in a file, checked to be the network's, or one made on pictures.

    Args:
        scheme, settings: of one made on pictures. A network without SiLU has none to replace.
        shared: what was observed on these pictures already.

    Raises:
        CalibrationError: see `CalibrationTable.load`, `check_model` and `observe`.
    """
    if isinstance(named, Path):
        table = CalibrationTable.load(named)
        table.check_model(folded)
        table.check_normalization(preprocessing)
        return Calibrated(table)
    if folded.activation != "silu":
        settings = replace(settings, fitted_share=0.0)
    with same_threads():
        if shared is None:
            look = observe if scheme.rounds else read_pictures
            shared = SharedCalibration(look(folded, named, preprocessing, progress))
        table = shared.table(scheme, settings, progress)
    return Calibrated(table, shared.observed)
