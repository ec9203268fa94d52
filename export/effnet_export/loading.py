"""What exports of one network start from, which several of them may share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.source import Source, load_source
from effnet_edge.progress import Progress, no_progress
from effnet_export.origin import load_source_of
from effnet_export.pictures import ExportPictures

if TYPE_CHECKING:
    from effnet_edge.bundle import Bundle
    from effnet_edge.labels import Label
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.progress import Progress
    from effnet_export.calibration import SharedCalibration
    from effnet_export.request import ExportRequest


@dataclass(frozen=True)
class Loaded:
    """A network, its labels and the pictures that its exports need.

    Attributes:
        folded: without batch norms.
        calibration: what was read of the pictures already; None to read them when they are needed.
    """

    source: Source
    folded: EfficientNet
    labels: list[Label] | None
    pictures: ExportPictures
    calibration: SharedCalibration | None = None


def load(
    request: ExportRequest,
    on_progress: Progress = no_progress,
    held_out_share: float = 0.0,
    bundle: Bundle | None = None,
) -> Loaded:
    """Load the network of a request; raises as `export_bundle` does.

    Args:
        held_out_share: as of `ExportPictures`.
        bundle: whose network, pixels and labels are wanted; the request tells its checkpoint.

    Raises:
        UsageError: the checkpoint is not there, or is another one than the bundle's.
    """
    if bundle is None:
        source = load_source(request.network, on_progress)
        labels = request.read_labels(source.network.output_size)
    else:
        source = load_source_of(bundle.manifest, request.network.weights)
        labels = None if bundle.labels is None else list(bundle.labels)
    pictures = ExportPictures(request, labels, source.preprocessing.channels, held_out_share)
    return Loaded(source, fold_batch_norm(source.network), labels, pictures)
