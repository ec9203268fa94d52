"""What each tensor's quantization costs a variant or an INT8 bundle."""

from __future__ import annotations

import re
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from effnet_calibration.errors import CalibrationWarning
from effnet_calibration.image_sets import DEFAULT_IMAGES
from effnet_calibration.schemes import get_scheme
from effnet_calibration.sensitivity import sensitivity
from effnet_calibration.table import CalibrationTable
from effnet_edge.bundle import Bundle
from effnet_edge.errors import UsageError
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.source import load_source
from effnet_edge.model.variants import VARIANTS
from effnet_edge.parity.measures.output_measures import OUTPUT_MEASURES
from effnet_edge.pictures.image import normalize
from effnet_edge.pictures.reading import read_batches
from effnet_edge.progress import Progress, no_progress
from effnet_edge.targets import DEFAULT_TARGET
from effnet_export.calibration import (
    calibrated,
    is_table,
    pictures_to_calibrate_on,
)
from effnet_export.origin import load_source_of
from effnet_export.targets import target_for

if TYPE_CHECKING:
    from effnet_calibration.sensitivity import LayerCost
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.model.request import NetworkRequest
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Pictures
    from effnet_edge.progress import Progress

BATCH = 8
# How the sets of `effnet_edge.pictures` tell their folder or file, whatever part of it they are.
_NAMED = re.compile(r"(?:.* in )?(.+?)(?: \(seed \d+\)| but for \d+ held out)*")


@dataclass(frozen=True)
class SensitivityRequest:
    """What to measure, and on which pictures.

    Attributes:
        model: an INT8 bundle, whose own table is measured, or a variant's name, which is
            calibrated first.
        images: a folder or CSV to measure on; the calibration pictures or, where there are none,
            crops of the embedded photos if None.
        limit: measure on so many pictures.
        network: the variant's; of a bundle only the weights count, its checkpoint if that has
            moved.
        calibration, calibration_size, target: for a variant, as in `ExportRequest`.
    """

    model: str
    network: NetworkRequest
    images: Path | None = None
    limit: int = 32
    calibration: Path | None = None
    calibration_size: int = DEFAULT_IMAGES
    target: str = DEFAULT_TARGET


@dataclass(frozen=True)
class SensitivityResult:
    """What was found.

    Attributes:
        measure: what the costs are, and in which unit.
        costs: the highest first.
        kept: layers that the table leaves in 16 bit, which cost nothing.
        images, image_source: how many pictures it was measured on, and which.
        on_calibration_pictures: whether they are, or may be, among those that the ranges were
            chosen on: the costs are then lower than on others.
        seconds: what the measuring took, without calibration.
    """

    variant: str
    scheme: str
    measure: str
    costs: list[LayerCost]
    kept: tuple[str, ...]
    images: int
    image_source: str
    on_calibration_pictures: bool
    seconds: float


def measure_sensitivity(
    request: SensitivityRequest, on_progress: Progress = no_progress
) -> SensitivityResult:
    """Measure the cost of quantizing each tensor alone.

    Warns with CalibrationWarning where it measures on the pictures of the calibration.

    Raises:
        UsageError: the request cannot be carried out as given.
        CalibrationError, CheckpointError, BundleError: as their texts say.
    """
    subject = _subject(request, on_progress)
    quantization = subject.table.quantization(subject.scheme)
    pictures = _pictures(request, subject.preprocessing.channels)
    calibrated_on = subject.table.images.source
    same_pictures = named_place(pictures.source) == named_place(calibrated_on)
    if same_pictures:
        warnings.warn(
            f"the costs are measured on the pictures of the calibration ({pictures.source}), for "
            "which the ranges were chosen: they are too low; give others with --images",
            CalibrationWarning,
            stacklevel=2,
        )
    started = time.perf_counter()
    batches = [
        torch.from_numpy(normalize(pixels, subject.preprocessing))
        for pixels, _ in read_batches(pictures, subject.preprocessing, BATCH, [])
    ]
    if subject.network.output_kind == "regression" and sum(map(len, batches)) < 2:
        raise UsageError(
            "--limit 1: the spread of values takes 2 pictures or more: give a larger one"
        )
    costs = sensitivity(subject.network, quantization, batches, on_progress)
    return SensitivityResult(
        subject.network.variant.name,
        subject.scheme,
        OUTPUT_MEASURES[subject.network.output_kind].divergence_name,
        costs,
        quantization.kept,
        sum(len(batch) for batch in batches),
        pictures.source,
        same_pictures,
        time.perf_counter() - started,
    )


def named_place(source: str) -> str:
    """The folder or file in what a set of pictures says of itself, absolute; else its last words.

    "60 of the 200 pictures in photos (seed 0)" and "photos but for 16 held out" are one place.
    """
    told = _NAMED.fullmatch(source)
    return str(Path(told.group(1) if told else source).resolve())


@dataclass(frozen=True)
class _Subject:
    network: EfficientNet
    preprocessing: Preprocessing
    table: CalibrationTable
    scheme: str


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
    bundle = Bundle.load(request.model).of_one_graph()
    calibration = bundle.manifest.calibration
    if calibration is None or bundle.manifest.precision != "int8":
        raise UsageError(f"{bundle.path} is no INT8 bundle: nothing in it is quantized")
    if get_scheme(calibration.scheme).rounds_outputs:
        raise UsageError(
            f"{bundle.path} rounds more than the inputs of layers: measure a bundle of another "
            "target, or `effnet-edge parity --layers`"
        )
    source = load_source_of(bundle.manifest, request.network.weights)
    folded = fold_batch_norm(source.network)
    table = CalibrationTable.of_bundle(bundle)
    table.check_model(folded)
    return _Subject(folded, source.preprocessing, table, calibration.scheme)


def _calibrated(request: SensitivityRequest, on_progress: Progress) -> _Subject:
    source = load_source(request.network, on_progress)
    folded, target = fold_batch_norm(source.network), target_for(request.target)
    named: Path | Pictures
    if request.calibration is not None and is_table(request.calibration):
        named = request.calibration
    else:
        named = pictures_to_calibrate_on(
            request.calibration, request.calibration_size, None, source.preprocessing.channels
        )
    found = calibrated(
        folded, named, source.preprocessing, target.scheme, target.settings, on_progress
    )
    return _Subject(folded, source.preprocessing, found.table, target.scheme.name)


def _pictures(request: SensitivityRequest, channels: int) -> Pictures:
    path = request.images
    if path is None and request.calibration is not None and not is_table(request.calibration):
        path = request.calibration
    return pictures_to_calibrate_on(path, request.limit, None, channels, "--images")
