"""`effnet-edge predict`: the best classes of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from effnet_edge.cli import answer_output
from effnet_edge.cli.answered import Answered
from effnet_edge.cli.common import common_options, complain, settings
from effnet_edge.cli.ending import INTERRUPTED
from effnet_edge.cli.engine import engine_options
from effnet_edge.cli.lines_file import LinesFile
from effnet_edge.cli.lines_options import lines_options
from effnet_edge.cli.numbers import Count, Number
from effnet_edge.cli.picture_arguments import named_pictures
from effnet_edge.cli.signatures import trusted_option
from effnet_edge.errors import UsageError
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from effnet_edge.cli.answer_output import Outcome
    from effnet_edge.cli.answered import Told
    from effnet_edge.cli.picture_arguments import Named
    from effnet_edge.runtime import EngineRunner


@click.command("predict", short_help="Classify pictures with a bundle.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--top",
    type=Count(1),
    help="Classes shown. [default: 5; of a multi-label bundle all at the threshold]",
)
@click.option(
    "--threshold",
    type=Number(0, 1),
    help="Of a multi-label bundle: the least probability of a class. [default: 0.5]",
)
@click.option(
    "--every",
    type=Number(0, min_open=True),
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

    Answers are printed as they come, in the order of the pictures. One that cannot be used, or has
    no finite answer, is named on standard error and with --json and --jsonl has its error in the
    place of its answer; the others are answered, and the exit code is then 1. Ctrl-C keeps what was
    answered.
    """
    from effnet_edge.bundle import Bundle
    from effnet_edge.bundle.signing import TrustedKey
    from effnet_edge.runtime import EngineRunner

    if resume and jsonl is None:
        raise UsageError("--resume goes with --jsonl FILE: nothing else can be gone on with")
    read = Bundle.load(bundle, trusted=None if trusted is None else TrustedKey(trusted))
    pictures = named_pictures(images, read.manifest.input.channels)
    throughput = TARGETS[read.manifest.target].has_streams and _may_wait(pictures)
    loaded = EngineRunner.of(
        read, device=device, threads=threads, precision=precision, throughput=throughput
    )
    with loaded as runner:
        named = Answered(runner, pictures, _told_by(runner, top, threshold), every)
        named.check(resume=resume, at_the_end=settings().json and jsonl is None)
        if jsonl is not None:
            with LinesFile(jsonl, _work(named, top, threshold), resume=resume) as lines:
                outcome = answer_output.write(named, lines)
        elif settings().json:
            outcome = answer_output.print_document(named)
        else:
            outcome = answer_output.show(named, best_only=top is None)
    if outcome.interrupted:
        complain(_told_interruption(outcome, jsonl))
        context.exit(INTERRUPTED)
    context.exit(1 if outcome.failed else 0)


def _may_wait(pictures: Mapping[str, Named]) -> bool:
    """Whether there are several, and how soon all are answered is what counts."""
    from effnet_edge.pictures.video import Video

    videos = [each for each in pictures.values() if isinstance(each, Video)]
    if any(video.device is not None for video in videos):
        return False
    return len(pictures) > 1 or bool(videos)


def _told_interruption(outcome: Outcome, jsonl: Path | None) -> str:
    told = f"interrupted: {outcome.answered} answered"
    if jsonl is None:
        return told
    return f"{told}, which {jsonl} keeps: the same command with --resume goes on"


def _told_by(runner: EngineRunner, top: int | None, threshold: float | None) -> Told:
    """What makes predictions of a picture's answer (classes,) and its name."""
    from effnet_edge.runtime.predictions import Classes, Values

    output = runner.manifest.output
    # With either option `Classes` refuses in words of its own.
    if output.kind == "regression" and top is None and threshold is None:
        return Values(output.kind, output.classes, runner.labels).of
    return Classes(output.kind, runner.labels, top, threshold).of


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
