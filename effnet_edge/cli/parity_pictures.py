"""The pictures of `effnet-edge parity`: a folder, archives, a CSV file, or what is embedded."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import click

    from effnet_edge.labels import Label
    from effnet_edge.outputs import OutputKind
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Pictures
    from effnet_edge.pictures.sets import ImageSet

EMBEDDED_PICTURES = 64


class Models(Protocol):
    """What is known of the models that see the pictures; see `effnet_export.opening.Models`."""

    @property
    def preprocessing(self) -> Preprocessing: ...  # noqa: D102

    @property
    def output_kind(self) -> OutputKind: ...  # noqa: D102

    @property
    def labels(self) -> tuple[Label, ...]: ...  # noqa: D102

    @property
    def classes(self) -> dict[str, int]: ...  # noqa: D102

    @property
    def is_binary(self) -> bool: ...  # noqa: D102


def check_there(
    _context: click.Context, _option: click.Parameter, place: Path | None
) -> Path | None:
    """Refuse a folder or archive that is not there, before any model is opened."""
    from effnet_edge.pictures.sources import holds_several

    if place is not None and not (os.path.lexists(place) or holds_several(place)):
        raise UsageError(f"--images {place} does not exist")
    return place


def comparison_pictures(
    images: Path | None, labels: Path | None, limit: int | None, models: Models
) -> Pictures:
    """What --images, --labels and --limit say.

    Raises:
        UsageError: there are no such pictures, or labels that do not go with the models.
    """
    from effnet_edge.pictures.embedded import EmbeddedPhotos
    from effnet_edge.pictures.ground_truth import labelled

    channels = models.preprocessing.channels
    if labels is not None:
        _check_labels(labels, models, alone=images is None)
    if images is None and labels is None:
        return EmbeddedPhotos(limit or EMBEDDED_PICTURES, channels=channels)
    chosen: Pictures
    if images is None:
        assert labels is not None
        chosen = _listed(labels, models)
    elif labels is None:
        classes = models.classes if models.output_kind == "single-label" else None
        chosen = _found(images, classes, channels)
    else:
        chosen = labelled(_found(images, None, channels), labels, _classes(models))
    return chosen if limit is None else chosen.subset(limit)


def _check_labels(labels: Path, models: Models, *, alone: bool) -> None:
    is_regression = models.output_kind == "regression"
    if not (models.output_kind == "single-label" or models.is_binary or is_regression):
        raise UsageError(
            f"--labels {labels}: accuracy is measured for one class a picture, and the model is "
            f"{models.output_kind}: give --images"
        )
    if is_regression and not alone:
        raise UsageError(
            f"--labels {labels}: of a regression a CSV file has the pictures and the values: leave "
            "--images out"
        )


def _classes(models: Models) -> Mapping[str, int] | None:
    """Of a yes or no the labels are 0 and 1, whatever the yes is called."""
    return None if models.is_binary else models.classes


def _listed(labels: Path, models: Models) -> Pictures:
    from effnet_edge.pictures.sets import ImageSet
    from effnet_edge.pictures.valued import ValuedImages

    if models.output_kind == "regression":
        return ValuedImages.from_csv(labels, [label.name for label in models.labels])
    return ImageSet.from_csv(labels, _classes(models))


def _found(place: Path, classes: Mapping[str, int] | None, channels: int) -> ImageSet:
    from effnet_edge.pictures.sets import ImageSet
    from effnet_edge.pictures.shards import SHARD, is_shard
    from effnet_edge.pictures.sources import matching_paths

    if place.is_dir():
        return ImageSet.from_folder(place, classes, channels)
    shards = matching_paths(place)
    other = next((each for each in shards if not is_shard(each)), None)
    if other is not None or not shards:
        raise UsageError(
            f"--images {other or place}: give a folder of pictures, or tar archives ({SHARD})"
        )
    return ImageSet.from_shards(shards, classes, channels)
