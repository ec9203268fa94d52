"""`effnet-edge predict`: the best classes of pictures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

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
from effnet_edge.cli.signatures import trusted_option
from effnet_edge.text import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    device: str | None,
    threads: int | None,
    precision: str | None,
    trusted: Path | None,
) -> None:
    """Classify each IMAGE with BUNDLE, or tell its values.

    IMAGE is a file, a folder of them, or a pattern in quotes, such as 'in/**/*.jpg'.

    A picture that cannot be used, or has no finite answer, is named on standard error, and the exit
    code is then 1.
    """
    from effnet_edge.errors import ImageError, NotFiniteError
    from effnet_edge.runtime import EngineRunner

    answers: dict[str, Sequence[Prediction | Estimate]] = {}
    loaded = EngineRunner.load(
        bundle, device=device, threads=threads, precision=precision, trusted=trusted
    )
    with loaded as runner:
        is_regression = runner.manifest.output.kind == "regression"
        # With either option `classify` refuses in words of its own.
        gives_values = is_regression and top is None and threshold is None
        paths = _expand(images, runner.manifest.input.channels)
        with progress_bar("classifying") as progress:
            for done, path in enumerate(paths, start=1):
                try:
                    answers[path] = (
                        runner.estimate(path)
                        if gives_values
                        else runner.classify(path, top, threshold)
                    )
                except (ImageError, NotFiniteError) as error:
                    complain(str(error))
                progress(done, len(paths))
        _report(runner, answers)
    context.exit(0 if len(answers) == len(paths) else 1)


def _expand(images: tuple[str, ...], channels: int) -> list[str]:
    """Folders and patterns become the pictures in them; a path given twice counts once."""
    from effnet_edge.pictures.sources import holds_several, picture_paths

    paths: list[str] = []
    for image in images:
        if holds_several(image):
            paths += map(str, picture_paths(image, channels))
        else:
            paths.append(image)
    return list(dict.fromkeys(paths))


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
