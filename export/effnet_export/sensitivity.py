"""What each tensor's quantization costs a variant or an INT8 bundle."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from effnet_calibration.calibrate import no_progress
from effnet_calibration.image_sets import DEFAULT_IMAGES
from effnet_calibration.sensitivity import sensitivity
from effnet_calibration.table import CalibrationTable
from effnet_edge.bundle import Bundle
from effnet_edge.errors import UsageError
from effnet_edge.image import normalize
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.variants import IMAGENET_CLASSES, VARIANTS
from effnet_export.calibration import calibration_table, is_table, named_pictures
from effnet_export.labels import class_indices, default_labels
from effnet_export.network import load_source, load_source_of
from effnet_export.targets import TARGETS

if TYPE_CHECKING:
    from effnet_calibration.calibrate import Progress
    from effnet_calibration.image_sets import Pictures
    from effnet_calibration.sensitivity import TensorCost
    from effnet_edge.image import Preprocessing
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.model.variants import Padding

BATCH = 8


@dataclass(frozen=True)
class SensitivityRequest:
    """What to measure, and on which pictures.

    Attributes:
        model: an INT8 bundle, whose own table is measured, or a variant's name, which is
            calibrated first.
        images: a folder or CSV to measure on; the calibration pictures or, where there are none,
            crops of the embedded photos if None.
        limit: measure on so many pictures.
        calibration, calibration_size, target, num_classes, resolution, padding: for a variant, as
            in `ExportRequest`.
        weights: for a variant as there; for a bundle its checkpoint, if that has moved.
    """

    model: str
    images: Path | None = None
    limit: int = 32
    calibration: Path | None = None
    calibration_size: int = DEFAULT_IMAGES
    target: str = "openvino"
    weights: str | None = None
    num_classes: int = IMAGENET_CLASSES
    resolution: int | None = None
    padding: Padding = "same"


@dataclass(frozen=True)
class SensitivityResult:
    """What was found.

    Attributes:
        costs: dearest first.
        kept: layers that the table leaves in 16 bit, which cost nothing.
        images, image_source: how many pictures it was measured on, and which.
        seconds: what the measuring took, without calibration.
    """

    variant: str
    scheme: str
    costs: list[TensorCost]
    kept: tuple[str, ...]
    images: int
    image_source: str
    seconds: float


def measure_sensitivity(
    request: SensitivityRequest, on_progress: Progress = no_progress
) -> SensitivityResult:
    """Measure the cost of quantizing each tensor alone.

    Raises:
        UsageError: the request cannot be carried out as given.
        CalibrationError, CheckpointError, BundleError: as their texts say.
    """
    subject = _subject(request, on_progress)
    quantization = subject.table.quantization(subject.scheme)
    pictures = _pictures(request, subject.classes)
    started = time.perf_counter()
    batches = [
        torch.from_numpy(normalize(pixels, subject.preprocessing))
        for pixels, _ in pictures.batches(subject.preprocessing, BATCH, [])
    ]
    if not batches:
        raise UsageError(f"none of the pictures in {pictures.source} can be read")
    costs = sensitivity(subject.network, quantization, batches, on_progress)
    return SensitivityResult(
        subject.network.variant.name,
        subject.scheme,
        costs,
        quantization.kept,
        sum(len(batch) for batch in batches),
        pictures.source,
        time.perf_counter() - started,
    )


@dataclass(frozen=True)
class _Subject:
    network: EfficientNet
    preprocessing: Preprocessing
    table: CalibrationTable
    scheme: str
    classes: dict[str, int]


def _subject(request: SensitivityRequest, on_progress: Progress) -> _Subject:
    if request.model.lower() in VARIANTS and not Path(request.model).exists():
        return _calibrated(request, on_progress)
    if not Path(request.model).exists():
        raise UsageError(
            f"'{request.model}' is neither a variant ({', '.join(VARIANTS)}) "
            "nor a bundle's directory"
        )
    return _bundled(request)


def _bundled(request: SensitivityRequest) -> _Subject:
    bundle = Bundle.load(request.model)
    calibration = bundle.manifest.calibration
    if calibration is None:
        raise UsageError(f"{bundle.path} is no INT8 bundle: nothing in it is quantized")
    if request.calibration is not None:
        raise UsageError(
            "--calibration goes with a variant: a bundle has a table of its own "
            "(--images names pictures to measure on)"
        )
    source = load_source_of(bundle.manifest, request.weights)
    folded = fold_batch_norm(source.network)
    table = CalibrationTable.load(bundle.path / calibration.table)
    table.check_model(folded)
    classes = class_indices(bundle.labels or ())
    return _Subject(folded, source.preprocessing, table, calibration.scheme, classes)


def _calibrated(request: SensitivityRequest, on_progress: Progress) -> _Subject:
    source = load_source(
        request.model,
        weights=request.weights,
        num_classes=request.num_classes,
        resolution=request.resolution,
        padding=request.padding,
        on_progress=on_progress,
    )
    folded, scheme = fold_batch_norm(source.network), TARGETS[request.target].scheme
    classes = class_indices(default_labels(request.num_classes) or ())
    named: Path | Pictures
    if request.calibration is not None and is_table(request.calibration):
        named = request.calibration
    else:
        named = named_pictures(request.calibration, request.calibration_size, classes)
    table = calibration_table(folded, named, source.preprocessing, scheme, on_progress)
    return _Subject(folded, source.preprocessing, table, scheme.name, classes)


def _pictures(request: SensitivityRequest, classes: dict[str, int]) -> Pictures:
    path = request.images
    if path is None and request.calibration is not None and not is_table(request.calibration):
        path = request.calibration
    return named_pictures(path, request.limit, classes)
