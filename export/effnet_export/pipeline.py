"""The chain from PyTorch to a bundle, with the parity gate after every arrow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_calibration.calibrate import calibrate, no_progress
from effnet_calibration.embedded import EmbeddedPhotos
from effnet_calibration.image_sets import DEFAULT_IMAGES
from effnet_calibration.quantized import apply
from effnet_calibration.table import CalibrationTable
from effnet_edge import __version__
from effnet_edge.bundle import (
    BatchRange,
    Bundle,
    BundleWriter,
    Calibration,
    InputSpec,
    Label,
    Machine,
    Manifest,
    OutputSpec,
    StageParity,
    utc_now,
)
from effnet_edge.image_set import ImageSet
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.variants import IMAGENET_CLASSES
from effnet_edge.parity.classifiers import OnnxClassifier, TorchClassifier
from effnet_edge.runtime import EngineRunner
from effnet_export.gate import SIMULATED, ParityGate
from effnet_export.labels import default_labels, read_labels
from effnet_export.network import Source, load_source
from effnet_export.onnx_graph import INPUT_NAME, OUTPUT_NAME, export_onnx
from effnet_export.qdq import quantize_graph
from effnet_export.simplify import simplify
from effnet_export.targets import TARGETS, Target

if TYPE_CHECKING:
    import onnx

    from effnet_calibration.calibrate import Progress
    from effnet_edge.image import Preprocessing
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.model.variants import Padding
    from effnet_edge.parity.comparison import PictureSet
    from effnet_export.deployed import InputKind

GATE_PICTURES = 16
CALIBRATION_FILE = "calibration.json"
TOOLS = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "openvino", "numpy", "pillow")

OnStage = Callable[[str], None]


@dataclass(frozen=True)
class ExportRequest:
    """What to export. Everything but the variant and the target has a default a person would pick.

    Attributes:
        precision: "fp32", "fp16" or "int8"; the target's default if None.
        weights: a bundled name, a checkpoint file or "random"; the bundled ones if None.
        labels: a file of class names; ImageNet's for 1000 classes if None.
        resolution: input side in pixels; the variant's own if None.
        calibration: for INT8: a folder or CSV of pictures, or a table (`.json`) to reuse; crops of
            the embedded photos if None.
        calibration_size: at most so many pictures.
        output: the bundle's directory; `VARIANT-TARGET-PRECISION` here if None.
    """

    variant: str
    target: str
    precision: str | None = None
    weights: str | None = None
    num_classes: int = IMAGENET_CLASSES
    labels: Path | None = None
    resolution: int | None = None
    padding: Padding = "same"
    input_kind: InputKind = "uint8-nhwc"
    batch: BatchRange = field(default_factory=lambda: BatchRange(1, 1, 1))
    calibration: Path | None = None
    calibration_size: int = DEFAULT_IMAGES
    output: Path | None = None


@dataclass(frozen=True)
class ExportResult:
    """The finished bundle, and how long each stage took, in seconds."""

    bundle: Bundle
    seconds: dict[str, float]


def export_bundle(
    request: ExportRequest,
    on_stage: OnStage = lambda _: None,
    on_progress: Progress = no_progress,
) -> ExportResult:
    """Export, verify and write a bundle; nothing appears under its name unless all gates pass.

    Args:
        on_stage: called with the name of each stage as it begins.
        on_progress: called while the calibration runs.

    Raises:
        UsageError: the request cannot be carried out as given.
        GateError: a stage changed the model; the text names the stage and the first wrong node.
        CheckpointError, BundleError, BackendError: as their texts say.
    """
    target = TARGETS[request.target]
    precision = target.precision(request.precision)
    output = request.output or Path(f"{request.variant.lower()}-{target.name}-{precision}")
    labels = _labels(request)
    with BundleWriter(output) as writer:
        run = _ExportRun(request, target, precision, labels, on_stage, on_progress)
        draft = run.write_model(writer.staging)
        bundle = writer.commit(draft, labels)
    return ExportResult(bundle, run.seconds)


def _labels(request: ExportRequest) -> list[Label] | None:
    if request.labels is not None:
        return read_labels(request.labels, request.num_classes)
    return default_labels(request.num_classes)


class _ExportRun:
    """One export under way: its stages in order, their times and parity results."""

    def __init__(
        self,
        request: ExportRequest,
        target: Target,
        precision: str,
        labels: list[Label] | None,
        on_stage: OnStage,
        on_progress: Progress,
    ) -> None:
        self.seconds: dict[str, float] = {}
        self._request = request
        self._target = target
        self._precision = precision
        self._labels = labels
        self._on_stage = on_stage
        self._on_progress = on_progress
        self._table: CalibrationTable | None = None
        self._parity: list[StageParity] = []

    def write_model(self, staging: Path) -> Manifest:
        """Run all stages; the files in `staging` are then complete but for the manifest."""
        request = self._request
        with self._stage("load"):
            source = load_source(
                request.variant,
                weights=request.weights,
                num_classes=request.num_classes,
                resolution=request.resolution,
                padding=request.padding,
            )
            folded = fold_batch_norm(source.network)
        pictures = EmbeddedPhotos(GATE_PICTURES)
        reference = TorchClassifier(source.network, source.preprocessing)
        gate = ParityGate(reference, pictures, source.preprocessing)
        if self._precision == "int8":
            graph = self._make_int8_graph(folded, source, pictures, staging)
        else:
            graph = self._make_graph(folded, source, gate)
        with self._stage(self._target.name):
            model_file = self._target.write(graph, staging, self._precision, request.batch)
            draft = self._manifest(source, model_file, pictures.source)
            self._check_engine(draft, staging, gate)
        return self._manifest(source, model_file, pictures.source)

    def _make_graph(
        self, folded: EfficientNet, source: Source, gate: ParityGate
    ) -> onnx.ModelProto:
        preprocessing = source.preprocessing
        with self._stage("export"):
            exported = export_onnx(
                folded,
                preprocessing,
                input_kind=self._request.input_kind,
                batch=self._request.batch,
            )
            classifier = OnnxClassifier(exported, preprocessing, "exported ONNX")
            before = TorchClassifier(folded, preprocessing)
            self._parity.append(gate.check("export", classifier, before=before))
        with self._stage("simplify"):
            simplified = simplify(exported)
            candidate = OnnxClassifier(simplified, preprocessing, "simplified ONNX")
            self._parity.append(gate.check("simplify", candidate, before=classifier))
        return simplified

    def _make_int8_graph(
        self, folded: EfficientNet, source: Source, pictures: PictureSet, staging: Path
    ) -> onnx.ModelProto:
        """Calibrate, export the equalized network, write the pairs; each step has its own gate."""
        preprocessing = source.preprocessing
        with self._stage("calibrate"):
            self._table = self._calibration_table(folded, preprocessing)
            self._table.save(staging / CALIBRATION_FILE)
            quantized = apply(folded, self._table, self._target.scheme)
        changed = TorchClassifier(quantized.network, preprocessing, "equalized torch")
        graph = self._make_graph(
            quantized.network, source, ParityGate(changed, pictures, preprocessing)
        )
        with self._stage("quantize"):
            graph = quantize_graph(graph, quantized, preprocessing)
            simulated = TorchClassifier(quantized.simulated(), preprocessing, "simulated INT8")
            gate = ParityGate(simulated, pictures, preprocessing)
            candidate = OnnxClassifier(graph, preprocessing, "Q/DQ ONNX")
            self._parity.append(gate.check("quantize", candidate, SIMULATED))
        return graph

    def _calibration_table(
        self, folded: EfficientNet, preprocessing: Preprocessing
    ) -> CalibrationTable:
        asked, size = self._request.calibration, self._request.calibration_size
        if asked is not None and asked.suffix == ".json":
            return CalibrationTable.load(asked)
        if asked is None:
            pictures: PictureSet = EmbeddedPhotos(size)
        elif asked.is_dir():
            pictures = ImageSet.from_folder(asked).subset(size)
        else:
            pictures = ImageSet.from_csv(asked).subset(size)
        schemes = (self._target.scheme,)
        return calibrate(folded, pictures, preprocessing, schemes, progress=self._on_progress)

    def _check_engine(self, draft: Manifest, staging: Path, gate: ParityGate) -> None:
        bundle = Bundle(staging, draft, tuple(self._labels) if self._labels else None)
        with EngineRunner.of(bundle) as runner:
            self._parity.append(
                gate.check(self._target.name, runner, self._target.gate(self._precision))
            )

    def _manifest(self, source: Source, model_file: str, gate_pictures: str) -> Manifest:
        request, preprocessing = self._request, source.preprocessing
        side = preprocessing.resolution
        dtype, layout = request.input_kind.split("-")
        return Manifest(
            created=utc_now(),
            variant=source.network.variant.name,
            target=self._target.name,
            precision=self._precision,
            model=model_file,
            input=InputSpec(INPUT_NAME, dtype, layout.upper(), side, side, 3),
            batch=request.batch,
            output=OutputSpec(OUTPUT_NAME, source.classes),
            preprocessing=preprocessing,
            padding=request.padding,
            tools=tool_versions(),
            machine=Machine.here(),
            weights=source.weights,
            parity=tuple(self._parity),
            parity_images=gate_pictures,
            calibration=self._calibration(),
        )

    def _calibration(self) -> Calibration | None:
        if self._table is None:
            return None
        images = self._table.images
        return Calibration(
            CALIBRATION_FILE, self._target.scheme.name, images.source, images.size, images.sha256
        )

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self._on_stage(name)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def tool_versions() -> dict[str, str]:
    """effnet-edge's own version and those of the libraries that had a hand in the model."""
    versions = {"effnet-edge": __version__}
    for tool in TOOLS:
        try:
            versions[tool] = metadata.version(tool)
        except metadata.PackageNotFoundError:
            continue
    return versions
