"""`effnet-edge predict`: the best classes of pictures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from effnet_edge.cli.answered import Answered
from effnet_edge.cli.common import (
    common_options,
    complain,
    console,
    print_json,
    progress_bar,
    say,
    settings,
)
from effnet_edge.cli.engine import engine_options
from effnet_edge.cli.lines_file import ERROR, PICTURE, LinesFile
from effnet_edge.cli.lines_options import lines_options
from effnet_edge.cli.picture_arguments import named_pictures
from effnet_edge.cli.signatures import trusted_option
from effnet_edge.errors import EffnetEdgeError, UsageError
from effnet_edge.text import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effnet_edge.cli.answered import Told
    from effnet_edge.pictures.video import Video
    from effnet_edge.runtime import EngineRunner, Estimate, Prediction


@click.command("predict", short_help="Classify pictures with a bundle.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--top",
    type=click.IntRange(1),
    help="Classes shown. [default: 5; of a multi-label bundle all at the threshold]",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Of a multi-label bundle: the least probability of a class. [default: 0.5]",
)
@click.option(
    "--every",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Of a video or a camera: a frame every so many seconds. [default: all frames]",
)
@lines_options
@engine_options
@trusted_option
@common_options
@click.pass_context
def command(
    context: click.Context,
    bundle: Path,
    images: tuple[str, ...],
    top: int | None,
    threshold: float | None,
    every: float | None,
    jsonl: Path | None,
    resume: bool,
    device: str | None,
    threads: int | None,
    precision: str | None,
    trusted: Path | None,
) -> None:
    """Classify each IMAGE with BUNDLE, or tell its values.

    IMAGE is a file, a folder of them, a pattern in quotes, such as 'in/**/*.jpg', a tar archive of
    pictures or a CSV file with a column path.

    It may be a video, too, or a camera, as camera:0. Each frame is answered as it comes, and is
    named by its time in seconds: clip.mp4#t=1.200. Ctrl-C ends it, and a camera has no other end.

    A picture that cannot be used, or has no finite answer, is named on standard error, or has its
    error in the file of --jsonl, and the exit code is then 1.
    """
    from effnet_edge.runtime import EngineRunner

    if resume and jsonl is None:
        raise UsageError("--resume goes with --jsonl FILE: nothing else can be gone on with")
    loaded = EngineRunner.load(
        bundle, device=device, threads=threads, precision=precision, trusted=trusted
    )
    with loaded as runner:
        named = Answered(
            runner,
            named_pictures(images, runner.manifest.input.channels),
            _told_by(runner, top, threshold),
            every,
        )
        named.check(resume=resume, at_the_end=settings().json and jsonl is None)
        if jsonl is None:
            failed = _show(named, best_only=top is None)
        else:
            with LinesFile(jsonl, _work(named, top, threshold), resume=resume) as lines:
                failed = _write(named, lines)
    context.exit(1 if failed else 0)


def _told_by(runner: EngineRunner, top: int | None, threshold: float | None) -> Told:
    """What makes predictions of a picture's answer (classes,) and its name."""
    from effnet_edge.runtime.predictions import Classes, Values

    output = runner.manifest.output
    # With either option `Classes` refuses in words of its own.
    if output.kind == "regression" and top is None and threshold is None:
        return Values(output.kind, output.classes, runner.labels).of
    return Classes(output.kind, runner.labels, top, threshold).of


def _show(named: Answered, *, best_only: bool) -> int:
    """Print the answers to pictures at the end, to frames as they come; how many errors there were.

    Args:
        best_only: of a frame the most probable class alone.
    """
    if settings().json:
        answers, failed = _collected(named)
        _report_json(named.runner, answers)
        return failed
    answers, failed = _collected(named.pictures_alone())
    _report(answers)
    for video in named.videos:
        failed += _show_frames(named, video, best_only=best_only)
    return failed


def _collected(named: Answered) -> tuple[dict[str, Sequence[Prediction | Estimate]], int]:
    """The answers by name, and how many errors there were, which are told as they come."""
    answers: dict[str, Sequence[Prediction | Estimate]] = {}
    failed = 0
    with progress_bar("classifying") as progress:
        for done, (name, answer) in enumerate(named.answers(batch_size=1), start=1):
            if isinstance(answer, EffnetEdgeError):
                failed += 1
                _complain_of(answer)
            else:
                answers[name] = answer
            progress(done, named.total)
    return answers, failed


def _show_frames(named: Answered, video: Video, *, best_only: bool) -> int:
    """Print a line for each frame of a video as it is answered; how many errors there were."""
    done = failed = 0
    for name, answer in named.of_video(video, batch_size=1):
        if isinstance(answer, EffnetEdgeError):
            failed += 1
            _complain_of(answer)
            continue
        done += 1
        told = [f"{_told(each)} {plain(each.label)}" for each in answer]
        single = best_only and named.runner.manifest.output.kind == "single-label"
        line = ", ".join(told[:1] if single else told) or "no class reaches the threshold"
        click.echo(f"{plain(name)}  {line}")
    say(f"{video}: {done} frames answered" + (f", {failed} damaged" if failed else ""))
    return failed


def _complain_of(error: EffnetEdgeError) -> None:
    """Tell it and go on, unless what was asked for makes no sense."""
    if isinstance(error, UsageError):
        raise error
    complain(str(error))


def _work(named: Answered, top: int | None, threshold: float | None) -> dict[str, Any]:
    from effnet_edge.bundle.content import sha256
    from effnet_edge.bundle.manifest import MANIFEST_FILE

    runner = named.runner
    return {
        "effnet-edge": "predict",
        "model": runner.name,
        "bundle": sha256(runner.bundle.path / MANIFEST_FILE),
        "output": runner.manifest.output.kind,
        "device": runner.device,
        "execution_precision": runner.execution_precision,
        "top": top,
        "threshold": threshold,
        "every": named.every,
    }


def _write(named: Answered, lines: LinesFile) -> int:
    """Write a line for each picture that has none; how many of the file's tell an error."""
    before = len(lines.done)
    found = named.answers(named.runner.manifest.batch.optimum, lines.done)
    with progress_bar("classifying") as progress:
        progress(before, named.total)
        for done, (path, answer) in enumerate(found, start=before + 1):
            if isinstance(answer, EffnetEdgeError):
                lines.write({PICTURE: path, ERROR: str(answer)})
            else:
                lines.write({PICTURE: path, "predictions": [asdict(each) for each in answer]})
            progress(done, named.total)
    counts = {"answered": len(lines.done) - lines.failed, "failed": lines.failed}
    if settings().json:
        print_json({"jsonl": str(lines.path), "before": before, **counts})
    else:
        answered = counts["answered"]
        console().print(
            f"{lines.path}: {answered} picture{'' if answered == 1 else 's'} answered, "
            f"{lines.failed} not"
            f"{f', {before} of them before' if before else ''}"
        )
    return lines.failed


def _report_json(runner: EngineRunner, answers: dict[str, Sequence[Prediction | Estimate]]) -> None:
    print_json(
        {
            "bundle": str(runner.bundle.path),
            "output": runner.manifest.output.kind,
            "device": runner.device,
            "execution_precision": runner.execution_precision,
            "images": {
                path: [asdict(prediction) for prediction in predictions]
                for path, predictions in answers.items()
            },
        }
    )


def _report(answers: dict[str, Sequence[Prediction | Estimate]]) -> None:
    from rich.table import Table

    for path, predictions in answers.items():
        table = Table(title=plain(path), title_justify="left", box=None, show_header=False)
        table.add_column(justify="right")
        table.add_column()
        for each in predictions:
            table.add_row(_told(each), plain(each.label))
        if not predictions:
            table.add_row("", "no class reaches the threshold")
        console().print(table)


def _told(each: Prediction | Estimate) -> str:
    """A value has as many digits as tell one float32 from another in practice."""
    from effnet_edge.runtime import Estimate

    return f"{each.value:.6g}" if isinstance(each, Estimate) else f"{100 * each.probability:.1f} %"
