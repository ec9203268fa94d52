"""A server that is not Triton: MLServer, which has no binary tensors and tells no batch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from foreign_server import mlserver
from real_commands import run_command
from tiny_bundles import CLASSES, SIDE, tiny_model, truth, write_bundle
from triton_server import import_client

from effnet_edge.errors import BackendError
from effnet_edge.parity.models.served import ServedClassifier
from effnet_edge.pictures.image import Preprocessing
from effnet_edge.serving.model import ServedModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.version_info >= (3, 13), reason="MLServer 1.7 has no wheel for it"),
]

PIXELS = np.random.default_rng(2).integers(0, 256, (9, SIDE, SIDE, 3), np.uint8)
PREPROCESSING = Preprocessing(SIDE, 1.0, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    room = tmp_path_factory.mktemp("foreign")
    write_bundle(room / "tiny", "onnxruntime", tiny_model(batch="N"))
    return room


@pytest.fixture(scope="module")
def addresses(room: Path) -> Iterator[tuple[str, str]]:
    with mlserver(
        room / "server", room / "tiny" / "model.onnx", [-1, SIDE, SIDE, 3], CLASSES
    ) as at:
        yield at


def test_answers_by_http_and_grpc_are_those_of_the_onnx_standard(
    addresses: tuple[str, str],
) -> None:
    import_client()
    for address in addresses:
        with ServedModel.connect(address) as model:
            answers = ServedClassifier(model, PREPROCESSING).infer(PIXELS)
            assert model.form == ("gRPC" if address.startswith("grpc") else "JSON over HTTP")
        assert answers == pytest.approx(truth(tiny_model(batch="N"), PIXELS), rel=1e-4, abs=1e-3)


def test_an_unknown_model_is_told(addresses: tuple[str, str]) -> None:
    import_client()
    for address in addresses:
        with pytest.raises(
            BackendError, match="the server has no such model, or it is not ready: Model nothing"
        ):
            ServedModel.connect(address.replace("/tiny", "/nothing"))


def test_it_is_compared_and_timed_like_any_other(room: Path, addresses: tuple[str, str]) -> None:
    options = ("--reference", "tiny", "--min-sqnr", 90, "--limit", 20)
    compared = run_command("parity", addresses[0], *options, cwd=room)
    assert compared.returncode == 0, compared.stderr
    assert "is served by mlserver 1.7.1: JSON over HTTP, any number of" in compared.stdout
    timed = run_command("bench", "tiny", addresses[0], "--runs", 10, cwd=room)
    assert timed.returncode == 0, timed.stderr
    assert "mlserver 1.7.1 by JSON over HTTP" in timed.stdout
