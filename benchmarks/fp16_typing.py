"""FP16 written into a graph: `type_fp16` against ModelOpt, onnxconverter-common and onnxruntime.

The peers have an environment of their own; see `int8_against_peers.py`, whose `modelopt` it is:

    python3 -m venv modelopt && modelopt/bin/pip install -r benchmarks/modelopt-requirements.txt
    python benchmarks/fp16_typing.py CALIBRATION EVALUATION --peers modelopt/bin/python

Every method gets the same float32 graphs: B0 as `--target tensorrt` makes it before it types, the
same with normalized input, with one residual stream scaled by a power of two (exact in real
arithmetic), and in INT8.
TensorRT-RTX must be installed.
"""

from __future__ import annotations

import platform
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click
import onnx
from fp16_peers.graphs import GRAPHS
from fp16_peers.judge import GENERATION, Judge
from fp16_peers.methods import METHODS, Task
from int8_peers.store import version
from int8_peers.subject import Pictures, Subject
from rich.console import Console

from effnet_edge.errors import first_line
from effnet_edge.pictures.image import normalize
from effnet_export.fp16 import measure_ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fp16_peers.judge import Judgement
    from fp16_peers.methods import Method, Typed

    from effnet_edge.pictures.image import Preprocessing

COLUMNS = (
    "typed by",
    "top-1 agreement",
    "SQNR, dB",
    "KL, nats",
    "worst error",
    "pictures not finite",
    "largest in FP16",
    "Casts",
    "nodes in FP32",
    "engine, MB",
    "CPU s",
    "peak, GB",
)
TOOLS = ("effnet-edge", "torch", "onnx", "onnxruntime", "tensorrt-rtx")

console = Console(stderr=True)


def largest(
    model: onnx.ModelProto, pictures: Pictures, preprocessing: Preprocessing
) -> dict[str, float]:
    """The largest magnitude of each float32 tensor on the pictures."""
    takes_pixels = model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    batches = (picture[None] for picture in pictures.pixels)
    return measure_ranges(
        model, batches if takes_pixels else (normalize(each, preprocessing) for each in batches)
    )


def reach(calibration: Mapping[str, float], evaluation: Mapping[str, float]) -> str:
    """The largest tensor on both sets, and how far one outgrew the other."""
    first, second = (max(each, key=each.__getitem__) for each in (calibration, evaluation))
    growth = {name: evaluation[name] / value for name, value in calibration.items() if value}
    most = max(growth, key=growth.__getitem__)
    return (
        f"Largest magnitude of any tensor in FP32: {calibration[first]:.5g} on the calibration "
        f"pictures (`{first}`), {evaluation[second]:.5g} on the others (`{second}`). The tensor "
        f"that grew most from these to those: `{most}`, {growth[most]:.2f} times."
    )


def row(method: Method, typed: Typed, judged: Judgement) -> str:
    """Of the Markdown table."""
    parity = judged.parity
    engine = judged.engine
    return _line(
        method.name,
        f"{100 * (parity.top1_agreement or 0):.1f} %",
        f"{parity.sqnr_db:.1f}",
        f"{parity.kl:.2g}",
        f"{parity.max_abs_error:.2g}",
        str(parity.candidate_nonfinite),
        f"{judged.largest:.5g}" if judged.largest else "–",
        str(judged.casts),
        f"{judged.in_fp32} of {judged.nodes}",
        f"{engine / 1e6:.2f}" if isinstance(engine, int) else f"refused: {engine}",
        f"{typed.cpu_seconds:.0f}" if typed.cpu_seconds else "–",
        f"{typed.peak_bytes / 1e9:.1f}" if typed.peak_bytes else "–",
    )


def _line(*cells: str) -> str:
    return f"| {' | '.join(each.replace('|', '/') for each in cells)} |"


@click.command()
@click.argument("calibration", type=click.Path(exists=True, path_type=Path))
@click.argument("evaluation", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--peers",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default="modelopt/bin/python",
    show_default=True,
    help="The Python interpreter that has the peers.",
)
@click.option(
    "--peer-pictures",
    default=32,
    show_default=True,
    help="Calibration pictures for the peers: AutoCast holds all activations of all of them.",
)
@click.option("--graph", "chosen", type=click.Choice(list(GRAPHS)), multiple=True, help="Only it.")
@click.option("--only", default="", metavar="TEXT", help="Methods with this in their name.")
@click.option("--output", type=click.Path(path_type=Path), help="A Markdown file to write.")
def main(
    calibration: Path,
    evaluation: Path,
    peers: Path,
    peer_pictures: int,
    chosen: tuple[str, ...],
    only: str,
    output: Path | None,
) -> None:
    """Type every graph by what CALIBRATION shows, and judge the results on EVALUATION."""
    subject = Subject.load(calibration)
    pictures = Pictures.read(evaluation, subject.preprocessing)
    judge = Judge(subject, pictures)
    versions = ", ".join(f"{each} {version(each)}" for each in TOOLS)
    lines = [
        f"{versions}, Python {platform.python_version()}; engines for compute capability "
        f"{GENERATION}; {len(subject.calibration.pixels)} pictures for calibration "
        f"({peer_pictures} for the peers), judged on {len(pictures.pixels)} others.",
    ]
    for name in chosen or GRAPHS:
        lines += ["", f"**{GRAPHS[name].title}**", ""]
        with TemporaryDirectory() as folder:
            file = Path(folder) / "fp32.onnx"
            model = GRAPHS[name].make(subject)
            onnx.save(model, file)
            measured = tuple(
                largest(model, each, subject.preprocessing)
                for each in (subject.calibration, pictures)
            )
            lines += [reach(*measured), "", _line(*COLUMNS), _line(*["---"] * len(COLUMNS))]
            ranges = {key: max(each[key] for each in measured) for key in measured[0]}
            task = Task(
                file,
                Path(folder),
                subject.calibration,
                subject.preprocessing,
                peer_pictures,
                peers,
            )
            for method in (each for each in METHODS if only in each.name):
                console.print(f"{name}: {method.name}", markup=False, highlight=False)
                try:
                    typed = method.type(task)
                    lines.append(row(method, typed, judge.judge(typed.model, ranges)))
                except Exception as error:
                    lines.append(_line(method.name, f"failed: {first_line(error)}"))
                console.print(lines[-1], markup=False, highlight=False)
    text = "\n".join(lines) + "\n"
    click.echo(text)
    if output is not None:
        output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
