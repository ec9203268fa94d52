"""The chain from PyTorch to a bundle, with the parity gate after every arrow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from effnet_calibration.calibrate import no_progress
from effnet_calibration.image_sets import DEFAULT_IMAGES
from effnet_calibration.mixed_precision import keep_for_budget
from effnet_calibration.quantized import apply, apply_quantization
from effnet_calibration.schemes import ASYMMETRIC_UINT8
from effnet_edge import __version__
from effnet_edge.bench import bench_bundles
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
from effnet_edge.errors import BackendError, EffnetEdgeError, GateError, UsageError
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.variants import IMAGENET_CLASSES
from effnet_edge.outputs import OUTPUT_NAMES
from effnet_edge.parity import Gate
from effnet_edge.parity.batch_sizes import OWN_ANSWERS_DB, graph_sizes, sizes_to_check
from effnet_edge.parity.classifiers import OnnxClassifier, TorchClassifier
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.processor import INT8_OVERFLOWS, int8_overflows
from effnet_edge.runtime.tensorrt.build import can_build, compile_engine
from effnet_edge.runtime.tensorrt.plan import BuildOptions
from effnet_edge.runtime.tensorrt.selection import runs_here
from effnet_export.calibration import calibration_table
from effnet_export.fp16 import type_fp16
from effnet_export.gate import ROUNDED_WEIGHTS, ParityGate
from effnet_export.labels import default_labels, read_labels
from effnet_export.network import Source, load_source
from effnet_export.onnx_graph import INPUT_NAME, export_onnx
from effnet_export.pictures import CalibratedOn, ExportPictures
from effnet_export.qdq import STEM, quantize_graph, without_pairs
from effnet_export.simplify import simplify
from effnet_export.targets import Target, target_for
from effnet_export.tensorrt_graph import cast_pixels_first

if TYPE_CHECKING:
    import onnx

    from effnet_calibration.calibrate import Progress
    from effnet_calibration.mixed_precision import MixedPrecision
    from effnet_calibration.quantized import QuantizedNetwork
    from effnet_calibration.table import CalibrationTable
    from effnet_edge.bench import BundleTiming
    from effnet_edge.image import Preprocessing
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.model.variants import Padding
    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.comparison import Classifier
    from effnet_export.deployed import InputKind

CALIBRATION_FILE = "calibration.json"
TOOLS = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "openvino", "numpy", "pillow")

LATENCY_RUNS = 100

OnStage = Callable[[str], None]


@dataclass(frozen=True)
class ExportRequest:
    """What to export. Everything but the variant and the target has a default a person would pick.

    Attributes:
        precision: "fp32", "fp16" or "int8"; the target's default if None.
        weights: a name ("imagenet"), a checkpoint file or "random"; "imagenet" if None.
        labels: a file of class names; ImageNet's for 1000 classes if None.
        output_kind: "multi-label" for classes that do not exclude each other, "features" for the
            network without its classifier.
        resolution: input side in pixels; that of the weights, or the variant's own, if None.
        mean, std: one value a channel in units of pixel / 255; those of the weights if None.
        calibration: for INT8 and for TensorRT's FP16: a folder or CSV of pictures, or for INT8 a
            table (`.json`) to reuse; crops of the embedded photos if None.
        calibration_size: at most so many pictures.
        max_drop: for INT8: keep the fewest tensors in 16 bit that hold the top-1 drop on the
            calibration pictures, which must be labelled, to so many points.
        max_kl: the same for the KL divergence in nats; no labels are needed.
        weight_bits: of INT8 weights, 8, or 7 for x86 processors without VNNI, on which large sums
            of INT8 products overflow; what this machine needs if None.
        require_engine: fail where the engine can only be built on the device.
        compute_capabilities: GPU generations to compile for with TensorRT-RTX ("8.6").
        output: the bundle's directory; `VARIANT-TARGET-PRECISION` here if None.
    """

    variant: str
    target: str
    precision: str | None = None
    weights: str | None = None
    num_classes: int = IMAGENET_CLASSES
    labels: Path | None = None
    output_kind: OutputKind = "single-label"
    resolution: int | None = None
    padding: Padding | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_kind: InputKind = "uint8-nhwc"
    batch: BatchRange = field(default_factory=lambda: BatchRange(1, 1, 1))
    calibration: Path | None = None
    calibration_size: int = DEFAULT_IMAGES
    max_drop: float | None = None
    max_kl: float | None = None
    require_engine: bool = False
    weight_bits: int | None = None
    compute_capabilities: tuple[str, ...] = ()
    output: Path | None = None

    @property
    def budget(self) -> Gate | None:
        """What INT8 may lose at most; raises `UsageError` for a limit out of its range."""
        if self.max_drop is None and self.max_kl is None:
            return None
        return Gate(max_drop=self.max_drop, max_kl=self.max_kl)


@dataclass(frozen=True)
class ExportResult:
    """What came of an export.

    Attributes:
        bundle: finished.
        seconds: how long each stage took.
        mixed: how the tensors in 16 bit were found, where a budget was set.
        latency: the model with all tensors in INT8 and the bundle, timed in turns, where a budget
            was set and it left something in 16 bit.
    """

    bundle: Bundle
    seconds: dict[str, float]
    mixed: MixedPrecision | None = None
    latency: tuple[BundleTiming, BundleTiming] | None = None


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
    target = target_for(request.target, request.weight_bits)
    precision = target.precision(request.precision)
    output = request.output or Path(f"{request.variant.lower()}-{target.name}-{precision}")
    if request.require_engine and not (target.built_on_device and can_build(target.name)):
        raise _no_engine(target)
    labels = _labels(request)
    with BundleWriter(output) as writer:
        run = _ExportRun(request, target, precision, labels, on_stage, on_progress)
        draft = run.write_model(writer.staging, Path(f"{output}.timing-cache"))
        bundle = writer.commit(draft, labels)
    return ExportResult(bundle, run.seconds, run.mixed, run.latency(bundle))


def _labels(request: ExportRequest) -> list[Label] | None:
    if request.output_kind == "features":
        if request.labels is not None:
            raise UsageError("--labels does not go with --features: features are no classes")
        return None
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
        self.mixed: MixedPrecision | None = None
        self._request = request
        self._target = target
        self._precision = precision
        self._labels = labels
        self._on_stage = on_stage
        self._on_progress = on_progress
        self._table: CalibrationTable | None = None
        self._all_int8: onnx.ModelProto | None = None
        self._parity: list[StageParity] = []

    def write_model(self, staging: Path, timing_cache: Path) -> Manifest:
        """Run all stages; the files in `staging` are then complete but for the manifest.

        TensorRT's timing cache, where TensorRT is here, outlives the export.
        """
        request = self._request
        with self._stage("load"):
            source = load_source(
                request.variant,
                weights=request.weights,
                num_classes=request.num_classes,
                resolution=request.resolution,
                padding=request.padding,
                output_kind=request.output_kind,
                mean=request.mean,
                std=request.std,
                on_progress=self._on_progress,
            )
            chosen = ExportPictures(
                request, self._precision, self._labels, source.preprocessing.channels
            )
            folded = fold_batch_norm(source.network)
        pictures = chosen.for_gates()
        reference = TorchClassifier(source.network, source.preprocessing)
        gate = ParityGate(reference, pictures, source.preprocessing, request.output_kind)
        if chosen.calibrated_on is not None:
            graph = self._make_int8_graph(chosen.calibrated_on, folded, source, gate, staging)
        else:
            graph = self._make_graph(folded, source, gate)
        if self._target.built_on_device:
            graph = self._make_typed_graph(graph, source, gate, chosen)
        with self._stage(self._target.name):
            model_file = self._target.write(graph, staging, self._precision, request.batch)
            draft = self._manifest(source, model_file, pictures.source)
            if not self._target.built_on_device:
                self._check_engine(draft, staging, gate)
        if self._target.built_on_device and can_build(self._target.name):
            draft = self._with_engine(draft, staging, gate, timing_cache)
        return replace(draft, parity=tuple(self._parity))

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
            sizes = graph_sizes(self._request.batch)
            self._parity.append(gate.check("export", classifier, before=before, sizes=sizes))
        with self._stage("simplify"):
            simplified = simplify(exported)
            candidate = OnnxClassifier(simplified, preprocessing, "simplified ONNX")
            self._parity.append(gate.check("simplify", candidate, before=classifier, sizes=sizes))
        return simplified

    def _make_int8_graph(
        self,
        calibrated_on: CalibratedOn,
        folded: EfficientNet,
        source: Source,
        gate: ParityGate,
        staging: Path,
    ) -> onnx.ModelProto:
        """Calibrate, export the equalized network, write the pairs; each step has its own gate."""
        preprocessing = source.preprocessing
        with self._stage("calibrate"):
            table = self._table_within_budget(calibrated_on, folded, preprocessing)
            table.save(staging / CALIBRATION_FILE)
            quantized = apply(folded, table, self._target.scheme)
        self._table = table
        changed = TorchClassifier(quantized.network, preprocessing, "equalized torch")
        graph = self._make_graph(quantized.network, source, gate.against(changed))
        with self._stage("quantize"):
            if self.mixed is not None and self.mixed.best.quantization.kept:
                all_int8 = apply_quantization(folded, self.mixed.all_int8.quantization)
                self._all_int8 = quantize_graph(graph, all_int8)
            graph = quantize_graph(graph, quantized)
            self._check_pairs(graph, quantized, preprocessing, gate)
        return graph

    def _check_pairs(
        self,
        graph: onnx.ModelProto,
        quantized: QuantizedNetwork,
        preprocessing: Preprocessing,
        gate: ParityGate,
    ) -> None:
        """First without the activations' roundings, in whose noise other faults hide."""
        if self._request.input_kind == "float32-nchw":
            quantized = quantized.reading_floats()
        rounded = quantized.with_rounded_weights()
        reference = TorchClassifier(rounded, preprocessing, "torch, INT8 weights")
        candidate = OnnxClassifier(without_pairs(graph), preprocessing, "Q/DQ ONNX, no pairs")
        sizes = graph_sizes(self._request.batch)
        self._parity.append(
            gate.against(reference).check(
                "weights",
                candidate,
                ROUNDED_WEIGHTS,
                before=reference,
                rewritten=(STEM,),
                sizes=sizes,
            )
        )
        simulated = TorchClassifier(quantized.simulated(), preprocessing, "simulated INT8")
        candidate = OnnxClassifier(graph, preprocessing, "Q/DQ ONNX")
        self._parity.append(gate.check_noise("quantize", candidate, simulated, sizes))

    def _make_typed_graph(
        self, graph: onnx.ModelProto, source: Source, gate: ParityGate, chosen: ExportPictures
    ) -> onnx.ModelProto:
        """What TensorRT gets, judged by what onnxruntime says it computes."""
        preprocessing = source.preprocessing
        with self._stage("type"):
            graph = cast_pixels_first(graph)
            if self._precision != "fp32":
                graph = type_fp16(graph, chosen.for_typing(), preprocessing).model
            simulated = OnnxClassifier(graph, preprocessing, "typed ONNX, simulated", rounding=True)
            self._check_finished("type", simulated, self._request.batch, gate)
        return graph

    def _table_within_budget(
        self,
        named: CalibratedOn,
        folded: EfficientNet,
        preprocessing: Preprocessing,
    ) -> CalibrationTable:
        scheme, budget = self._target.scheme, self._request.budget
        table = calibration_table(folded, named, preprocessing, scheme, self._on_progress)
        if budget is None or isinstance(named, Path):
            return table
        quantization = table.quantization(scheme.name)
        self.mixed = keep_for_budget(
            folded, quantization, named, preprocessing, budget, self._on_progress
        )
        if not self.mixed.within_budget:
            raise GateError(_budget_missed(self.mixed, budget))
        return replace(table, quantizations={scheme.name: self.mixed.best.quantization})

    def _with_engine(
        self, draft: Manifest, staging: Path, gate: ParityGate, timing_cache: Path
    ) -> Manifest:
        """Compile the engine here, and check what it computes if this machine can run it.

        The device builds its own from the graph otherwise.
        """
        options = BuildOptions(compute_capabilities=self._request.compute_capabilities)
        with self._stage("build"):
            bundle = Bundle(staging, draft, None)
            record, plan = compile_engine(bundle, timing_cache, options, self._on_progress)
            (staging / record.file).write_bytes(plan)
            built = replace(draft, engines=(record,))
            if runs_here(record):
                self._check_engine(built, staging, gate)
        return built

    def latency(self, bundle: Bundle) -> tuple[BundleTiming, BundleTiming] | None:
        """Time the model with all tensors in INT8 and the finished bundle in turns."""
        graph, batch = self._all_int8, self._request.batch
        if graph is None or self._target.built_on_device:
            return None
        with self._stage("latency"), TemporaryDirectory() as folder:
            with BundleWriter(Path(folder) / "all-int8") as writer:
                self._target.write(graph, writer.staging, self._precision, batch)
                all_int8 = writer.commit(replace(bundle.manifest, calibration=None), None)
            first, second = bench_bundles([all_int8.path, bundle.path], batch.optimum, LATENCY_RUNS)
        return first, second

    def _check_engine(self, draft: Manifest, staging: Path, gate: ParityGate) -> None:
        bundle = Bundle(staging, draft, tuple(self._labels) if self._labels else None)
        try:
            with EngineRunner.of(bundle) as runner:
                self._check_finished(self._target.name, runner, runner.manifest.batch, gate)
        except GateError as error:
            full_range = self._target.scheme == ASYMMETRIC_UINT8
            if self._precision == "int8" and full_range and int8_overflows():
                raise GateError(f"{error}; {INT8_OVERFLOWS}") from error
            raise

    def _check_finished(
        self, stage: str, candidate: Classifier, batch: BatchRange, gate: ParityGate
    ) -> None:
        """What people will run must hold at every batch size that they may call it with."""
        self._parity.append(
            gate.check(
                stage,
                candidate,
                self._target.gates(self._precision),
                sizes=sizes_to_check(batch),
                own_answers_db=OWN_ANSWERS_DB[self._precision],
            )
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
            input=InputSpec(INPUT_NAME, dtype, layout.upper(), side, side, preprocessing.channels),
            batch=request.batch,
            output=OutputSpec(
                OUTPUT_NAMES[request.output_kind],
                source.network.output_size,
                request.output_kind,
            ),
            preprocessing=preprocessing,
            padding=source.network.padding,
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
        images, scheme = self._table.images, self._target.scheme.name
        return Calibration(
            table=CALIBRATION_FILE,
            scheme=scheme,
            source=images.source,
            size=images.size,
            sha256=images.sha256,
            kept=self._table.quantization(scheme).kept,
        )

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self._on_stage(name)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def _no_engine(target: Target) -> EffnetEdgeError:
    if not target.built_on_device:
        return UsageError(
            f"--require-engine goes with tensorrt and tensorrt-rtx: {target.name} has no engine"
        )
    return BackendError(
        f"--require-engine: no {target.name} engine can be built here: it needs the library "
        f"(pip install 'effnet-edge[{target.name}]') and, for tensorrt, an NVIDIA GPU"
    )


def _budget_missed(mixed: MixedPrecision, budget: Gate) -> str:
    kept = len(mixed.best.quantization.kept)
    return (
        f"the budget ({budget.describe()}) cannot be met: with {kept} of {mixed.tensors} tensors "
        f"in 16 bit, {'; '.join(budget.check(mixed.best.loss))}: allow more, or use --fp16"
    )


def tool_versions() -> dict[str, str]:
    """effnet-edge's own version and those of the libraries that had a hand in the model."""
    versions = {"effnet-edge": __version__}
    for tool in TOOLS:
        try:
            versions[tool] = metadata.version(tool)
        except metadata.PackageNotFoundError:
            continue
    return versions
