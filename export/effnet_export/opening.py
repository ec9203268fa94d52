"""Opens the models of a comparison: PyTorch's network, model files, bundles, served models."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet_edge.bundle import Bundle
from effnet_edge.errors import UsageError
from effnet_edge.extras import needed_for
from effnet_edge.labels import ClassIndices
from effnet_edge.parity.models.probing import settle_ending
from effnet_edge.parity.models.reading import AS_TOLD
from effnet_edge.runtime import EngineRunner
from effnet_export import recording
from effnet_export.common_ground import (
    FileFacts,
    agreed_output,
    bundles_preprocessing,
    labels_of,
    refuse_idle_options,
    refuse_other_network,
    refuse_told_network,
)
from effnet_export.model_files import Openings, known_kind
from effnet_export.model_names import tell_apart
from effnet_export.model_sizes import model_bytes
from effnet_export.served import ServedModels
from effnet_export.specs import (
    TORCH,
    checkpoint_of,
    is_bundle,
    is_model_file,
    is_network,
    is_recorded,
    is_served,
)
from effnet_export.stand_ins import calibrated_like, is_compiled, named_alike, simulation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack

    from effnet_edge.bundle import BatchRange
    from effnet_edge.labels import Label
    from effnet_edge.model.source import Source
    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.comparison import Classifier
    from effnet_edge.parity.inside.tracing import Traceable
    from effnet_edge.parity.models.recorded import RecordedClassifier
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.size import Size
    from effnet_export.recording import Identity


@dataclass
class Models:
    """The open models of a comparison, and the preprocessing that all of them get.

    `as_probabilities` tells that one ends in a softmax or a sigmoid; `files` how each model file
    was read. `reference` may have its answers on file.
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
        return ClassIndices(self.labels)

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

    def identity_of(self, spec: str, model: Classifier) -> Identity:
        """What answers of the model are known by, as it was named on the command line."""
        known = getattr(model, "answerer", None)
        return known.identity if known else self._opener.identity(spec, model)

    @property
    def running_reference(self) -> Classifier:
        """The reference itself; raises UsageError where only its answers are here."""
        from effnet_edge.parity.models.recorded import RecordedClassifier

        if isinstance(self.reference, RecordedClassifier):
            return self.reference.model
        return self.reference

    def layer_pair(self, candidate_index: int) -> tuple[Traceable, Traceable]:
        """Reference and candidate as models whose inner tensors can be seen, under common names.

        PyTorch comes with its batch norm folded and, against a calibrated bundle, with all that the
        calibration decided but for the rounding: with the tensors that the engine has.
        """
        reference_spec, specs = self._specs
        candidate = self._tracer(specs[candidate_index], self.candidates[candidate_index])
        if is_network(reference_spec) and checkpoint_of(reference_spec) is None:
            like = self._opener.bundles.get(specs[candidate_index])
            return named_alike(self._opener.folded(None, self.reference.name, like), candidate)
        return named_alike(self._tracer(reference_spec, self.running_reference), candidate)

    def _tracer(self, spec: str, classifier: Classifier) -> Traceable:
        if spec not in self._tracers:
            self._tracers[spec] = self._opener.tracer(spec, classifier)
        return self._tracers[spec]


def open_models(
    reference: str,
    candidates: Sequence[str],
    openings: Openings,
    stack: ExitStack,
    answers: Path | None = None,
) -> Models:
    """Open all; engines are closed with `stack`.

    Args:
        answers: folder where the reference's answers are kept. PyTorch's network of a bundle is
            then opened only where they do not suffice, or to check a checkpoint that is named.

    Raises:
        UsageError: a model does not exist, or two want different pixels.
        BundleError, BackendError, CheckpointError: as their texts say.
    """
    for spec in filter(is_recorded, candidates):
        raise UsageError(f"{spec} has the answers of a model: give it as --reference")
    specs = list(dict.fromkeys((*candidates, reference)))
    opener = _Opener(reference, specs, openings, stack)
    lazy = answers is not None and opener.is_told_by_bundle(reference)
    opened = {spec: opener.model(spec) for spec in specs if not (lazy and spec == reference)}
    tell_apart(opened)
    recorded = {spec: each.answerer for spec, each in opener.recorded.items()}
    kinds = {spec: each.output for spec, each in recorded.items()}
    output_kind, files = opener.settle_endings(opened, kinds)
    openings.said.check_outputs([each.output for each in files], list(opener.entrances))
    if answers is not None and reference not in (*candidates, *recorded):
        opened[reference] = opener.kept(reference, opened.get(reference), answers, output_kind)
    return Models(
        preprocessing=opener.preprocessing,
        output_kind=output_kind,
        as_probabilities=any(each.ending for each in files)
        or any(each.as_probabilities for each in recorded.values()),
        files=files,
        labels=labels_of(opener.bundles, openings.network.output_kind),
        reference=opened[reference],
        candidates=[opened[spec] for spec in candidates],
        _specs=(reference, candidates),
        _opener=opener,
    )


class _Opener:
    """Opens the models of one comparison, once it knows what they have in common."""

    def __init__(
        self, reference: str, specs: Sequence[str], openings: Openings, stack: ExitStack
    ) -> None:
        refuse_idle_options(specs, openings.network)
        self._reference, self._specs = reference, specs
        self._openings, self._stack = openings, stack
        self._sources: dict[str | None, Source] = {}
        told = [spec for spec in specs if is_model_file(spec) or is_served(spec)]
        self._readings = openings.said.readings(told)
        self.bundles = {spec: Bundle.load(spec).of_one_graph() for spec in specs if is_bundle(spec)}
        self.served = ServedModels(list(filter(is_served, specs)), openings.asking, stack)
        found = self.served.find_bundles(self.bundles)
        refuse_told_network(openings.network, found)
        self.bundles |= found
        manifests = {spec: bundle.manifest for spec, bundle in self.bundles.items()}
        self.manifests = list(manifests.values())
        self.entrances = {
            spec: self.served.entrance(spec, reading)
            if is_served(spec)
            else known_kind(spec).entrance(Path(spec), reading)
            for spec, reading in self._readings.items()
        }
        if self.manifests:
            refuse_other_network(specs, openings.network, self.manifests[0])
        self.preprocessing, told_by = self._preprocessing()
        for spec, entrance in self.entrances.items():
            name = spec if is_served(spec) else Path(spec).name
            entrance.check(name, self.preprocessing, told_by)
        self.recorded = {
            spec: recording.answers_alone(Path(spec), manifests, self.preprocessing)
            for spec in filter(is_recorded, specs)
        }

    def model(self, spec: str) -> Classifier:
        """The model as it is run."""
        if spec in self.recorded:
            return self.recorded[spec]
        if spec in self.bundles:
            return self._open_bundle(self.bundles[spec])
        if is_network(spec):
            from effnet_edge.parity.models.torch import TorchClassifier

            source = self._source(checkpoint_of(spec))
            return TorchClassifier(source.network, self._pixels_of(source), Path(spec).name)
        reading = self._readings[spec]
        if is_served(spec):
            return self.served.open(spec, self.preprocessing, reading)
        openings = replace(self._openings, exact=spec == self._reference)
        return known_kind(spec).open(Path(spec), self.preprocessing, openings, reading, None)

    def is_told_by_bundle(self, spec: str) -> bool:
        """Whether it is PyTorch's network that the first bundle tells, weights included."""
        told = bool(self.manifests) and self._openings.network.weights is None
        return told and is_network(spec) and checkpoint_of(spec) is None

    def kept(
        self, spec: str, model: Classifier | None, folder: Path, output_kind: OutputKind
    ) -> RecordedClassifier:
        """The model, None where it is to be opened when it is needed, with its answers on file."""
        if is_served(spec):
            raise UsageError(
                f"--answers: the answers of {spec} are not kept, as its server may give others "
                "tomorrow: leave --answers out, or give another --reference"
            )

        def describe(opened: Classifier) -> tuple[OutputKind, bool, int | None]:
            ends = getattr(getattr(opened, "way_out", None), "ending", None) is not None
            return output_kind, ends, model_bytes(spec, opened, self.bundles.get(spec))

        whose, name = self.identity(spec, model), model.name if model else spec
        kept = recording.kept_answers(
            folder, name, whose, lambda: model or self.model(spec), describe
        )
        self._stack.callback(kept.close)
        return kept

    def identity(self, spec: str, model: Classifier | None) -> Identity:
        """What its answers are known by; see `kept`."""
        if model is None:
            return recording.identity_of_manifest(self.manifests[0])
        if is_network(spec):
            source = self._source(checkpoint_of(spec))
            return recording.identity_of_source(source, self._pixels_of(source))
        if spec in self.bundles:
            return recording.identity_of_bundle(self.bundles[spec], model, self._openings.threads)
        if is_served(spec):
            return self.served.identity(spec, self.preprocessing)
        reading = self._readings[spec]
        return recording.identity_of_file(
            known_kind(spec).files(Path(spec)), model, reading, self.preprocessing
        )

    def about(self, spec: str) -> tuple[str, ...]:
        """What is to be told of a model besides how pictures go in."""
        return self.served.about(spec) if is_served(spec) else ()

    def settle_endings(
        self, opened: Mapping[str, Any], kinds: Mapping[str, OutputKind]
    ) -> tuple[OutputKind, list[FileFacts]]:
        """What the numbers of all models mean, `kinds` being told, and how each file was read."""
        asked = self._openings.network.output_kind
        facts = [FileFacts.of(opened[spec], self.about(spec)) for spec in self.entrances]
        agreed = agreed_output(self.bundles, facts, kinds, asked)
        for spec, reading in self._readings.items():
            settle_ending(opened[spec], self.preprocessing, agreed, reading.ending)
        facts = [FileFacts.of(opened[spec], self.about(spec)) for spec in self.entrances]
        return agreed_output(self.bundles, facts, kinds, asked), facts

    def tracer(self, spec: str, classifier: Classifier) -> Traceable:
        """The model as one that shows its inner tensors."""
        if is_network(spec):
            return self.folded(checkpoint_of(spec), classifier.name)
        if spec not in self.bundles:
            return classifier  # type: ignore[return-value]  # ONNX files and IRs show theirs
        bundle = self.bundles[spec]
        if is_compiled(bundle):
            return simulation(bundle)
        path = bundle.model_path
        openings = replace(self._openings, exact=bundle.manifest.precision == "fp32")
        return known_kind(path).open(path, self.preprocessing, openings, AS_TOLD, classifier.name)

    def folded(self, checkpoint: str | None, name: str, like: Bundle | None = None) -> Traceable:
        """PyTorch's network with its batch norm folded.

        Args:
            like: a bundle whose calibration the network then has, not rounded.
        """
        from effnet_edge.model.folding import fold_batch_norm
        from effnet_edge.parity.models.torch import TorchClassifier

        source = self._source(checkpoint)
        network = fold_batch_norm(source.network)
        if like is not None and like.manifest.calibration is not None:
            network = calibrated_like(network, like)
        return TorchClassifier(network, self._pixels_of(source), name)

    def _pixels_of(self, source: Source) -> Preprocessing:
        """The pixels of the comparison, normalized as this network's weights expect."""
        own = source.preprocessing
        return replace(self.preprocessing, mean=own.mean, std=own.std)

    def _open_bundle(self, bundle: Bundle) -> Classifier:
        """The bundle's engine; for TensorRT where it cannot run, a simulation of its graph."""
        if is_compiled(bundle):
            from effnet_edge.runtime.tensorrt.fitting import can_run

            if not can_run(bundle.manifest.target):
                return simulation(bundle)
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
            told_by = f"the bundle {next(iter(self.bundles))} takes"
            return bundles_preprocessing(self.manifests), told_by
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
        told = asdict(asked.conventions)
        return load_source(replace(bundled, weights=checkpoint, num_classes=None, **told))
