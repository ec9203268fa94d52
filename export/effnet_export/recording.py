"""The answers of a comparison's reference, kept on file: which model they are of, and where."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.bundle.content import sha256
from effnet_edge.bundle.manifest import MANIFEST_FILE
from effnet_edge.errors import UsageError
from effnet_edge.extras import installed_versions
from effnet_edge.parity.comparison import logits_of
from effnet_edge.parity.models.answer_file import (
    ANSWERS,
    Answerer,
    AnswerFile,
    identity_key,
    remove,
)
from effnet_edge.parity.models.recorded import RecordedClassifier
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from effnet_edge.bundle import Bundle, Manifest
    from effnet_edge.model.source import Source
    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.comparison import Classifier
    from effnet_edge.parity.models.reading import Reading
    from effnet_edge.pictures.image import Preprocessing

_NETWORK = "network"
_ENGINES = tuple(each.package for each in TARGETS.values())

_UNFINISHED = ".unfinished"

Identity = dict[str, Any]


def identity_of_manifest(manifest: Manifest) -> Identity:
    """Of the network that a bundle was made from, as `identity_of_source` gives it."""
    return plain(
        {
            "kind": _NETWORK,
            "variant": manifest.variant,
            "weights": manifest.weights.sha256,
            "outputs": manifest.output.classes,
            "output": manifest.output.kind,
            "padding": manifest.padding,
            "batch_norm_eps": manifest.batch_norm_eps,
            "pooling": manifest.pooling,
            "activation": manifest.activation,
            "preprocessing": asdict(manifest.preprocessing),
        }
    )


def identity_of_source(source: Source, preprocessing: Preprocessing) -> Identity:
    """Of a network with its weights, and the pixels that it gets here."""
    network = source.network
    return plain(
        {
            "kind": _NETWORK,
            "variant": network.variant.name,
            "weights": source.weights.sha256,
            "outputs": network.output_size,
            "output": network.output_kind,
            "padding": network.padding,
            "batch_norm_eps": network.batch_norm_eps,
            "pooling": network.pooling,
            "activation": network.activation,
            "preprocessing": asdict(preprocessing),
        }
    )


def identity_of_bundle(bundle: Bundle, model: Classifier, threads: int | None) -> Identity:
    """Of a bundle's engine as it runs here: its files, the device and the library's version."""
    package = TARGETS[bundle.manifest.target].package
    return plain(
        {
            "kind": "bundle",
            "manifest": sha256(bundle.path / MANIFEST_FILE),
            "device": getattr(model, "device", None),
            "threads": threads,
            "execution_precision": model.execution_precision,
            "library": installed_versions((package,)),
            "preprocessing": asdict(bundle.manifest.preprocessing),
        }
    )


def identity_of_file(
    files: AbstractSet[Path], model: Classifier, reading: Reading, preprocessing: Preprocessing
) -> Identity:
    """Of a model file with those that its weights are in, and how it is read.

    Each is known by its place beside the others: in several folders some may have the same name.
    """
    common = os.path.commonpath([file.parent for file in files])
    return plain(
        {
            "kind": "file",
            "files": {
                file.relative_to(common).as_posix(): sha256(file)
                for file in files
                if file.is_file()
            },
            "reading": asdict(reading),
            "execution_precision": model.execution_precision,
            "library": installed_versions(_ENGINES),
            "preprocessing": asdict(preprocessing),
        }
    )


def kept_answers(
    folder: Path,
    name: str,
    identity: Identity,
    open_model: Callable[[], Classifier],
    describe: Callable[[Classifier], tuple[OutputKind, bool, int | None]],
) -> RecordedClassifier:
    """The model with its answers in a file of the folder, made if it is not there.

    Args:
        open_model: is called at once only where there is no such file.
        describe: tells the kind of output of a model, whether it ends in a softmax or a sigmoid,
            and its size in bytes.

    Raises:
        UsageError: the file cannot be written, is in use or of another model.
    """
    path = folder / answers_name(name, identity)
    if path.exists():
        file = AnswerFile(path, writable=True)
        if file.answerer.identity != identity:
            raise UsageError(f"{path} has answers of another model than {name}: delete it")
        return RecordedClassifier(file, open_model)
    model = open_model()
    kind, as_probabilities, size = describe(model)
    answerer = Answerer(
        model.name,
        model.execution_precision,
        kind,
        _outputs(model, identity),
        as_probabilities,
        size,
        identity,
    )
    return RecordedClassifier(AnswerFile.opened_for(path, answerer), lambda: model)


@contextmanager
def resumable(
    folder: Path,
    models: Sequence[tuple[Classifier, Identity | None]],
    output: OutputKind,
    *,
    resume: bool,
) -> Iterator[list[Classifier]]:
    """The candidates, each with its answers in a file of the folder until the block has ended.

    What a block that was killed or raised left there is gone on with where `resume`; otherwise it
    is deleted. So no finished comparison is ever one of answers from an earlier one. Those of a
    model without an identity are not kept.
    """
    opened: dict[Path, RecordedClassifier] = {}
    running: list[Classifier] = []
    with ExitStack() as stack:
        for model, identity in models:
            if identity is None:
                running.append(model)
                continue
            path = folder / answers_name(model.name, identity, _UNFINISHED)
            if path not in opened:
                if not resume:
                    remove(path)
                file = AnswerFile.opened_for(path, _answerer(model, identity, output))
                stack.callback(file.close)
                opened[path] = RecordedClassifier(file, partial(_same, model))
            running.append(opened[path])
        yield running
        for path in opened:
            remove(path)


def _answerer(model: Classifier, identity: Identity, output: OutputKind) -> Answerer:
    outputs = _outputs(model, identity)
    return Answerer(model.name, model.execution_precision, output, outputs, False, None, identity)


def _same(model: Classifier) -> Classifier:
    return model


def _outputs(model: Classifier, identity: Identity) -> int:
    resolution = identity["preprocessing"]["resolution"]
    channels = len(identity["preprocessing"]["mean"])
    blank = np.zeros((1, resolution["height"], resolution["width"], channels), np.uint8)
    return int(logits_of(model, blank).shape[1])


def answers_name(name: str, identity: Identity, state: str = "") -> str:
    """What the file of a model's answers is called: its name, and the first digits of its key."""
    return f"{Path(name).stem or name}-{identity_key(identity)[:16]}{state}{ANSWERS}"


def answers_alone(
    path: Path, manifests: Mapping[str, Manifest], preprocessing: Preprocessing
) -> RecordedClassifier:
    """The reference of which only the answers are here.

    Raises:
        UsageError: they cannot be read, are of another network than a bundle's, or of other pixels.
    """
    file = AnswerFile(path)
    identity = file.answerer.identity
    if identity.get("preprocessing") != plain(asdict(preprocessing)):
        raise UsageError(
            f"{path}: the answers are to pictures that were prepared otherwise (resolution, crop "
            "or normalization) than the models here take: record the answers for these"
        )
    for spec, manifest in manifests.items():
        own = identity_of_manifest(manifest)
        if identity.get("kind") == _NETWORK and identity != own:
            differs = next(key for key in own if identity.get(key) != own[key])
            raise UsageError(
                f"{path} has the answers of another network than the one that {spec} was made "
                f"from ({differs} differs): record those of its own with parity --answers"
            )
    return RecordedClassifier(file, None)


def plain(identity: Identity) -> Identity:
    """Give it as it is read again from JSON: with lists for tuples."""
    plain: Identity = json.loads(json.dumps(identity))
    return plain
