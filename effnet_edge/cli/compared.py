"""Opens the two models of a comparison: the PyTorch network, ONNX files, bundles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

    from effnet_edge.bundle import Manifest
    from effnet_edge.image import Preprocessing
    from effnet_edge.parity.comparison import Classifier

TORCH = "torch"


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


@dataclass(frozen=True)
class Compared:
    """Two open models, the preprocessing that both get, and class index by name or WordNet id."""

    reference: Classifier
    candidate: Classifier
    preprocessing: Preprocessing
    classes: Mapping[str, int]


def open_models(reference: str, candidate: str, openings: Openings, stack: ExitStack) -> Compared:
    """Open both; engines are closed with `stack`.

    Raises:
        UsageError: a model does not exist, or the two want different pixels.
        BundleError, BackendError, CheckpointError: as their texts say.
    """
    runners = {
        spec: stack.enter_context(
            EngineRunner.load(
                spec,
                device=openings.device,
                threads=openings.threads,
                precision=openings.precision,
            )
        )
        for spec in dict.fromkeys((candidate, reference))
        if spec != TORCH and not spec.endswith(".onnx")
    }
    manifests = [runner.manifest for runner in runners.values()]
    preprocessing = _common_preprocessing(manifests, openings)

    def opened(spec: str) -> Classifier:
        if spec in runners:
            return runners[spec]
        if spec == TORCH:
            return _torch(manifests[0] if manifests else None, preprocessing, openings)
        from effnet_edge.parity.classifiers import OnnxClassifier

        return OnnxClassifier(spec, preprocessing)

    classes = _classes(next(iter(runners.values()), None))
    return Compared(opened(reference), opened(candidate), preprocessing, classes)


def _common_preprocessing(manifests: list[Manifest], openings: Openings) -> Preprocessing:
    if not manifests:
        from effnet_edge.model.preprocessing import variant_preprocessing
        from effnet_edge.model.variants import get_variant

        return variant_preprocessing(get_variant(openings.variant or "b0"))
    first = manifests[0].preprocessing
    if any(manifest.preprocessing != first for manifest in manifests):
        raise UsageError(
            "the two bundles prepare pictures differently (resolution, crop or normalization): "
            "compare each with torch instead"
        )
    return first


def _torch(
    manifest: Manifest | None, preprocessing: Preprocessing, openings: Openings
) -> Classifier:
    try:
        from effnet_export.network import load_source, load_source_of
    except ModuleNotFoundError as error:
        raise BackendError(
            f"comparing with PyTorch needs {error.name}: pip install 'effnet-edge[export]', "
            "or compare with another bundle: --reference BUNDLE"
        ) from error
    from effnet_edge.parity.classifiers import TorchClassifier

    source = (
        load_source_of(manifest, openings.weights)
        if manifest
        else load_source(openings.variant or "b0", weights=openings.weights)
    )
    return TorchClassifier(source.network, preprocessing)


def _classes(runner: EngineRunner | None) -> dict[str, int]:
    from effnet_export.labels import class_indices, imagenet_labels

    return class_indices(imagenet_labels() if runner is None else runner.labels or ())
