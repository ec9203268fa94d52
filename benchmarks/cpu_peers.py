"""B0 on this processor by every engine that a package index has, in one run, in turns.

Each model is in a process of its own, in its engine's own environment, and all but one are stopped
(SIGSTOP) at any time: the threads of several engines go on spinning after a call. A plan in TOML
names them, the first being the one that ratios are to:

    [[peer]]
    name = "effnet-edge FP32, OpenVINO"
    engine = "bundle"           # openvino, onnxruntime, litert, executorch, mnn, ncnn, torch, …
    model = "b0-openvino-fp32"  # beside the plan
    python = ".venv/bin/python" # if not the one that runs this

    python benchmarks/cpu_peers.py PLAN.toml EVALUATION --threads 1 --threads 2

Models of NNCF come from int8_against_peers.py, of litert-torch and ai-edge-quantizer from
litert_against_peers.py, those of the others from `python -m cpu_engines.models` in an environment
with cpu-peers-requirements.txt, all of them in this folder. Ours take pixels; the others take
normalized tensors, and the time to make these is not counted. Ours are warmed up, so that their
memory is in huge pages; with the engine "openvino" the same model runs as OpenVINO alone runs it.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from cpu_engines.turns import Peer, Worker, WorkerError, timed
from cpu_engines.written import document, frontier
from int8_peers.subject import VARIANT, Pictures
from rich.console import Console

from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.parity import Comparison
from effnet_edge.parity.models.torch import TorchClassifier

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effnet_edge.parity import ParityResult

console = Console(stderr=True)


@dataclass(frozen=True)
class Judged:
    """What the answers are compared with."""

    logits: NDArray[np.float32]
    pictures: Pictures

    def compare(self, peer: Peer, answers: NDArray[np.float32]) -> ParityResult:
        """A peer's answers with PyTorch's, both (N, classes)."""
        comparison = Comparison("torch", peer.name, "FP32", "")
        comparison.update(self.logits, answers, self.pictures.labels)
        return comparison.result()


@click.command()
@click.argument("plan", type=click.Path(exists=True, path_type=Path))
@click.argument("evaluation", type=click.Path(exists=True, path_type=Path))
@click.option("--threads", type=int, multiple=True, default=(1, 2), show_default=True)
@click.option("--rounds", default=30, show_default=True, help="Turns of each model.")
@click.option("--calls", default=10, show_default=True, help="Timed calls of a turn.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Of each model, one after the other, with as many of the rounds each.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), default="docs/performance.md")
def main(
    plan: Path,
    evaluation: Path,
    threads: tuple[int, ...],
    rounds: int,
    calls: int,
    processes: int,
    output: Path,
) -> None:
    """Judge the models of PLAN on the pictures of EVALUATION, time them, and write a page."""
    peers = read_plan(plan)
    source = load_source(NetworkRequest(VARIANT))
    pictures = Pictures.read(evaluation, source.preprocessing)
    network = TorchClassifier(fold_batch_norm(source.network).eval(), source.preprocessing)
    logits = [network.infer(each[None]) for each in pictures.pixels]
    judged = Judged(np.concatenate(logits), pictures)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "pixels.npy", pictures.pixels)
        np.save(folder / "values.npy", np.concatenate(pictures.normalized(source.preprocessing)))
        results, failures = _judge(peers, judged, folder)
        sound = [peer for peer in peers if peer.name in results]
        times = {each: _merged(sound, each, rounds, calls, processes, folder) for each in threads}
    output.parent.mkdir(parents=True, exist_ok=True)
    picture = output.parent / "images" / f"{output.stem}.png"
    frontier(results, times[threads[-1]], threads[-1], picture)
    output.write_text(document(results, times, failures, pictures, picture.name), encoding="utf-8")
    console.print(f"wrote {output} and {picture}", markup=False)


def read_plan(file: Path) -> list[Peer]:
    """The models of a plan; paths are from the plan's own folder."""
    found = tomllib.loads(file.read_text(encoding="utf-8"))["peer"]
    return [
        Peer(
            each["name"],
            each["engine"],
            (file.parent / each["model"]).absolute(),
            (file.parent / each["python"]).absolute() if "python" in each else Path(sys.executable),
        )
        for each in found
    ]


def _judge(
    peers: list[Peer], judged: Judged, folder: Path
) -> tuple[dict[str, ParityResult], dict[str, str]]:
    """Every peer's answers; of one that fails, by name, what it said last."""
    results: dict[str, ParityResult] = {}
    failures: dict[str, str] = {}
    out, log = folder / "logits.npy", folder / "errors.txt"
    for peer in peers:
        console.print(f"answers of {peer.name}", markup=False)
        try:
            with log.open("wb") as errors, _opened(peer, 1, folder, errors) as worker:
                worker.ask("answers", str(out))
                results[peer.name] = judged.compare(peer, np.load(out))
        except WorkerError as error:
            lines = log.read_text(errors="replace").strip().splitlines()
            failures[peer.name] = f"{error}: {lines[-1] if lines else ''}"
            console.print(f"  {failures[peer.name]}", markup=False)
    return results, failures


def _merged(
    peers: list[Peer], threads: int, rounds: int, calls: int, processes: int, folder: Path
) -> dict[str, list[list[float]]]:
    """Seconds of each call, by name and round, of several processes a model.

    Where its memory lies makes one process up to a tenth slower than another, for as long as it
    lives.
    """
    found: dict[str, list[list[float]]] = {each.name: [] for each in peers}
    for part in range(processes):
        of_part = rounds * (part + 1) // processes - rounds * part // processes
        for name, times in _time(peers, threads, of_part, calls, folder).items():
            found[name] += times
    return found


def _time(
    peers: list[Peer], threads: int, rounds: int, calls: int, folder: Path
) -> dict[str, list[list[float]]]:
    console.print(f"timing {len(peers)} models, threads: {threads}")
    with ExitStack() as stack:
        errors = stack.enter_context((folder / "errors.txt").open("wb"))
        workers = [stack.enter_context(_opened(peer, threads, folder, errors)) for peer in peers]
        return timed(workers, rounds, calls)


def _opened(peer: Peer, threads: int, folder: Path, errors: object) -> Worker:
    return Worker(peer, threads, folder / "pixels.npy", folder / "values.npy", errors)


if __name__ == "__main__":
    main()
