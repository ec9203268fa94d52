"""`effnet-edge predict`: the best classes of pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from effnet_edge.cli.common import (
    common_options,
    complain,
    console,
    print_json,
    progress_bar,
    settings,
)
from effnet_edge.cli.engine import engine_options
from effnet_edge.cli.lines_file import ERROR, PICTURE, LinesFile
from effnet_edge.cli.lines_options import lines_options
from effnet_edge.cli.picture_arguments import named_pictures
from effnet_edge.cli.signatures import trusted_option
from effnet_edge.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from effnet_edge.cli.picture_arguments import Named
    from effnet_edge.errors import EffnetEdgeError
    from effnet_edge.runtime import EngineRunner, Estimate, Prediction

Told: TypeAlias = Callable[[Any, str], list[Any]]


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

    A picture that cannot be used, or has no finite answer, is named on standard error, or has its
    error in the file of --jsonl, and the exit code is then 1.
    """
    from effnet_edge.errors import UsageError
    from effnet_edge.runtime import EngineRunner

    if resume and jsonl is None:
        raise UsageError("--resume goes with --jsonl FILE: nothing else can be gone on with")
    loaded = EngineRunner.load(
        bundle, device=device, threads=threads, precision=precision, trusted=trusted
    )
    with loaded as runner:
        pictures = named_pictures(images, runner.manifest.input.channels)
        told = _told_by(runner, top, threshold)
        if jsonl is None:
            failed = _show(runner, pictures, told)
        else:
            work = _work(runner, top, threshold)
            with LinesFile(jsonl, work, resume=resume) as lines:
                failed = _write(runner, pictures, told, lines)
    context.exit(1 if failed else 0)


def _told_by(runner: EngineRunner, top: int | None, threshold: float | None) -> Told:
    """What makes predictions of a picture's answer (classes,) and its name."""
    from effnet_edge.runtime.predictions import Classes, Values

    output = runner.manifest.output
    # With either option `Classes` refuses in words of its own.
    if output.kind == "regression" and top is None and threshold is None:
        return Values(output.kind, output.classes, runner.labels).of
    return Classes(output.kind, runner.labels, top, threshold).of


def _answers(
    runner: EngineRunner, pictures: Iterable[Named], told: Told, batch_size: int
) -> Iterator[tuple[str, Sequence[Prediction | Estimate] | EffnetEdgeError]]:
    """The name of each picture and its answer, or why it has none; decoded ahead."""
    from effnet_edge.pictures.ahead import in_order
    from effnet_edge.pictures.sources import read_picture
    from effnet_edge.runtime.answers import each_answer

    read = partial(read_picture, preprocessing=runner.manifest.preprocessing)
    yield from each_answer(in_order(read, pictures), runner.infer, told, batch_size=batch_size)


def _show(runner: EngineRunner, pictures: dict[str, Named], told: Told) -> int:
    """Print the answers at the end, and errors as they come; how many there were."""
    from effnet_edge.errors import EffnetEdgeError, UsageError

    answers: dict[str, Sequence[Prediction | Estimate]] = {}
    found = _answers(runner, pictures.values(), told, batch_size=1)
    with progress_bar("classifying") as progress:
        for done, (path, answer) in enumerate(found, start=1):
            if isinstance(answer, UsageError):
                raise answer
            if isinstance(answer, EffnetEdgeError):
                complain(str(answer))
            else:
                answers[path] = answer
            progress(done, len(pictures))
    _report(runner, answers)
    return len(pictures) - len(answers)


def _work(runner: EngineRunner, top: int | None, threshold: float | None) -> dict[str, Any]:
    from effnet_edge.bundle.content import sha256
    from effnet_edge.bundle.manifest import MANIFEST_FILE

    return {
        "effnet-edge": "predict",
        "model": runner.name,
        "bundle": sha256(runner.bundle.path / MANIFEST_FILE),
        "output": runner.manifest.output.kind,
        "device": runner.device,
        "execution_precision": runner.execution_precision,
        "top": top,
        "threshold": threshold,
    }


def _write(runner: EngineRunner, pictures: dict[str, Named], told: Told, lines: LinesFile) -> int:
    """Write a line for each picture that has none; how many of the file's tell an error."""
    from effnet_edge.errors import EffnetEdgeError

    missing = [picture for name, picture in pictures.items() if name not in lines.done]
    before = len(pictures) - len(missing)
    found = _answers(runner, missing, told, runner.manifest.batch.optimum)
    with progress_bar("classifying") as progress:
        progress(before, len(pictures))
        for done, (path, answer) in enumerate(found, start=before + 1):
            if isinstance(answer, EffnetEdgeError):
                lines.write({PICTURE: path, ERROR: str(answer)})
            else:
                lines.write({PICTURE: path, "predictions": [asdict(each) for each in answer]})
            progress(done, len(pictures))
    counts = {"answered": len(lines.done) - lines.failed, "failed": lines.failed}
    if settings().json:
        print_json({"jsonl": str(lines.path), "before": before, **counts})
    else:
        console().print(
            f"{lines.path}: {counts['answered']} pictures answered, {lines.failed} not"
            f"{f', {before} of them before' if before else ''}"
        )
    return lines.failed


def _report(runner: EngineRunner, answers: dict[str, Sequence[Prediction | Estimate]]) -> None:
    if settings().json:
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
        return
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
