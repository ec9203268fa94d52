"""Opens the models of a comparison: the PyTorch network, ONNX files, OpenVINO IRs, bundles."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.bundle import Bundle
from effnet_edge.errors import BackendError, UsageError
from effnet_edge.image import MAX_CHANNELS
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.tensorrt.library import MODULES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack
    from types import ModuleType

    from effnet_edge.bundle import BatchRange, Label, Manifest
    from effnet_edge.image import Preprocessing
    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.classifiers import OnnxClassifier
    from effnet_edge.parity.comparison import Classifier
    from effnet_edge.parity.openvino_classifier import OpenVinoClassifier
    from effnet_edge.parity.tracing import Traceable
    from effnet_export.network import Source

    FileModel = OnnxClassifier | OpenVinoClassifier

TORCH = "torch"
CHECKPOINTS = (".safetensors", ".pth", ".pt", ".bin", ".h5", ".keras", ".index")


@dataclass(frozen=True)
class Openings:
    """How to open the models.

    Attributes:
        variant: of the PyTorch network, where no bundle tells.
        weights: the checkpoint, if it is not where the bundle says.
        device, threads, precision: for the engines.
    """

    variant: str | None
    weights: str | None
    device: str | None
    threads: int | None
    precision: str | None


@dataclass
class Models:
    """The open models of a comparison, and the preprocessing that all of them get."""

    openings: Openings
    preprocessing: Preprocessing
    output_kind: OutputKind
    bundles: Mapping[str, Bundle]
    reference: Classifier
    candidates: Sequence[Classifier]
    reference_spec: str
    candidate_specs: Sequence[str]
    _tracers: dict[str, Traceable] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[Label, ...]:
        """Of the first bundle; ImageNet's where there is none."""
        if self.bundles:
            return next(iter(self.bundles.values())).labels or ()
        from effnet_export.labels import imagenet_labels

        return tuple(imagenet_labels())

    @property
    def classes(self) -> dict[str, int]:
        """Class index by name or WordNet id."""
        by_name = {label.name: index for index, label in enumerate(self.labels)}
        by_wnid = {label.wnid: index for index, label in enumerate(self.labels) if label.wnid}
        return by_name | by_wnid

    def batch_of(self, candidate_index: int) -> BatchRange | None:
        """What a call of the candidate takes; None for a PyTorch network, which takes anything."""
        candidate = self.candidates[candidate_index]
        bundle = self.bundles.get(self.candidate_specs[candidate_index])
        if isinstance(candidate, EngineRunner):
            return candidate.manifest.batch
        if bundle is not None:
            return bundle.manifest.batch
        batch: BatchRange | None = getattr(candidate, "batch", None)
        return batch

    def layer_pair(self, candidate_index: int) -> tuple[Traceable, Traceable]:
        """Reference and candidate as models whose inner tensors can be seen, under common names.

        PyTorch comes with its batch norm folded and, against an INT8 bundle, with the factors of
        the bundle's calibration: the same function, with the tensors that the engine has.
        """
        spec = self.candidate_specs[candidate_index]
        candidate = self._tracer(spec, self.candidates[candidate_index])
        if self.reference_spec == TORCH:
            return _named_alike(self._folded(spec), candidate)
        return _named_alike(self._tracer(self.reference_spec, self.reference), candidate)

    def _tracer(self, spec: str, classifier: Classifier) -> Traceable:
        if spec not in self._tracers:
            self._tracers[spec] = self._open_tracer(spec, classifier)
        return self._tracers[spec]

    def _open_tracer(self, spec: str, classifier: Classifier) -> Traceable:
        if spec == TORCH or spec.endswith(CHECKPOINTS):
            return self._folded(None if spec == TORCH else spec)
        if spec in self.bundles and _is_tensorrt(self.bundles[spec]):
            return _simulation(self.bundles[spec])
        if spec in self.bundles:
            bundle = self.bundles[spec]
            precision = self.openings.precision
            if precision is None and bundle.manifest.precision == "fp32":
                precision = "fp32"
            return _open_file(
                bundle.model_path, self.preprocessing, self.openings, precision, classifier.name
            )
        return classifier  # type: ignore[return-value]  # ONNX files and IRs show their tensors

    def _folded(self, spec: str | None) -> Traceable:
        from effnet_edge.model.folding import fold_batch_norm
        from effnet_edge.parity.classifiers import TorchClassifier

        checkpoint = spec if spec is not None and spec.endswith(CHECKPOINTS) else None
        source = _source(self._manifest(), self.preprocessing, self.openings, checkpoint)
        network = fold_batch_norm(source.network)
        bundle = self.bundles.get(spec or "")
        if bundle is not None and bundle.manifest.calibration is not None:
            from effnet_calibration.quantized import equalized
            from effnet_calibration.table import CalibrationTable

            calibration = bundle.manifest.calibration
            table = CalibrationTable.load(bundle.path / calibration.table)
            network = equalized(network, table.quantization(calibration.scheme))
        return TorchClassifier(network, self.preprocessing, self.reference.name)

    def _manifest(self) -> Manifest | None:
        return next((bundle.manifest for bundle in self.bundles.values()), None)


def _named_alike(reference: Traceable, candidate: Traceable) -> tuple[Traceable, Traceable]:
    """Rename the tensors of the one that is a foreign ONNX model."""
    from effnet_edge.parity.alignment import shares_layers
    from effnet_edge.parity.classifiers import OnnxClassifier

    if shares_layers(reference, candidate):
        return reference, candidate
    if isinstance(candidate, OnnxClassifier):
        return reference, candidate.named_like(reference)
    if isinstance(reference, OnnxClassifier):
        return reference.named_like(candidate), candidate
    return reference, candidate


def open_models(
    reference: str, candidates: Sequence[str], openings: Openings, stack: ExitStack
) -> Models:
    """Open all; engines are closed with `stack`.

    Raises:
        UsageError: a model does not exist, or two want different pixels.
        BundleError, BackendError, CheckpointError: as their texts say.
    """
    specs = list(dict.fromkeys((*candidates, reference)))
    bundles = {spec: Bundle.load(spec) for spec in specs if _is_bundle(spec)}
    manifests = [bundle.manifest for bundle in bundles.values()]
    preprocessing = _common_preprocessing(manifests, specs, openings)

    def opened(spec: str) -> Classifier:
        if spec in bundles:
            return _open_bundle(bundles[spec], openings, stack)
        if spec == TORCH or spec.endswith(CHECKPOINTS):
            checkpoint = None if spec == TORCH else spec
            manifest = manifests[0] if manifests else None
            return _torch(manifest, preprocessing, openings, checkpoint)
        return _open_file(Path(spec), preprocessing, openings, openings.precision, None)

    open_by_spec = {spec: opened(spec) for spec in specs}
    return Models(
        openings=openings,
        preprocessing=preprocessing,
        output_kind=_common_output(manifests),
        bundles=bundles,
        reference=open_by_spec[reference],
        candidates=[open_by_spec[spec] for spec in candidates],
        reference_spec=reference,
        candidate_specs=list(candidates),
    )


def _open_bundle(bundle: Bundle, openings: Openings, stack: ExitStack) -> Classifier:
    """The bundle's engine; for TensorRT where it cannot run, a simulation of its graph."""
    if _is_tensorrt(bundle):
        from effnet_edge.runtime.tensorrt.selection import can_run

        if not can_run(bundle.manifest.target):
            return _simulation(bundle)
    runner = EngineRunner.of(
        bundle,
        device=openings.device,
        threads=openings.threads,
        precision=openings.precision,
    )
    return stack.enter_context(runner)


def _is_tensorrt(bundle: Bundle) -> bool:
    return bundle.manifest.target in MODULES


def _simulation(bundle: Bundle) -> OnnxClassifier:
    """The bundle's graph, with the rounding of its types: also shows the tensors inside."""
    from effnet_edge.parity.classifiers import OnnxClassifier

    manifest, name = bundle.manifest, bundle.path.name
    return OnnxClassifier(bundle.model_path, manifest.preprocessing, name, rounding=True)


def _is_bundle(spec: str) -> bool:
    return spec != TORCH and not spec.endswith((".onnx", ".xml", *CHECKPOINTS))


def _open_file(
    path: Path,
    preprocessing: Preprocessing,
    openings: Openings,
    precision: str | None,
    name: str | None,
) -> FileModel:
    if path.suffix == ".xml":
        from effnet_edge.parity.openvino_classifier import OpenVinoClassifier

        return OpenVinoClassifier(
            path,
            preprocessing,
            name,
            device=openings.device,
            threads=openings.threads,
            precision=precision,
        )
    from effnet_edge.parity.classifiers import OnnxClassifier

    return OnnxClassifier(path, preprocessing, name)


def _common_preprocessing(
    manifests: list[Manifest], specs: Sequence[str], openings: Openings
) -> Preprocessing:
    if not manifests:
        sides = [side for spec in specs if (side := _input_side(Path(spec))) is not None]
        return _preprocessing_of_weights(specs, openings, sides[0] if sides else None)
    first = manifests[0].preprocessing
    if any(manifest.preprocessing != first for manifest in manifests):
        raise UsageError(
            "the bundles prepare pictures differently (resolution, crop or normalization): "
            "compare each with torch instead"
        )
    return first


def _preprocessing_of_weights(
    specs: Sequence[str], openings: Openings, side: int | None
) -> Preprocessing:
    """What the PyTorch network's weights expect; the variant's own where none is compared."""
    from effnet_edge.model.preprocessing import variant_preprocessing
    from effnet_edge.model.variants import get_variant

    checkpoints = [spec for spec in specs if spec.endswith(CHECKPOINTS)]
    if TORCH not in specs and not checkpoints:
        return variant_preprocessing(get_variant(openings.variant or "b0"), side)
    checkpoint = None if TORCH in specs else checkpoints[0]
    return _load_source(checkpoint, openings, side).preprocessing


def _common_output(manifests: list[Manifest]) -> OutputKind:
    """What the bundles give; without any, logits of classes that exclude each other."""
    kinds: list[OutputKind] = list(dict.fromkeys(each.output.kind for each in manifests))
    if len(kinds) > 1:
        raise UsageError(f"the bundles give different things ({', '.join(kinds)}): compare others")
    return kinds[0] if kinds else "single-label"


def _input_side(path: Path) -> int | None:
    """The pixels of a side of what a model file takes; None where it does not say."""
    if not path.is_file():
        return None
    shape: list[int] = []
    if path.suffix == ".onnx":
        from effnet_edge.parity.classifiers import onnx_input_shape

        shape = onnx_input_shape(path)
    elif path.suffix == ".xml":
        from effnet_edge.parity.openvino_classifier import openvino_input_shape

        shape = openvino_input_shape(path)
    sides = [size for size in shape[1:] if size > MAX_CHANNELS]
    return sides[0] if sides else None


def _torch(
    manifest: Manifest | None,
    preprocessing: Preprocessing,
    openings: Openings,
    checkpoint: str | None,
) -> Classifier:
    source = _source(manifest, preprocessing, openings, checkpoint)
    from effnet_edge.parity.classifiers import TorchClassifier

    name = TORCH if checkpoint is None else Path(checkpoint).name
    return TorchClassifier(source.network, preprocessing, name)


def _source(
    manifest: Manifest | None,
    preprocessing: Preprocessing,
    openings: Openings,
    checkpoint: str | None,
) -> Source:
    """The bundle's own network, or the variant with a checkpoint."""
    network = _export_network()
    source: Source
    if manifest is None:
        return _load_source(checkpoint, openings, preprocessing.resolution)
    if checkpoint is None:
        source = network.load_source_of(manifest, openings.weights)
        return source
    source = network.load_source(
        manifest.variant,
        weights=checkpoint,
        num_classes=manifest.output.classes,
        resolution=preprocessing.resolution,
        output_kind=manifest.output.kind,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )
    return source


def _load_source(checkpoint: str | None, openings: Openings, side: int | None) -> Source:
    """The network where no bundle tells which."""
    source: Source = _export_network().load_source(
        openings.variant or "b0", weights=checkpoint or openings.weights, resolution=side
    )
    return source


def _export_network() -> ModuleType:
    try:
        from effnet_export import network
    except ModuleNotFoundError as error:
        raise BackendError(
            f"comparing with PyTorch needs {error.name}: pip install 'effnet-edge[export]', "
            "or compare with another bundle: --reference BUNDLE"
        ) from error
    return network
