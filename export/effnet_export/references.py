"""What the nodes of a fleet are asked: prepared pictures, and the answers of the originals.

These run here, or not at all where their answers are recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.extras import needed_for
from effnet_edge.fleet.question import Question, make_question
from effnet_edge.parity.models.answer_file import Answerer, AnswerFile, identity_key
from effnet_export.recording import answers_alone, identity_of_manifest, kept_answers
from effnet_export.specs import TORCH

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from effnet_edge.bundle import Bundle, Manifest
    from effnet_edge.parity.comparison import Classifier
    from effnet_edge.parity.models.recorded import RecordedClassifier
    from effnet_edge.pictures.protocol import Pictures


class Questions:
    """One question for each network of a plan, made when it is first needed.

    Args:
        pictures: gives those that a bundle is compared on.
        answers: a file of recorded answers, or the folder that they are kept in.
    """

    def __init__(self, pictures: Callable[[Bundle], Pictures], answers: Path) -> None:
        self._pictures = pictures
        self._answers = answers
        self._made: dict[str, Question] = {}

    def of(self, bundle: Bundle) -> Question:
        """What a bundle is asked.

        Raises:
            UsageError: pictures or answers are not there, or do not fit the bundle.
            BackendError: the original must run, and PyTorch is not installed.
            CheckpointError: its checkpoint does not fit.
        """
        key = identity_key(identity_of_manifest(bundle.manifest))
        if key not in self._made:
            self._made[key] = self._make(bundle)
        return self._made[key]

    def _make(self, bundle: Bundle) -> Question:
        manifest = bundle.manifest
        reference, answerer = self._reference(bundle.name, manifest)
        try:
            return make_question(
                self._pictures(bundle), manifest.preprocessing, reference, answerer
            )
        finally:
            reference.close()

    def _reference(self, name: str, manifest: Manifest) -> tuple[RecordedClassifier, Answerer]:
        if self._answers.is_file():
            reference = answers_alone(self._answers, {name: manifest}, manifest.preprocessing)
            return reference, AnswerFile(self._answers).answerer
        identity, output = identity_of_manifest(manifest), manifest.output
        reference = kept_answers(
            self._answers,
            TORCH,
            identity,
            lambda: _original(manifest),
            lambda model: (output.kind, False, getattr(model, "model_bytes", None)),
        )
        answerer = Answerer(
            reference.name,
            reference.execution_precision,
            output.kind,
            output.classes,
            False,
            reference.model_bytes,
            identity,
        )
        return reference, answerer


def _original(manifest: Manifest) -> Classifier:
    with needed_for("running the original", "export", "or name its recorded answers in [pictures]"):
        from effnet_edge.parity.models.torch import TorchClassifier
        from effnet_export.origin import load_source_of

        network = load_source_of(manifest).network
    return TorchClassifier(network, manifest.preprocessing, TORCH)
