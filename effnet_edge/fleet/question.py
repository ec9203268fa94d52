"""What every node is asked of one network: prepared pictures, and what the reference answers."""

from __future__ import annotations

import hashlib
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.errors import UsageError
from effnet_edge.parity.models.answer_file import AnswerFile, picture_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from effnet_edge.parity.models.answer_file import Answerer
    from effnet_edge.parity.models.recorded import RecordedClassifier
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Batch, Labels, Outcome, Pictures

PIXELS, LABELS, REFERENCE = "pixels.npy", "labels.npy", "reference.answers"
_STEP = 64


@dataclass(frozen=True)
class Question:
    """As it is sent: `files` by name, where the pictures are from, those that cannot be read.

    `digest` tells it from every other question, in hexadecimal.
    """

    files: Mapping[str, bytes]
    image_source: str
    skipped: tuple[str, ...]
    digest: str


def make_question(
    pictures: Pictures,
    preprocessing: Preprocessing,
    reference: RecordedClassifier,
    answerer: Answerer,
) -> Question:
    """Prepare the pictures here, so that all nodes get the same pixels, and look the answers up.

    Raises:
        UsageError: none can be read, or the reference has no answer to one and cannot be asked.
    """
    skipped: list[str] = []
    pixels, answers, labels = [], [], []
    for batch, of_batch in pictures.batches(preprocessing, _STEP, skipped):
        pixels.append(batch)
        answers.append(reference.infer(batch))
        if of_batch is not None:
            labels.append(of_batch)
    if not pixels:
        raise UsageError(f"{pictures.source}: none of its {len(pictures)} pictures can be read")
    whole = np.concatenate(pixels)
    files = {
        PIXELS: _saved(whole),
        REFERENCE: _answers(answerer, whole, np.concatenate(answers)),
    }
    if labels:
        files[LABELS] = _saved(np.concatenate(labels))
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(hashlib.sha256(files[name]).digest())
    return Question(files, pictures.source, tuple(skipped), digest.hexdigest())


@dataclass(frozen=True)
class SentPictures:
    """Pictures that came prepared: uint8 (N, H, W, C), and a label a picture, or None."""

    pixels: NDArray[np.uint8]
    truth: Labels | None
    source: str
    unread: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[int, ...] | None:
        """None: the labels go with the batches."""
        return None

    def __len__(self) -> int:
        return len(self.pixels) + len(self.unread)

    def subset(self, count: int) -> SentPictures:
        """The first `count`."""
        truth = None if self.truth is None else self.truth[:count]
        return SentPictures(self.pixels[:count], truth, self.source)

    def batches(
        self,
        preprocessing: Preprocessing,
        batch_size: int,
        skipped: list[str] | None = None,
        outcomes: list[Outcome] | None = None,
    ) -> Iterator[Batch]:
        """As they came; those that could not be read where they were prepared are told again."""
        del preprocessing, outcomes  # nobody here knows what they are called
        if skipped is not None:
            skipped.extend(self.unread)
        for start in range(0, len(self.pixels), batch_size):
            part = slice(start, start + batch_size)
            yield self.pixels[part], None if self.truth is None else self.truth[part]


def _saved(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _answers(answerer: Answerer, pixels: NDArray[np.uint8], answers: NDArray[np.float32]) -> bytes:
    """A file of answers to these pictures alone."""
    with tempfile.TemporaryDirectory(prefix="effnet-edge-fleet-") as room:
        path = Path(room) / REFERENCE
        file = AnswerFile.opened_for(path, answerer)
        try:
            for picture, answer in zip(pixels, answers, strict=True):
                if (key := picture_key(picture)) not in file:
                    file.add(key, answer)
        finally:
            file.close()
        return path.read_bytes()
