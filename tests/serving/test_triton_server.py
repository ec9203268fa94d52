"""The server that the other tests of this folder start: it serves, and it ends."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from triton_server import import_client, triton

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

CONFIG = """
name: "echo"
backend: "python"
input [ { name: "given" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "same" data_type: TYPE_INT32 dims: [ 1 ] } ]
"""
MODEL = """
import json, pathlib, sys
import numpy
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        told = {"numpy": numpy.__version__, "python": sys.version}
        pathlib.Path(args["model_repository"], "told.json").write_text(json.dumps(told))

    def execute(self, requests):
        given = [pb_utils.get_input_tensor_by_name(each, "given") for each in requests]
        same = [pb_utils.Tensor.from_dlpack("same", each) for each in given]
        return [pb_utils.InferenceResponse([each]) for each in same]
"""


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    version = tmp_path / "models" / "echo" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    return tmp_path / "models"


def ask(http: str, path: str, document: object = None) -> dict[str, object]:
    data = None if document is None else json.dumps(document).encode()
    try:
        with urllib.request.urlopen(f"http://{http}/v2{path}", data, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error


@pytest.mark.parametrize("numpy", [1, 2])
def test_a_model_runs_in_this_python_with_either_numpy(repository: Path, numpy: int) -> None:
    given = {"name": "given", "shape": [1], "datatype": "INT32", "data": [7]}
    with triton(repository, numpy=numpy) as server:
        answer = ask(server.http, "/models/echo/infer", {"inputs": [given]})
        assert answer["outputs"][0]["data"] == [7]
        told = json.loads((repository / "echo" / "told.json").read_text())
        assert told["numpy"].startswith(f"{numpy}.")
        assert told["python"] == sys.version
        assert ask(server.http, "")["version"] == "2.51.0"
        import_client()
        from tritonclient.grpc import InferenceServerClient

        assert InferenceServerClient(server.grpc).is_server_ready()
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_a_model_that_does_not_load_is_told(repository: Path) -> None:
    (repository / "echo" / "1" / "model.py").write_text("raise ValueError('planted')")
    with pytest.raises(AssertionError, match="planted"), triton(repository):
        pass
    with triton(repository, wait=False) as server:
        assert ask(server.http, "")["name"] == "triton"
