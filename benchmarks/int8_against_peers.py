"""INT8 of effnet-edge against NNCF, onnxruntime and NVIDIA ModelOpt, on the same pictures.

Two environments, as ModelOpt pins versions of onnx and onnxruntime that the others do not want:

    python3 -m venv peers && peers/bin/pip install -c constraints.txt \
        -r benchmarks/peers-requirements.txt -e '.[all]'
    python3 -m venv modelopt && modelopt/bin/pip install -r benchmarks/modelopt-requirements.txt

(on x86 Linux add --extra-index-url https://download.pytorch.org/whl/cpu to both). Then, from the
root of the repository:

    peers/bin/python benchmarks/int8_against_peers.py accuracy CALIBRATION EVALUATION \
        --modelopt modelopt/bin/python
    peers/bin/python benchmarks/int8_against_peers.py latency CALIBRATION EVALUATION \
        --modelopt modelopt/bin/python

`accuracy` makes and judges every model; `latency` times the best ones, on a machine that should
have nothing else to do. Both write docs/int8-against-peers.md, keep what they have made in --work,
and take up where they were stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from int8_peers import latencies, ours, with_modelopt, with_nncf, with_onnxruntime
from int8_peers.benchmark import Candidate, Judge
from int8_peers.document import document
from int8_peers.engines import computes_in_bf16
from int8_peers.rows import best_of_each, judged
from int8_peers.store import Store
from int8_peers.subject import Pictures, Subject
from rich.console import Console

from effnet_edge.errors import EffnetEdgeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from int8_peers.method import Method

console = Console(stderr=True)


@dataclass(frozen=True)
class Run:
    """What the options say."""

    subject: Subject
    evaluation: Pictures
    judge: Judge
    store: Store
    candidates: list[Candidate]
    file: Path
    modelopt: str


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments and options of both commands."""
    folder = click.Path(exists=True, path_type=Path)
    for decorate in (
        click.argument("evaluation", type=folder),
        click.argument("calibration", type=folder),
        click.option(
            "--work",
            type=click.Path(path_type=Path),
            default="int8-peers-work",
            show_default=True,
            help="Where models and figures are kept.",
        ),
        click.option(
            "--modelopt",
            type=click.Path(path_type=Path),
            default="modelopt/bin/python",
            show_default=True,
            help="The Python interpreter that has ModelOpt.",
        ),
        click.option(
            "--document",
            "file",
            type=click.Path(path_type=Path),
            default="docs/int8-against-peers.md",
            show_default=True,
            help="The table that is written.",
        ),
    ):
        command = decorate(command)
    return command


@click.group()
def main() -> None:
    """Compare INT8 of effnet-edge with that of its peers.

    CALIBRATION and EVALUATION are folders of pictures in folders named by WordNet id, or CSV files.
    """


@main.command()
@common
@click.option(
    "--only", default="", metavar="TEXT", help="Only those with this in their name or settings."
)
def accuracy(
    calibration: Path, evaluation: Path, work: Path, modelopt: Path, file: Path, only: str
) -> None:
    """Make every model and judge it."""
    run = _prepare(calibration, evaluation, work, modelopt, file)
    chosen = [each for each in run.candidates if only.lower() in each.text.lower()]
    for index, candidate in enumerate(chosen, 1):
        console.print(f"[{index}/{len(chosen)}] {candidate.text}", markup=False, highlight=False)
        _judge(run, candidate)
    _write_document(run)


@main.command()
@common
@click.option("--runs", default=300, show_default=True, help="Timed calls of each model.")
@click.option("--warmup", default=20, show_default=True, help="Untimed calls of each model.")
def latency(
    calibration: Path,
    evaluation: Path,
    work: Path,
    modelopt: Path,
    file: Path,
    runs: int,
    warmup: int,
) -> None:
    """Time the best model of every row that `accuracy` has judged, in turns."""
    run = _prepare(calibration, evaluation, work, modelopt, file)
    rows = best_of_each(judged(run.store, run.candidates, run.judge))
    if not rows:
        raise click.ClickException("nothing has been judged yet: run `accuracy` first")
    console.print(f"timing {len(rows)} models, {runs} rounds")
    latencies.measure(run.store, rows, run.subject, runs, warmup)
    _write_document(run)


def _prepare(calibration: Path, evaluation: Path, work: Path, modelopt: Path, file: Path) -> Run:
    console.print("reading the pictures")
    try:
        subject = Subject.load(calibration)
        judged_on = Pictures.read(evaluation, subject.preprocessing)
    except EffnetEdgeError as error:
        raise click.ClickException(str(error)) from error
    methods = _methods(modelopt)
    return Run(
        subject,
        judged_on,
        Judge(subject, judged_on),
        Store(work, subject),
        [Candidate(method, hint) for method in methods for hint in method.hints],
        file,
        with_modelopt.version(modelopt),
    )


def _methods(modelopt: Path) -> list[Method]:
    hints = ("f32", "bf16") if computes_in_bf16() else ("f32",)
    return [
        *ours.methods(hints),
        *with_nncf.methods(hints),
        *with_onnxruntime.methods(),
        *with_modelopt.methods(modelopt),
    ]


def _judge(run: Run, candidate: Candidate) -> None:
    """Make and judge one model; a tool that fails becomes a line of the document."""
    try:
        figures = run.judge.judge(run.store, candidate)
    except Exception as error:
        run.store.remember_failure(candidate.method, error)
        console.print(f"  failed: {error}", markup=False, style="red")
        return
    console.print(
        f"  top-1 {figures['top1']:.1f} %, drop {figures['drop']:.1f}, "
        f"agreement {figures['agreement']:.1f} %, KL {figures['kl']:.4f}"
    )


def _write_document(run: Run) -> None:
    text = document(run.subject, run.evaluation, run.judge, run.store, run.candidates, run.modelopt)
    run.file.parent.mkdir(parents=True, exist_ok=True)
    run.file.write_text(text, encoding="utf-8")
    console.print(f"wrote {run.file}", markup=False)


if __name__ == "__main__":
    main()
