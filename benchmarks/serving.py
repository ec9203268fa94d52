"""What a wrapped model on Triton costs over EngineRunner in one's own process, and is it the same.

    effnet-edge deploy BUNDLE --for triton --wrapped -o models
    python tests/serving/triton_server.py models          # tells its address
    python benchmarks/serving.py BUNDLE 127.0.0.1:PORT/NAME

Both are asked by as many threads at once, in turns in one run; every answer over HTTP is compared
bit by bit with the one in this process.
"""

from __future__ import annotations

import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local
from typing import TYPE_CHECKING

import click
import numpy as np
import numpy.typing as npt

from effnet_edge.errors import EffnetEdgeError
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from collections.abc import Callable

_PICTURES = 64
_TIMEOUT_SECONDS = 60
Image = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]


class Client:
    """Asks a server by the Open Inference Protocol with binary tensors; a connection a thread."""

    def __init__(self, address: str, runner: EngineRunner) -> None:
        self._host, _, self._model = address.partition("/")
        self._spec = runner.manifest.input
        self._output = runner.manifest.output.name
        self._thread = local()

    def infer(self, image: Image) -> Logits:
        """The answer for one image (1, H, W, C)."""
        tensor = {
            "name": self._spec.name,
            "shape": image.shape,
            "datatype": "UINT8",
            "parameters": {"binary_data_size": image.nbytes},
        }
        output = {"name": self._output, "parameters": {"binary_data": True}}
        head = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
        length = {"Inference-Header-Content-Length": str(len(head))}
        connection = self._connection()
        connection.request(
            "POST", f"/v2/models/{self._model}/infer", head + image.tobytes(), length
        )
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise click.ClickException(content.decode(errors="replace"))
        told = int(answer.headers["Inference-Header-Content-Length"])
        return np.frombuffer(content, np.float32, offset=told).reshape(1, -1)

    def _connection(self) -> http.client.HTTPConnection:
        if not hasattr(self._thread, "connection"):
            self._thread.connection = http.client.HTTPConnection(
                self._host, timeout=_TIMEOUT_SECONDS
            )
        connection: http.client.HTTPConnection = self._thread.connection
        return connection


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("address", metavar="HOST:PORT/NAME")
@click.option("--requests", default=2000, show_default=True, help="Over HTTP, in all.")
@click.option("--at-once", default=16, show_default=True, help="Threads that ask.")
@click.option("--rounds", default=10, show_default=True, help="Turns of each of the two.")
@click.option("--threads", type=int, help="CPU threads of the engine in this process.")
def main(
    bundle: Path, address: str, requests: int, at_once: int, rounds: int, threads: int | None
) -> None:
    """Compare BUNDLE in this process with the same one on the server at ADDRESS."""
    try:
        with EngineRunner.load(bundle, threads=threads) as runner:
            _compare(runner, Client(address, runner), requests, at_once, rounds)
    except (EffnetEdgeError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _compare(
    runner: EngineRunner, client: Client, requests: int, at_once: int, rounds: int
) -> None:
    spec = runner.manifest.input
    shape = (_PICTURES, 1, spec.height, spec.width, spec.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    expected = [runner.infer(image) for image in images]
    each, same, seconds = requests // rounds, 0, {"process": 0.0, "HTTP": 0.0}
    ratios = []
    with ThreadPoolExecutor(at_once) as pool:
        for asked in (runner.infer, client.infer):
            _timed(pool, asked, images, at_once * 4)
        for _ in range(rounds):
            here, _ = _timed(pool, runner.infer, images, each)
            there, answers = _timed(pool, client.infer, images, each)
            seconds["process"] += here
            seconds["HTTP"] += there
            ratios.append(here / there)
            same += sum(
                answer.tobytes() == expected[index % _PICTURES].tobytes()
                for index, answer in enumerate(answers)
            )
    asked_in_all = each * rounds
    click.echo(f"{same} of {asked_in_all} answers over HTTP are equal bit by bit")
    for name, taken in seconds.items():
        click.echo(f"{name}: {asked_in_all / taken:.1f} images/s")
    ratio = seconds["process"] / seconds["HTTP"]
    click.echo(
        f"HTTP / process: {ratio:.3f} (single rounds {min(ratios):.3f} to {max(ratios):.3f})"
    )


def _timed(
    pool: ThreadPoolExecutor, infer: Callable[[Image], Logits], images: Image, count: int
) -> tuple[float, list[Logits]]:
    """The seconds that `count` images took, and the answers."""
    started = time.perf_counter()
    answers = list(pool.map(infer, (images[index % _PICTURES] for index in range(count))))
    return time.perf_counter() - started, answers


if __name__ == "__main__":
    main()
