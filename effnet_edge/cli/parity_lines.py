"""The part of `effnet-edge parity` that writes a line a picture, and goes on after a kill."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from effnet_edge.cli.ending import CtrlC, InterruptionError
from effnet_edge.cli.lines_file import ERROR, PICTURE, LinesFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.comparison import Classifier
    from effnet_edge.parity.study import Compared
    from effnet_export.opening import Models


# What an answer that is not finite has none of; the values of a regression tell it themselves.
_ANSWERED: dict[OutputKind, tuple[str, ...]] = {
    "single-label": ("index", "label", "probability"),
    "multi-label": ("indices",),
    "regression": (),
    "features": (),
}


@contextmanager
def lines_of(
    path: Path | None,
    models: Models,
    specs: tuple[str, Sequence[str]],
    labels: Path | None,
    *,
    resume: bool,
) -> Iterator[Callable[[Compared], None] | None]:
    """What writes the lines of a batch; None without a path.

    Args:
        specs: the reference and the candidates, as they were named on the command line.
        labels: the file that tells the truth of each line, if there is one.

    Raises:
        UsageError: as of `LinesFile`.
    """
    if path is None:
        yield None
        return
    from effnet_edge.bundle.content import sha256

    reference, candidates = specs
    keys = [
        _key(models, spec, model) for spec, model in zip(candidates, models.candidates, strict=True)
    ]
    work = {
        "effnet-edge": "parity",
        "model": [each.name for each in models.candidates],
        "candidates": keys,
        "reference": _key(models, reference, models.reference),
        "output": models.output_kind,
        "as_probabilities": models.as_probabilities,
        # What comes through a pipe can be read once.
        "labels": sha256(labels) if labels is not None and labels.is_file() else None,
    }
    with LinesFile(path, work, resume=resume) as lines:
        yield _Writer(lines, models).write


@contextmanager
def kept_when_interrupted(answers: Path | None, jsonl: Path | None) -> Iterator[None]:
    """Say what Ctrl-C leaves: the answers so far in a folder, or a file with a line a picture.

    Raises:
        InterruptionError: Ctrl-C came, and something is kept.
    """
    try:
        yield
    except KeyboardInterrupt:
        CtrlC.ignore()
        lines = f", and {jsonl} the lines" if jsonl else ""
        if answers is not None and answers.exists():
            raise InterruptionError(
                f"interrupted: {answers} keeps what was answered{lines}: "
                "the same command with --resume goes on"
            ) from None
        if jsonl is not None and jsonl.exists():
            raise InterruptionError(f"interrupted: {jsonl} keeps what was compared") from None
        raise


def kept_candidates(
    folder: Path | None, models: Models, specs: Sequence[str], *, resume: bool
) -> AbstractContextManager[Sequence[Classifier]]:
    """The candidates, in a folder for answers each with those that a killed run left there.

    Served ones are asked again: their servers may have another model by now.
    """
    from effnet_export.recording import resumable
    from effnet_export.specs import is_served

    if folder is None:
        return nullcontext(models.candidates)
    identified = [
        (model, None if is_served(spec) else models.identity_of(spec, model))
        for spec, model in zip(specs, models.candidates, strict=True)
    ]
    return resumable(folder, identified, models.output_kind, resume=resume)


def _key(models: Models, spec: str, model: Classifier) -> str:
    from effnet_edge.parity.models.answer_file import identity_key

    return identity_key(models.identity_of(spec, model))


class _Writer:
    def __init__(self, lines: LinesFile, models: Models) -> None:
        from effnet_edge.parity.measures.metrics import sqnr_db
        from effnet_edge.parity.measures.probabilities import of_probabilities

        self._lines = lines
        self._output: OutputKind = models.output_kind
        self._names = [label.name for label in models.labels]
        likeness = of_probabilities(sqnr_db, self._output) if models.as_probabilities else sqnr_db
        self._likeness = likeness
        self._candidates = [each.name for each in models.candidates]

    def write(self, compared: Compared) -> None:
        """Write a line for each picture of a batch that has none yet."""
        row = 0
        for name, error in compared.outcomes:
            if name in self._lines.done:
                row += error is None
            elif error is not None:
                self._lines.write({PICTURE: name, ERROR: error})
            else:
                self._lines.write({PICTURE: name, **self._told(compared, row)})
                row += 1

    def _told(self, compared: Compared, row: int) -> dict[str, Any]:
        expected, *others = (answers[row] for answers in compared.answers)
        truth = None if compared.labels is None else compared.labels[row]
        return {
            "truth": None if truth is None else truth.tolist(),
            "reference": self._answer(expected),
            "candidates": [
                {
                    "model": name,
                    **self._answer(answer),
                    "sqnr_db": self._likeness(expected[None], answer[None]),
                }
                for name, answer in zip(self._candidates, others, strict=True)
            ],
        }

    def _answer(self, answer: NDArray[np.float32]) -> dict[str, Any]:
        from effnet_edge.parity.measures.metrics import finite_images, given_labels, softmax

        if _ANSWERED[self._output] and not finite_images(answer):
            return dict.fromkeys(_ANSWERED[self._output])
        if self._output == "single-label":
            best = int(answer.argmax())
            label = self._names[best] if best < len(self._names) else f"class {best}"
            return {"index": best, "label": label, "probability": float(softmax(answer)[best])}
        if self._output == "multi-label":
            return {"indices": given_labels(answer).nonzero()[0].tolist()}
        return {"values": answer.tolist()} if self._output == "regression" else {}
