"""What `effnet-edge predict` prints or writes of answers, as they come."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from effnet_edge.cli.common import (
    UntilInterrupted,
    complain,
    console,
    print_json,
    progress_bar,
    say,
    settings,
)
from effnet_edge.cli.ending import CtrlC
from effnet_edge.cli.lines_file import ERROR, PICTURE
from effnet_edge.errors import EffnetEdgeError, UsageError
from effnet_edge.text import plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from effnet_edge.cli.answered import Answered
    from effnet_edge.cli.lines_file import LinesFile
    from effnet_edge.pictures.video import Video
    from effnet_edge.progress import Steps
    from effnet_edge.runtime import Estimate, Prediction


@dataclass
class Outcome:
    """How many pictures and frames have an answer, how many an error, and whether Ctrl-C came."""

    answered: int = 0
    failed: int = 0
    interrupted: bool = False


def show(named: Answered, *, best_only: bool) -> Outcome:
    """Print each answer as it comes: of a picture some lines, of a frame one.

    Args:
        best_only: of a frame the most probable class alone.
    """
    outcome = Outcome()
    with UntilInterrupted() as until, _progress_beside_answers() as progress:
        for done, (name, answer) in enumerate(named.of_pictures(), start=1):
            if isinstance(answer, EffnetEdgeError):
                _count_error(outcome, answer, named)
            else:
                outcome.answered += 1
                _print(_lines_of(name, answer))
            progress(done, named.total)
        for video in named.videos:
            _show_frames(named, video, outcome, best_only=best_only)
    outcome.interrupted = until.interrupted
    return outcome


def print_document(named: Answered) -> Outcome:
    """Print all answers as one JSON document at the end, or at Ctrl-C what there is."""
    outcome = Outcome()
    images: dict[str, Any] = {}
    with UntilInterrupted() as until, progress_bar("classifying") as progress:
        for done, (name, answer) in enumerate(named.answers(), start=1):
            if isinstance(answer, EffnetEdgeError):
                _count_error(outcome, answer, named)
                images[name] = {ERROR: str(answer)}
            else:
                told = [asdict(each) for each in answer]
                with CtrlC.held():
                    outcome.answered += 1
                    images[name] = told
            progress(done, named.total)
    outcome.interrupted = until.interrupted
    runner = named.runner
    print_json(
        {
            "bundle": str(runner.bundle.path),
            "output": runner.manifest.output.kind,
            "device": runner.device,
            "execution_precision": runner.execution_precision,
            "interrupted": outcome.interrupted,
            "images": images,
        }
    )
    return outcome


def write(named: Answered, lines: LinesFile) -> Outcome:
    """Write a line for each picture that has none; the outcome is of all the file's lines."""
    before = len(lines.done)
    with UntilInterrupted() as until, progress_bar("classifying") as progress:
        progress(before, named.total)
        for done, (path, answer) in enumerate(named.answers(lines.done), start=before + 1):
            if isinstance(answer, EffnetEdgeError):
                complain(str(answer))
                lines.write({PICTURE: path, ERROR: str(answer)})
            else:
                lines.write({PICTURE: path, "predictions": [asdict(each) for each in answer]})
            progress(done, named.total)
    answered = len(lines.done) - lines.failed
    if settings().json:
        counts = {"answered": answered, "failed": lines.failed}
        print_json({"jsonl": str(lines.path), "before": before, **counts})
    else:
        console().print(
            f"{lines.path}: {answered} picture{'' if answered == 1 else 's'} answered, "
            f"{lines.failed} not"
            f"{f', {before} of them before' if before else ''}"
        )
    return Outcome(answered, lines.failed, until.interrupted)


def _progress_beside_answers() -> AbstractContextManager[Steps]:
    """A bar, unless the answers themselves show on a terminal how far it is."""
    if sys.stdout is not None and sys.stdout.isatty():
        return nullcontext(lambda _done, _total: None)
    return progress_bar("classifying")


def _print(lines: str) -> None:
    """On standard output at once, in its own encoding, also while a bar has taken its place."""
    print(lines, file=getattr(sys.stdout, "rich_proxied_file", sys.stdout), flush=True)


def _show_frames(named: Answered, video: Video, outcome: Outcome, *, best_only: bool) -> None:
    """Print a line for each frame of a video as it is answered."""
    before = Outcome(outcome.answered, outcome.failed)
    single = best_only and named.runner.manifest.output.kind == "single-label"
    for name, answer in named.of_video(video, batch_size=1):
        if isinstance(answer, EffnetEdgeError):
            _count_error(outcome, answer, named)
            continue
        outcome.answered += 1
        told = [f"{_told(each)} {plain(each.label)}" for each in answer]
        line = ", ".join(told[:1] if single else told) or "no class reaches the threshold"
        _print(f"{plain(name)}  {line}")
    failed = outcome.failed - before.failed
    say(
        f"{video}: {outcome.answered - before.answered} frames answered"
        + (f", {failed} damaged" if failed else "")
    )


def _count_error(outcome: Outcome, error: EffnetEdgeError, named: Answered) -> None:
    """Tell it and go on, unless nothing else was asked for, and that makes no sense."""
    if isinstance(error, UsageError) and named.total == 1:
        raise error
    outcome.failed += 1
    complain(str(error))


def _lines_of(name: str, answer: Sequence[Prediction | Estimate]) -> str:
    """The picture's name, and below it a line for each class or value, one under the other."""
    values = [_told(each) for each in answer]
    width = max(map(len, values), default=0)
    labels = [plain(each.label) for each in answer]
    rows = [f" {value:>{width}}  {label}" for value, label in zip(values, labels, strict=True)]
    return "\n".join([plain(name), *(rows or ["   no class reaches the threshold"])])


def _told(each: Prediction | Estimate) -> str:
    """A value has as many digits as tell one float32 from another in practice."""
    from effnet_edge.runtime import Estimate

    return f"{each.value:.6g}" if isinstance(each, Estimate) else f"{100 * each.probability:.1f} %"
