r"""INT8 of B0 for LiteRT, of effnet-edge and of Google's own tools, on the same pictures.

`ai-edge-quantizer` makes its INT8 of a float model: of what `litert-torch` converts, and of our own
FP32 file. In an environment of its own, as `litert-torch` brings some fifty packages:

    python3 -m venv peers && peers/bin/pip install -r benchmarks/litert-peers-requirements.txt
    peers/bin/pip install -c constraints.txt -e '.[all,litert]'

(on x86 Linux add --extra-index-url https://download.pytorch.org/whl/cpu to both; pip says that
xdsl, of `litert-torch`, wants an older typing-extensions, and it works with the newer one). Then

    peers/bin/effnet-edge export b0 --target litert -o fp32
    peers/bin/effnet-edge export b0 --target litert --int8 --calibration CALIBRATION -o int8
    peers/bin/effnet-edge export b0 --target litert --int8 --exact-activations \
        --calibration CALIBRATION -o exact
    peers/bin/python benchmarks/litert_against_peers.py fp32 int8 exact CALIBRATION EVALUATION

prints how far each is from PyTorch, and how long one picture takes on one thread, all in turns in
one process. Ours take pixels. The peers take normalized tensors, without the time it takes to make
them. Models are kept in --work and made once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import litert_torch
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe
from int8_peers.reference import Reference
from int8_peers.subject import Pictures, Subject
from rich.console import Console
from rich.table import Table

from effnet_edge.bench.timing import in_turns, summarize
from effnet_edge.bundle import Bundle
from effnet_edge.graphs.litert_file import import_schema, pack, unpack
from effnet_edge.pictures.image import normalize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from effnet_edge.parity import ParityResult
    from effnet_edge.pictures.image import Preprocessing

SIGNATURE, INPUT = "serving_default", "args_0"
ALGORITHMS = ("MIN_MAX_UNIFORM_QUANT", "OCTAV", "MSE")
"""Of ai-edge-quantizer, those that are tried; the first alone on our file, which OCTAV refuses."""

console = Console()


@dataclass(frozen=True)
class Contestant:
    """A LiteRT model, by the name of its row."""

    name: str
    file: Path

    def opened(self, preprocessing: Preprocessing) -> Opened:
        """Ready to run on one thread."""
        return Opened(self.file, preprocessing)


class Opened:
    """A model that takes one picture at a time, as pixels or as a normalized tensor."""

    def __init__(self, file: Path, preprocessing: Preprocessing) -> None:
        self._interpreter = Interpreter(model_path=str(file), num_threads=1)
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()
        self._preprocessing = preprocessing

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (1, R, R, 3) to logits, float32 (1, classes)."""
        logits = self.bare(pixels)()
        scale, zero_point = self._output["quantization"]
        return (logits.astype(np.float32) - zero_point) * scale if scale else logits

    def bare(self, pixels: NDArray[np.uint8]) -> Callable[[], NDArray[Any]]:
        """What is timed: the tensor is copied in, and the logits out."""
        values = self._as_taken(pixels)

        def call() -> NDArray[Any]:
            self._interpreter.set_tensor(self._input["index"], values)
            self._interpreter.invoke()
            logits: NDArray[Any] = self._interpreter.get_tensor(self._output["index"])
            return logits

        return call

    def _as_taken(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        if self._input["dtype"] == np.uint8:
            return pixels
        values = normalize(pixels, self._preprocessing)
        if self._input["shape"][-1] == pixels.shape[-1]:
            values = np.ascontiguousarray(values.transpose(0, 2, 3, 1))
        scale, zero_point = self._input["quantization"]
        if not scale:
            return values
        limits = np.iinfo(self._input["dtype"])
        integers = np.rint(values / scale + zero_point).clip(limits.min, limits.max)
        return integers.astype(self._input["dtype"])


def converted(subject: Subject, file: Path) -> None:
    """Let litert-torch write the network, which takes normalized (1, R, R, 3)."""
    network = litert_torch.to_channel_last_io(subject.source.network.eval(), args=[0])
    example = litert_torch_input(subject.calibration.pixels[:1], subject.preprocessing)
    litert_torch.convert(network, (example,)).export(str(file))


def litert_torch_input(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> Any:
    """A tensor of PyTorch, normalized, float32 (N, R, R, 3)."""
    import torch

    return torch.from_numpy(normalize(pixels, preprocessing)).permute(0, 2, 3, 1).contiguous()


def signed(content: bytes) -> bytes:
    """The file with the signature that ai-edge-quantizer asks for."""
    schema, model = import_schema(), unpack(content)
    graph, signature = model.subgraphs[0], schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
    signature.inputs = [_named(schema, INPUT, graph.inputs[0])]
    signature.outputs = [_named(schema, "output_0", graph.outputs[0])]
    model.signatureDefs = [signature]
    return pack(model)


def _named(schema: Any, name: str, tensor: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, int(tensor)
    return entry


def quantized(float_model: Path, inputs: Sequence[NDArray[Any]], algorithm: str, to: Path) -> None:
    """Let ai-edge-quantizer make INT8 of a float model, activations and weights."""
    told = recipe.static_wi8_ai8(algorithm_key=quantizer.AlgorithmName[algorithm])
    tool = quantizer.Quantizer(str(float_model), told)
    seen = tool.calibrate({SIGNATURE: [{INPUT: each} for each in inputs]}, num_threads=1)
    tool.quantize(seen).export_model(str(to), overwrite=True)


def made(subject: Subject, fp32: Path, folder: Path) -> list[Contestant]:
    """The peers' models, each made if it is not there; what fails is told."""
    folder.mkdir(parents=True, exist_ok=True)
    theirs, ours = folder / "litert-torch.tflite", folder / "ours-signed.tflite"
    if not theirs.exists():
        converted(subject, theirs)
    ours.write_bytes(signed(fp32.read_bytes()))
    found = [Contestant("litert-torch FP32", theirs)]
    sources = (theirs, "litert-torch", ALGORITHMS), (ours, "our FP32 file", ALGORITHMS[:1])
    for of, name, algorithms in sources:
        for algorithm in algorithms:
            file = folder / f"{of.stem}-{algorithm.lower()}.tflite"
            row = f"ai-edge-quantizer ({algorithm}) of {name}"
            try:
                if not file.exists():
                    console.print(f"making: {row}")
                    quantized(of, list(_inputs(subject, pixels=of == ours)), algorithm, file)
                found.append(Contestant(row, file))
            except Exception as error:
                console.print(f"{row} failed: {type(error).__name__}: {error}", markup=False)
    return found


def _inputs(subject: Subject, *, pixels: bool) -> Iterator[NDArray[Any]]:
    for picture in subject.calibration.pixels:
        one = picture[None]
        yield one if pixels else litert_torch_input(one, subject.preprocessing).numpy()


def accuracy(contestants: Sequence[Contestant], subject: Subject, evaluation: Pictures) -> None:
    """Print each model's distance from PyTorch."""
    reference = Reference.of(subject.folded, subject.preprocessing, evaluation)
    table = Table("", "top-1", "drop (95 % interval)", "agreement", "KL, nats", "SQNR, dB", "MB")
    for each in contestants:
        opened = each.opened(subject.preprocessing)
        table.add_row(each.name, *_cells(reference.compare(each.name, "", opened.infer), each.file))
    console.print(table)


def _cells(result: ParityResult, file: Path) -> list[str]:
    assert result.accuracy is not None
    top1 = result.accuracy.top1
    low, high = top1.interval
    return [
        f"{top1.candidate:.1f}",
        f"{top1.points:.1f} ({low:.1f} to {high:.1f})",
        f"{100 * result.values['top1_agreement']:.1f}",
        f"{result.kl:.4f}",
        f"{result.values['sqnr_db']:.1f}",
        f"{file.stat().st_size / 1e6:.1f}",
    ]


def latency(contestants: Sequence[Contestant], subject: Subject, runs: int, warmup: int) -> None:
    """Print how long one picture takes, in turns of another order each; ratios are to the first."""
    pixels = subject.calibration.pixels[:1]
    calls = {each.name: each.opened(subject.preprocessing).bare(pixels) for each in contestants}
    timings = summarize(in_turns(calls, runs, warmup, shuffled=True))
    table = Table("", "least, ms", "median, ms", "of the first's least", "of its median")
    for each in timings:
        table.add_row(
            each.name,
            f"{1e3 * each.minimum:.2f}",
            f"{1e3 * each.median:.2f}",
            f"{each.minimum / timings[0].minimum:.3f}",
            f"{each.ratio:.3f}",
        )
    console.print(table)


@click.command()
@click.argument("fp32", type=click.Path(exists=True, path_type=Path))
@click.argument("int8", type=click.Path(exists=True, path_type=Path))
@click.argument("fast", type=click.Path(exists=True, path_type=Path))
@click.argument("calibration", type=click.Path(exists=True, path_type=Path))
@click.argument("evaluation", type=click.Path(exists=True, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), default="litert-peers-work")
@click.option("--runs", default=200, show_default=True, help="Timed calls of each model.")
@click.option("--warmup", default=10, show_default=True, help="Untimed calls of each model.")
@click.option("--only", type=click.Choice(["accuracy", "latency"]))
def main(
    fp32: Path,
    int8: Path,
    fast: Path,
    calibration: Path,
    evaluation: Path,
    work: Path,
    runs: int,
    warmup: int,
    only: str | None,
) -> None:
    """Compare bundles of B0 for LiteRT, FP32, INT8 and fast INT8, with the peers' models."""
    subject = Subject.load(calibration)
    contestants = [
        Contestant("effnet-edge INT8", Bundle.load(int8).model_path),
        Contestant("effnet-edge INT8, fast activations", Bundle.load(fast).model_path),
        Contestant("effnet-edge FP32", Bundle.load(fp32).model_path),
        *made(subject, Bundle.load(fp32).model_path, work),
    ]
    if only != "latency":
        accuracy(contestants, subject, Pictures.read(evaluation, subject.preprocessing))
    if only != "accuracy":
        latency(contestants, subject, runs, warmup)


if __name__ == "__main__":
    main()
