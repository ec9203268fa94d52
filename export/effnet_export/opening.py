"""Opens the models of a comparison: PyTorch's network, model files, bundles, served models."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.bundle import Bundle
from effnet_edge.extras import needed_for
from effnet_edge.labels import class_indices, imagenet_labels
from effnet_edge.parity.models.reading import AS_TOLD
from effnet_edge.runtime import EngineRunner
from effnet_edge.targets import TARGETS
from effnet_export.common_ground import (
    FileFacts,
    agreed_output,
    bundles_preprocessing,
    refuse_idle_options,
    refuse_other_network,
    refuse_told_network,
)
from effnet_export.model_files import Openings, kind_of
from effnet_export.served import ServedModels
from effnet_export.specs import (
    TORCH,
    checkpoint_of,
    is_bundle,
    is_model_file,
    is_network,
    is_served,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack

    from effnet_edge.bundle import BatchRange
    from effnet_edge.labels import Label
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.model.source import Source
    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.comparison import Classifier
    from effnet_edge.parity.inside.tracing import Traceable
    from effnet_edge.parity.models.onnx import OnnxClassifier
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.size import Size
    from effnet_export.model_files import FileKind


@dataclass
class Models:
    """The open models of a comparison, and the preprocessing that all of them get.

    `as_probabilities` tells that one ends in a softmax or a sigmoid; `files` how each model file
    was read.
    """

    preprocessing: Preprocessing
    output_kind: OutputKind
    as_probabilities: bool
    files: Sequence[FileFacts]
    labels: tuple[Label, ...]
    reference: Classifier
    candidates: Sequence[Classifier]
    _specs: tuple[str, Sequence[str]]
    _opener: _Opener
    _tracers: dict[str, Traceable] = field(default_factory=dict)

    @property
    def is_binary(self) -> bool:
        """Whether they give a yes or no: one label that holds or not, as far as bundles tell."""
        counts = {bundle.manifest.output.classes for bundle in self._opener.bundles.values()}
        return self.output_kind == "multi-label" and counts <= {1}

    @property
    def classes(self) -> dict[str, int]:
        """Class index by name or WordNet id."""
        return class_indices(self.labels)

    def bundle_of(self, candidate_index: int) -> Bundle | None:
        """The bundle that the candidate is; None for a file, a network or a served model."""
        return self._opener.bundles.get(self._specs[1][candidate_index])

    def served_bundle_of(self, candidate_index: int) -> Bundle | None:
        """The bundle that a server says it has the candidate from, where that is here."""
        return self._opener.served.bundles.get(self._specs[1][candidate_index])

    def shows_tensors(self, candidate_index: int) -> bool:
        """Whether both can be looked into; a server gives answers only."""
        return not any(map(is_served, (self._specs[0], self._specs[1][candidate_index])))

    def batch_of(self, candidate_index: int) -> BatchRange | None:
        """What a call of the candidate takes; None for a PyTorch network, which takes anything."""
        candidate, bundle = self.candidates[candidate_index], self.bundle_of(candidate_index)
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
        reference_spec, specs = self._specs
        candidate = self._tracer(specs[candidate_index], self.candidates[candidate_index])
        if is_network(reference_spec) and checkpoint_of(reference_spec) is None:
            like = self._opener.bundles.get(specs[candidate_index])
            return _named_alike(self._opener.folded(None, self.reference.name, like), candidate)
        return _named_alike(self._tracer(reference_spec, self.reference), candidate)

    def _tracer(self, spec: str, classifier: Classifier) -> Traceable:
        if spec not in self._tracers:
            self._tracers[spec] = self._opener.tracer(spec, classifier)
        return self._tracers[spec]


def open_models(
    reference: str, candidates: Sequence[str], openings: Openings, stack: ExitStack
) -> Models:
    """Open all; engines are closed with `stack`.

    Raises:
        UsageError: a model does not exist, or two want different pixels.
        BundleError, BackendError, CheckpointError: as their texts say.
    """
    specs = list(dict.fromkeys((*candidates, reference)))
    opener = _Opener(specs, openings, stack)
    opened = {spec: opener.model(spec) for spec in specs}
    files = [FileFacts.of(opened[spec], opener.about(spec)) for spec in opener.entrances]
    openings.said.check_outputs([each.output for each in files], list(opener.entrances))
    return Models(
        preprocessing=opener.preprocessing,
        output_kind=agreed_output(opener.bundles, files, openings.network.output_kind),
        as_probabilities=any(each.ending for each in files),
        files=files,
        labels=_labels(opener.bundles, openings),
        reference=opened[reference],
        candidates=[opened[spec] for spec in candidates],
        _specs=(reference, candidates),
        _opener=opener,
    )


class _Opener:
    """Opens the models of one comparison, once it knows what they have in common."""

    def __init__(self, specs: Sequence[str], openings: Openings, stack: ExitStack) -> None:
        refuse_idle_options(specs, openings.network)
        self._specs = specs
        self._openings = openings
        self._stack = stack
        self._sources: dict[str | None, Source] = {}
        told = [spec for spec in specs if is_model_file(spec) or is_served(spec)]
        self._readings = openings.said.readings(told)
        self.bundles = {spec: Bundle.load(spec) for spec in specs if is_bundle(spec)}
        self.served = ServedModels(list(filter(is_served, specs)), openings.asking, stack)
        found = self.served.find_bundles(self.bundles)
        refuse_told_network(openings.network, found)
        self.bundles |= found
        self.manifests = [bundle.manifest for bundle in self.bundles.values()]
        self.entrances = {
            spec: self.served.entrance(spec, reading)
            if is_served(spec)
            else _row(spec).entrance(Path(spec), reading)
            for spec, reading in self._readings.items()
        }
        if self.manifests:
            refuse_other_network(specs, openings.network, self.manifests[0])
        self.preprocessing, told_by = self._preprocessing()
        for spec, entrance in self.entrances.items():
            name = spec if is_served(spec) else Path(spec).name
            entrance.check(name, self.preprocessing, told_by)

    def model(self, spec: str) -> Classifier:
        """The model as it is run."""
        if spec in self.bundles:
            return self._open_bundle(self.bundles[spec])
        if is_network(spec):
            from effnet_edge.parity.models.torch import TorchClassifier

            source = self._source(checkpoint_of(spec))
            return TorchClassifier(source.network, self._pixels_of(source), Path(spec).name)
        reading = self._readings[spec]
        if is_served(spec):
            return self.served.open(spec, self.preprocessing, reading, self._told_kind())
        return _row(spec).open(Path(spec), self.preprocessing, self._openings, reading, None)

    def about(self, spec: str) -> tuple[str, ...]:
        """What is to be told of a model besides how pictures go in."""
        return self.served.about(spec) if is_served(spec) else ()

    def _told_kind(self) -> OutputKind:
        """What bundles or else the options say that the outputs are."""
        if self.manifests:
            return self.manifests[0].output.kind
        return self._openings.network.output_kind

    def tracer(self, spec: str, classifier: Classifier) -> Traceable:
        """The model as one that shows its inner tensors."""
        if is_network(spec):
            return self.folded(checkpoint_of(spec), classifier.name)
        if spec not in self.bundles:
            return classifier  # type: ignore[return-value]  # ONNX files and IRs show theirs
        bundle = self.bundles[spec]
        if _is_compiled(bundle):
            return _simulation(bundle)
        path, openings = bundle.model_path, self._openings
        if openings.precision is None and bundle.manifest.precision == "fp32":
            openings = replace(openings, precision="fp32")
        return _row(path).open(path, self.preprocessing, openings, AS_TOLD, classifier.name)

    def folded(self, checkpoint: str | None, name: str, like: Bundle | None = None) -> Traceable:
        """PyTorch's network with its batch norm folded.

        Args:
            like: an INT8 bundle, whose calibration's factors the network then has.
        """
        from effnet_edge.model.folding import fold_batch_norm
        from effnet_edge.parity.models.torch import TorchClassifier

        source = self._source(checkpoint)
        network = fold_batch_norm(source.network)
        if like is not None and like.manifest.calibration is not None:
            network = _equalized(network, like)
        return TorchClassifier(network, self._pixels_of(source), name)

    def _pixels_of(self, source: Source) -> Preprocessing:
        """The pixels of the comparison, normalized as this network's weights expect."""
        own = source.preprocessing
        return replace(self.preprocessing, mean=own.mean, std=own.std)

    def _open_bundle(self, bundle: Bundle) -> Classifier:
        """The bundle's engine; for TensorRT where it cannot run, a simulation of its graph."""
        if _is_compiled(bundle):
            from effnet_edge.runtime.tensorrt.selection import can_run

            if not can_run(bundle.manifest.target):
                return _simulation(bundle)
        openings = self._openings
        runner = EngineRunner.of(
            bundle,
            device=openings.device,
            threads=openings.threads,
            precision=openings.precision,
        )
        return self._stack.enter_context(runner)

    def _preprocessing(self) -> tuple[Preprocessing, str]:
        """That of the first bundle, network or model file, in this order, and who tells it."""
        if self.manifests:
            return bundles_preprocessing(
                self.manifests
            ), f"the bundle {next(iter(self.bundles))} takes"
        networks = sorted(filter(is_network, self._specs), key=lambda spec: spec != TORCH)
        if networks:
            preprocessing = self._source(checkpoint_of(networks[0])).preprocessing
            return preprocessing, f"the network {networks[0]} takes"
        request, first = self._openings.network, Path(next(iter(self.entrances))).name
        by_options = request.resolution or request.mean or request.std
        return self._asked_preprocessing(), "the options say" if by_options else f"{first} takes"

    def _asked_preprocessing(self) -> Preprocessing:
        """The variant's own, for as many channels and pixels as the model files take."""
        from effnet_edge.model.preprocessing import variant_preprocessing, with_channels
        from effnet_edge.model.variants import get_variant

        request = self._openings.network
        variant, size = get_variant(request.variant), request.resolution or self._size
        ours = variant_preprocessing(variant, size, fit=request.fit)
        told = (each.channels for each in self.entrances.values() if each.channels)
        channels = len(request.mean or request.std or ()) or next(told, len(ours.mean))
        return with_channels(ours, channels, request.mean, request.std)

    @cached_property
    def _size(self) -> Size | None:
        """Of what the first model file takes that says so."""
        sizes = (each.size for each in self.entrances.values())
        return next((size for size in sizes if size is not None), None)

    def _source(self, checkpoint: str | None) -> Source:
        if checkpoint not in self._sources:
            self._sources[checkpoint] = self._load(checkpoint)
        return self._sources[checkpoint]

    def _load(self, checkpoint: str | None) -> Source:
        """The first bundle's own network, or with another checkpoint; else the one asked for."""
        with needed_for(
            "comparing with PyTorch", "export", "or compare with another bundle: --reference BUNDLE"
        ):
            from effnet_edge.model.source import load_source
            from effnet_export.origin import load_source_of, network_request_of
        asked = self._openings.network
        if not self.manifests:
            weights, size = checkpoint or asked.weights, asked.resolution or self._size
            return load_source(replace(asked, weights=weights, resolution=size))
        if checkpoint is None:
            return load_source_of(self.manifests[0], asked.weights)
        bundled = network_request_of(self.manifests[0])
        # Its classes the checkpoint tells; the comparison refuses another number of them.
        return load_source(
            replace(bundled, weights=checkpoint, num_classes=None, padding=asked.padding)
        )


def _row(spec: str | Path) -> FileKind:
    kind = kind_of(Path(spec))
    assert kind is not None
    return kind


def _is_compiled(bundle: Bundle) -> bool:
    return TARGETS[bundle.manifest.target].built_on_device


def _simulation(bundle: Bundle) -> OnnxClassifier:
    """The bundle's graph, with the rounding of its types: also shows the tensors inside."""
    from effnet_edge.parity.models.onnx import OnnxClassifier

    manifest, name = bundle.manifest, bundle.path.name
    return OnnxClassifier(bundle.model_path, manifest.preprocessing, name, rounding=True)


def _equalized(network: EfficientNet, bundle: Bundle) -> EfficientNet:
    """The folded network with the factors that the bundle was calibrated with."""
    from effnet_calibration.quantized import changed
    from effnet_calibration.table import CalibrationTable

    calibration = bundle.manifest.calibration
    assert calibration is not None
    table = CalibrationTable.of_bundle(bundle)
    return changed(network, table.quantization(calibration.scheme).uncorrected())


def _named_alike(reference: Traceable, candidate: Traceable) -> tuple[Traceable, Traceable]:
    """Rename the tensors of the one that is a foreign ONNX model."""
    from effnet_edge.parity.inside.alignment import shares_layers
    from effnet_edge.parity.models.onnx import OnnxClassifier

    if shares_layers(reference, candidate):
        return reference, candidate
    if isinstance(candidate, OnnxClassifier):
        return reference, candidate.named_like(reference)
    if isinstance(reference, OnnxClassifier):
        return reference.named_like(candidate), candidate
    return reference, candidate


def _labels(bundles: Mapping[str, Bundle], openings: Openings) -> tuple[Label, ...]:
    """Of the first bundle; ImageNet's where there is none and the outputs are classes."""
    if bundles:
        return next(iter(bundles.values())).labels or ()
    return () if openings.network.output_kind == "regression" else tuple(imagenet_labels())
