"""The chain from PyTorch to a bundle, with the parity gate after every arrow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from effnet_calibration.path import STEM
from effnet_calibration.quantized import apply, apply_quantization
from effnet_calibration.threads import THREADS, same_threads
from effnet_edge.bench import bench_models
from effnet_edge.bundle import Bundle, BundleWriter
from effnet_edge.bundle.writing import file_records
from effnet_edge.errors import GateError
from effnet_edge.parity.batch_sizes import OWN_ANSWERS_DB, graph_sizes
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.progress import no_progress
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.tensorrt.build import can_build, compile_engine
from effnet_edge.runtime.tensorrt.fitting import runs_here
from effnet_edge.runtime.tensorrt.plan import BuildOptions
from effnet_export.advice import advice, need_library, no_engine
from effnet_export.against import ORIGINAL, compare_with_original
from effnet_export.answering import write_answers
from effnet_export.drafting import CALIBRATION_FILE, draft_manifest
from effnet_export.fp16 import type_fp16
from effnet_export.gate import FITTED_ACTIVATIONS, ROUNDED_WEIGHTS, ParityGate
from effnet_export.loading import Loaded, load
from effnet_export.onnx_graph import export_onnx
from effnet_export.qdq import quantize_graph, without_pairs
from effnet_export.sbom import write_sbom
from effnet_export.simplify import simplify
from effnet_export.stage_clock import StageClock
from effnet_export.stand_ins import simulation
from effnet_export.tabulating import Tabulated, table_for
from effnet_export.tensorrt_graph import cast_pixels_first
from effnet_export.written import opened_pair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from effnet_calibration.mixed_precision import MixedPrecision
    from effnet_calibration.quantized_network import QuantizedNetwork
    from effnet_edge.bench import ModelTiming
    from effnet_edge.bundle import BatchRange, Manifest, StageParity
    from effnet_edge.bundle.signing import SigningKey
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity import Gate
    from effnet_edge.parity.comparison import Classifier
    from effnet_edge.pictures.protocol import Pictures
    from effnet_edge.progress import Progress
    from effnet_export.gate import Inside
    from effnet_export.pictures import CalibratedOn
    from effnet_export.request import ExportRequest

LATENCY_RUNS = 100
ACTIVATIONS, WRITTEN = "activations", "written"

OnStage = Callable[[str], None]


@dataclass(frozen=True)
class ExportResult:
    """What came of an export.

    Attributes:
        bundle: finished.
        seconds: how long each stage took.
        tabulated: what it was calibrated to, where it was.
        latency: the model as it is without the budget and the bundle, timed in turns, where a
            budget left more in 16 bit.
    """

    bundle: Bundle
    seconds: dict[str, float]
    tabulated: Tabulated | None = None
    latency: tuple[ModelTiming, ModelTiming] | None = None

    @property
    def mixed(self) -> MixedPrecision | None:
        """How the tensors in 16 bit were found, where a budget was set."""
        return self.tabulated.mixed if self.tabulated else None


def export_bundle(
    request: ExportRequest,
    on_stage: OnStage = lambda _: None,
    on_progress: Progress = no_progress,
    key: SigningKey | None = None,
    loaded: Loaded | None = None,
    *,
    timed: bool = True,
    built: bool = True,
) -> ExportResult:
    """Export, verify and write a bundle; nothing appears under its name unless all gates pass.

    Args:
        on_stage: called with the name of each stage as it begins.
        on_progress: called while the calibration runs.
        key: signs the bundle.
        loaded: the request's network and pictures, where several exports share them.
        timed: whether what a budget left in 16 bit is timed.
        built: whether an engine that is built on the device is built here, too, if it can be.

    Raises:
        UsageError: the request cannot be carried out as given.
        GateError: a stage changed the model; the text names the stage and the first wrong node.
        CheckpointError, BundleError, BackendError: as their texts say.
    """
    if request.require_engine and not can_build(request.target):
        raise no_engine(request.chosen_target)
    if not request.chosen_target.built_on_device:
        need_library(request.chosen_target.row, f"--target {request.target}")
    clock = StageClock(on_stage)
    output = request.directory
    with same_threads(), BundleWriter(output) as writer:
        if loaded is None:
            with clock.stage("load"):
                loaded = load(request, on_progress)
        run = _ExportRun(request, loaded, writer.staging, clock, on_progress)
        draft = run.write_model(Path(f"{output}.timing-cache") if built else None)
        if loaded.labels is not None:
            writer.write_labels(loaded.labels)
        write_sbom(draft, writer.staging)
        bundle = writer.commit(draft, loaded.labels, key)
    latency = run.latency(bundle) if timed else None
    return ExportResult(bundle, clock.seconds, run.tabulated, latency)


@dataclass(frozen=True)
class _Gated:
    """A graph that held its gate, and what ran it there."""

    graph: onnx.ModelProto
    classifier: OnnxClassifier


class _ExportRun:
    """One export under way: what it has so far, each arrow's model and its gate."""

    def __init__(
        self,
        request: ExportRequest,
        loaded: Loaded,
        staging: Path,
        clock: StageClock,
        on_progress: Progress,
    ) -> None:
        self.tabulated: Tabulated | None = None
        self._request = request
        self._loaded = loaded
        self._staging = staging
        self._stage = clock.stage
        self._on_progress = on_progress
        self._target = request.chosen_target
        self._precision = request.chosen_precision
        self._preprocessing = loaded.source.preprocessing
        self._graph_sizes = graph_sizes(request.batch)
        self._fitted: ParityGate | None = None
        self._start: onnx.ModelProto | None = None
        self._parity: list[StageParity] = []

    def write_model(self, timing_cache: Path | None) -> Manifest:
        """Run all stages; the files in the bundle are then complete but for the manifest.

        TensorRT's timing cache, where TensorRT is here, outlives the export; without a place for
        it no engine is built.
        """
        source, pictures = self._loaded.source, self._loaded.pictures.for_gates()
        reference = TorchClassifier(source.network, self._preprocessing)
        kind = source.network.output_kind
        self._compare_with_original(pictures)
        gate = ParityGate(reference, pictures, self._preprocessing, kind)
        graph = self._make_graph(gate)
        if self._target.built_on_device:
            graph = self._make_typed_graph(graph, gate)
        draft = self._write(graph, gate)
        builds = self._target.built_on_device and can_build(self._target.name)
        if timing_cache is not None and builds:
            draft = self._with_engine(draft, gate, timing_cache)
        return replace(draft, parity=tuple(self._parity))

    def _compare_with_original(self, pictures: Pictures) -> None:
        request = self._request
        if request.against is None:
            return
        with self._stage(ORIGINAL):
            self._parity.append(
                compare_with_original(
                    request.against, request.network, self._loaded.source, pictures
                )
            )

    def _make_graph(self, gate: ParityGate) -> onnx.ModelProto:
        folded, calibrated_on = self._loaded.folded, self._loaded.pictures.calibrated_on
        if not self._request.calibrates or calibrated_on is None:
            return self._simplified(self._exported(folded, gate), gate)
        quantized = self._calibrated(calibrated_on, gate)
        changed = TorchClassifier(quantized.network, self._preprocessing, "changed torch")
        exact = gate.against(changed)
        if not quantized.scheme.rounds:
            self._fitted = exact
            self._hold(ACTIVATIONS, gate, changed, FITTED_ACTIVATIONS)
        graph = self._simplified(self._exported(quantized.network, exact), exact)
        return self._with_pairs(graph, quantized, gate) if quantized.scheme.rounds else graph

    def _exported(self, network: EfficientNet, gate: ParityGate) -> _Gated:
        request, preprocessing = self._request, self._preprocessing
        with self._stage("export"):
            graph = export_onnx(
                network, preprocessing, input_kind=request.input_kind, batch=request.batch
            )
            candidate = self._onnx(graph, "exported ONNX")
            before = TorchClassifier(network, preprocessing)
            self._parity.append(
                gate.check("export", candidate, before=before, sizes=self._graph_sizes)
            )
        return _Gated(graph, candidate)

    def _simplified(self, exported: _Gated, gate: ParityGate) -> onnx.ModelProto:
        with self._stage("simplify"):
            graph = simplify(exported.graph)
            candidate = self._onnx(graph, "simplified ONNX")
            self._parity.append(
                gate.check(
                    "simplify", candidate, before=exported.classifier, sizes=self._graph_sizes
                )
            )
        return graph

    def _onnx(self, graph: onnx.ModelProto, name: str, *, rounding: bool = False) -> OnnxClassifier:
        return OnnxClassifier(graph, self._preprocessing, name, rounding=rounding, threads=THREADS)

    def _calibrated(self, named: CalibratedOn, gate: ParityGate) -> QuantizedNetwork:
        """Equalized and bias-corrected, with the grids of its tensors."""
        with self._stage("calibrate"):
            found = table_for(self._request, self._loaded, named, gate, self._on_progress)
            self.tabulated = found
            found.table.save(self._staging / CALIBRATION_FILE)
            return apply(self._loaded.folded, found.table, self._request.scheme)

    def _with_pairs(
        self, graph: onnx.ModelProto, quantized: QuantizedNetwork, gate: ParityGate
    ) -> onnx.ModelProto:
        with self._stage("quantize"):
            mixed = self.tabulated.mixed if self.tabulated else None
            if mixed is not None and mixed.keeps_more:
                start = apply_quantization(self._loaded.folded, mixed.start.quantization)
                self._start = quantize_graph(graph, start)
            graph = quantize_graph(graph, quantized)
            self._check_pairs(graph, quantized, gate)
        return graph

    def _check_pairs(
        self, graph: onnx.ModelProto, quantized: QuantizedNetwork, gate: ParityGate
    ) -> None:
        """First without the activations' roundings, in whose noise other faults hide."""
        preprocessing = self._preprocessing
        if self._request.input_kind == "float32-nchw":
            quantized = quantized.reading_floats()
        rounded = quantized.with_rounded_weights()
        reference = TorchClassifier(rounded, preprocessing, "torch, INT8 weights")
        candidate = self._onnx(without_pairs(graph), "Q/DQ ONNX, no pairs")
        self._parity.append(
            gate.against(reference).check(
                "weights",
                candidate,
                ROUNDED_WEIGHTS,
                before=reference,
                rewritten=(STEM,),
                sizes=self._graph_sizes,
            )
        )
        simulated = TorchClassifier(quantized.simulated(), preprocessing, "simulated INT8")
        candidate = self._onnx(graph, "Q/DQ ONNX")
        self._parity.append(gate.check_noise("quantize", candidate, simulated, self._graph_sizes))

    def _make_typed_graph(self, graph: onnx.ModelProto, gate: ParityGate) -> onnx.ModelProto:
        """What TensorRT gets, judged by what onnxruntime says it computes."""
        preprocessing = self._preprocessing
        with self._stage("type"):
            graph = cast_pixels_first(graph)
            if self._precision != "fp32":
                pictures = self._loaded.pictures.for_typing()
                graph = type_fp16(graph, pictures, preprocessing).model
            simulated = self._onnx(graph, "typed ONNX, simulated", rounding=True)
            self._check_finished("type", simulated, self._request.batch, gate)
        return graph

    def _write(self, graph: onnx.ModelProto, gate: ParityGate) -> Manifest:
        """The target's own file of the graph: the engine, or what one is built from."""
        request = self._request
        with self._stage(self._target.name):
            file = self._target.write(graph, self._staging, self._precision, request.batch)
            source = self._loaded.source
            table = self.tabulated.table if self.tabulated else None
            draft = draft_manifest(request, source, file, gate.source, table)
            if self._target.built_on_device:
                return self._answered(draft, simulation(self._draft_bundle(draft)))
            # In INT8 the nodes differ by their roundings, and none of them is at fault.
            written, precision = self._staging / file, self._precision
            pair = partial(opened_pair, graph, written, precision, self._preprocessing)
            with self._engine(draft) as runner:
                inside, batch = None if precision == "int8" else pair, runner.manifest.batch
                self._check_finished(runner.name, runner, batch, gate, inside)
                return self._answered(draft, runner)

    def _answered(self, draft: Manifest, graph: Classifier) -> Manifest:
        """With the network's known answers, to which the device can hold its engine."""
        network = TorchClassifier(self._loaded.source.network, self._preprocessing)
        graphs = {draft.model: (draft.precision, graph)}
        return write_answers(draft, network, graphs, self._staging)

    def _with_engine(self, draft: Manifest, gate: ParityGate, timing_cache: Path) -> Manifest:
        """Compile the engine here, and check what it computes if this machine can run it.

        The device builds its own from the graph otherwise.
        """
        options = BuildOptions(compute_capabilities=self._request.compute_capabilities)
        with self._stage("build"):
            bundle = self._draft_bundle(draft)
            record, plan = compile_engine(bundle, timing_cache, options, self._on_progress)
            (self._staging / record.file).write_bytes(plan)
            built = replace(draft, engines=(record,))
            if runs_here(record):
                with self._engine(built) as runner:
                    self._check_finished(runner.name, runner, runner.manifest.batch, gate)
        return built

    def _draft_bundle(self, draft: Manifest) -> Bundle:
        """What is staged so far, as the bundle that it will be."""
        recorded = replace(draft, files=file_records(self._staging))
        labels = self._loaded.labels
        return Bundle(self._staging, recorded, tuple(labels) if labels else None)

    def _engine(self, draft: Manifest) -> EngineRunner:
        threads = None if self._target.built_on_device else THREADS
        runner = EngineRunner.of(self._draft_bundle(draft), threads=threads)
        # Not the folder's, which has a random part until it is finished.
        runner.name = self._target.name
        return runner

    def _check_finished(
        self,
        stage: str,
        candidate: Classifier,
        batch: BatchRange,
        gate: ParityGate,
        inside: Inside | None = None,
    ) -> None:
        """What people will run must hold at every batch size that they may call it with.

        With fitted activations it is held against the network that has them first.
        """
        gates, sizes = self._target.gates(self._precision), batch.sizes_to_check
        if self._fitted is not None:
            self._hold(WRITTEN, self._fitted, candidate, gates, inside, sizes)
            gates, inside = FITTED_ACTIVATIONS, None
        self._hold(stage, gate, candidate, gates, inside, sizes)

    def _hold(
        self,
        stage: str,
        gate: ParityGate,
        candidate: Classifier,
        gates: Mapping[OutputKind, Gate],
        inside: Inside | None = None,
        sizes: Sequence[int] = (),
    ) -> None:
        """Check, and end a failure with what may help."""
        own_answers_db = OWN_ANSWERS_DB[self._precision]
        try:
            found = gate.check(
                stage, candidate, gates, inside=inside, sizes=sizes, own_answers_db=own_answers_db
            )
        except GateError as error:
            helps = advice(gates, self._loaded.source.network.output_kind, self._target.row)
            raise GateError(error.problem, helps) from error
        self._parity.append(found)

    def latency(self, bundle: Bundle) -> tuple[ModelTiming, ModelTiming] | None:
        """Time the model as it is without the budget and the finished bundle in turns."""
        graph, batch = self._start, self._request.batch
        if graph is None or self._target.built_on_device:
            return None
        with self._stage("latency"), TemporaryDirectory() as folder:
            with BundleWriter(Path(folder) / "start") as writer:
                self._target.write(graph, writer.staging, self._precision, batch)
                bare = replace(bundle.manifest, calibration=None, answers=None)
                start = writer.commit(bare, None)
            first, second = bench_models([start.path, bundle.path], batch.optimum, LATENCY_RUNS)
        return first, second
