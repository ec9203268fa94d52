"""A model whose answers are on file: it runs only for pictures that have none yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.parity.comparison import logits_of
from effnet_edge.parity.models.answer_file import picture_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from effnet_edge.parity.comparison import Classifier
    from effnet_edge.parity.models.answer_file import AnswerFile


class RecordedClassifier:
    """Answers from a file, and adds to it what it has not.

    Args:
        file: to be written, where there is a model.
        open_model: opens the model itself, the first time that it is needed; None where there are
            only the answers.
    """

    def __init__(self, file: AnswerFile, open_model: Callable[[], Classifier] | None) -> None:
        self._file = file
        self._open = open_model
        self._model: Classifier | None = None
        self.answerer = file.answerer
        self.name = file.answerer.name
        self.execution_precision = file.answerer.execution_precision
        self.model_bytes = file.answerer.model_bytes

    @property
    def model(self) -> Classifier:
        """The model itself.

        Raises:
            UsageError: there are only its answers.
        """
        if self._model is None:
            if self._open is None:
                raise UsageError(
                    f"{self._file.path} has answers alone: this needs the model itself: give it as "
                    "--reference"
                )
            self._model = self._open()
        return self._model

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """uint8 images (N, H, W, C) → float32 answers (N, outputs).

        Raises:
            UsageError: a picture has no answer, and there is no model to ask.
            BackendError: the model gives another number of outputs than before.
        """
        keys = [picture_key(pixels) for pixels in batch]
        self._answer(batch, keys)
        return np.stack([self._file.get(key) for key in keys])

    def close(self) -> None:
        """Let another run write the file."""
        self._file.close()

    def _answer(self, batch: NDArray[np.uint8], keys: list[bytes]) -> None:
        # By key: a picture may be twice in a batch.
        missing = {key: at for at, key in enumerate(keys) if key not in self._file}
        if not missing:
            return
        if self._open is None:
            raise UsageError(
                f"{self._file.path} has no answer to {len(missing)} of these {len(keys)} pictures: "
                "record the answers to the same pictures, decoded by the same libraries"
            )
        answers = logits_of(self.model, batch[list(missing.values())])
        if answers.shape[1] != self.answerer.outputs:
            raise BackendError(
                f"{self.name} gives {answers.shape[1]} outputs, and {self.answerer.outputs} "
                f"in {self._file.path}: delete the file"
            )
        for key, answer in zip(missing, answers, strict=True):
            self._file.add(key, answer)
