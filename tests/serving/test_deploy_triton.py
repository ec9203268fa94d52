"""A real Triton loads what deploy writes, and answers what EngineRunner answers, bit for bit."""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_bundles import CLASSES, SIDE, engine_record, manifest, tiny_model, write_bundle
from triton_server import Server, import_client, triton

from effnet_edge.bundle import BatchRange, OutputSpec
from effnet_edge.deploy.repository import deploy
from effnet_edge.deploy.servers import EngineOptions, server
from effnet_edge.labels import Label
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

WRAPPED = server("triton", wrapped=True)
PROTOCOLS = ("http", "grpc")
# What would break a file of labels, or a config.
NAMES = ["two\nlines", 'quo"te\\', "été 🦊", "co:lon", ""]
LABELS = [Label(name, None) for name in NAMES]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return [
        write_bundle(folder / "one", "onnxruntime", tiny_model(), LABELS),
        write_bundle(folder / "many", "openvino", tiny_model(batch="N"), LABELS),
        write_bundle(folder / "values", "onnxruntime", tiny_model("float32"), LABELS),
    ]


@pytest.fixture(scope="module", params=[1, 2], ids=["numpy1", "numpy2"])
def served(
    request: pytest.FixtureRequest, bundles: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("served") / "models"
    deploy(bundles, models, WRAPPED)
    with triton(models, numpy=request.param) as running:
        yield running


def client_of(server: Server, protocol: str) -> tuple[Any, Any]:
    import_client()
    module = importlib.import_module(f"tritonclient.{protocol}")
    return module, module.InferenceServerClient(getattr(server, protocol))


def ask(
    server: Server, protocol: str, model: str, batch: np.ndarray, **options: Any
) -> tuple[Any, Any]:
    """The answer, and the client."""
    module, client = client_of(server, protocol)
    kind = "UINT8" if batch.dtype == np.uint8 else "FP32"
    pixels = module.InferInput("pixels", batch.shape, kind)
    pixels.set_data_from_numpy(batch)
    logits = module.InferRequestedOutput("logits", **options)
    return client.infer(model, [pixels], outputs=[logits]), client


def pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


@pytest.mark.sample
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("index", [0, 1, 2], ids=["one", "many", "values"])
def test_answers_are_those_of_the_runner(
    served: Server, bundles: list[Path], protocol: str, index: int
) -> None:
    with EngineRunner.load(bundles[index]) as runner:
        for seed in range(50):
            batch = pixels(1 + seed % 5, seed)
            if bundles[index].name == "values":
                batch = batch.astype(np.float32).transpose(0, 3, 1, 2) / 255
            answer, _ = ask(served, protocol, bundles[index].name, batch)
            expected = runner.infer(batch)
            assert answer.as_numpy("logits").tobytes() == expected.tobytes()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_classes_are_told_by_their_labels(
    served: Server, bundles: list[Path], protocol: str
) -> None:
    batch = pixels(1, 7)
    with EngineRunner.load(bundles[0]) as runner:
        logits = runner.infer(batch)[0]
    answer, _ = ask(served, protocol, "one", batch, class_count=CLASSES)
    told = [each.decode().partition(":")[2] for each in answer.as_numpy("logits").ravel()]
    shown = ["two\\nlines", *NAMES[1:]]
    assert told == [f"{each}:{shown[each]}".rstrip(":") for each in np.argsort(-logits)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_wrong_shape_is_an_error_and_the_server_lives(served: Server, protocol: str) -> None:
    import_client()
    from tritonclient.utils import InferenceServerException

    for wrong in (np.zeros((1, SIDE, SIDE + 1, 3), np.uint8), np.zeros((40, SIDE, SIDE, 3), "u1")):
        with pytest.raises(InferenceServerException):
            ask(served, protocol, "many", wrong)
    _, client = ask(served, protocol, "many", pixels(1, 0))
    assert client.is_server_live()
    assert client.is_model_ready("many")


def test_the_manifest_of_what_is_served_is_found(served: Server, bundles: list[Path]) -> None:
    import hashlib

    _, client = client_of(served, "http")
    for bundle in bundles:
        told = client.get_model_config(bundle.name)["parameters"]["effnet_edge_manifest_sha256"]
        text = (bundle / "manifest.json").read_bytes()
        assert told["string_value"] == hashlib.sha256(text).hexdigest()


WITH_NUMPYS_ARRAYS = """
import triton_python_backend_utils as pb_utils
from effnet_edge.deploy import triton_model
from effnet_edge.deploy.triton_model import TritonPythonModel

triton_model._exchange = lambda: (pb_utils.Tensor.as_numpy, triton_model._given)
"""


def test_numpy_2_needs_dlpack(bundles: list[Path], tmp_path: Path) -> None:
    """The reason for it, and that these tests would see its absence."""
    deploy(bundles[:1], tmp_path / "models", WRAPPED)
    (tmp_path / "models/one/1/model.py").write_text(WITH_NUMPYS_ARRAYS)
    with EngineRunner.load(bundles[0]) as runner, triton(tmp_path / "models") as running:
        answer, _ = ask(running, "http", "one", pixels(3, 1))
        assert not np.array_equal(answer.as_numpy("logits"), runner.infer(pixels(3, 1)))


@pytest.mark.sample
def test_2000_requests_of_16_at_once_are_batched_and_equal(tmp_path: Path) -> None:
    """With numpy 2 and what is queued meanwhile run together."""
    bundle = write_bundle(tmp_path / "one", "onnxruntime", tiny_model(), LABELS)
    deploy([bundle], tmp_path / "models", server("triton", wrapped=True))
    images = [pixels(1, seed) for seed in range(64)]
    with EngineRunner.load(bundle) as runner:
        expected = [runner.infer(image).tobytes() for image in images]
    with triton(tmp_path / "models") as running, ThreadPoolExecutor(16) as pool:

        def check(start: int) -> int:
            module, client = client_of(running, "http")
            equal = 0
            for index in range(start, 2000, 16):
                image = images[index % len(images)]
                tensor = module.InferInput("pixels", image.shape, "UINT8")
                tensor.set_data_from_numpy(image)
                answer = client.infer("one", [tensor]).as_numpy("logits")
                equal += answer.tobytes() == expected[index % len(images)]
            return equal

        import_client()
        assert sum(pool.map(check, range(16))) == 2000
        _, client = client_of(running, "http")
        told = client.get_inference_statistics("one")["model_stats"][0]
        assert told["inference_count"] == 2000
        assert told["execution_count"] < 2000
        assert "Traceback" not in running.log.read_text(errors="replace")


def test_a_new_version_is_served_with_the_options_of_the_model(tmp_path: Path) -> None:
    options = EngineOptions(threads=1)
    old = write_bundle(tmp_path / "m", "onnxruntime", tiny_model(), LABELS)
    deploy([old], tmp_path / "models", server("triton", wrapped=True, options=options))
    new = write_bundle(
        tmp_path / "new" / "m",
        "onnxruntime",
        tiny_model(),
        LABELS,
        created="2027-01-01T00:00:00Z",
    )
    (told,) = deploy([new], tmp_path / "models", WRAPPED)
    with triton(tmp_path / "models") as running:
        _, client = client_of(running, "http")
        assert client.get_model_metadata("m")["versions"] == ["2"]
        parameters = client.get_model_config("m")["parameters"]
    assert parameters["effnet_edge_manifest_sha256"]["string_value"] == told.manifest_sha256
    assert parameters["effnet_edge_threads"]["string_value"] == "1"


def test_a_bundle_that_is_changed_is_not_served(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "m", "onnxruntime", tiny_model(), LABELS)
    deploy([bundle], tmp_path / "models", WRAPPED)
    model = tmp_path / "models/m/1/bundle/model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    refused = pytest.raises(AssertionError, match="is not the file that was exported")
    with refused, triton(tmp_path / "models"):
        pass


GRID = [
    ("onnxruntime", "fp32", BatchRange(1, 1, 1), "onnxruntime", 0, [1, SIDE, SIDE, 3]),
    ("onnxruntime", "int8", BatchRange(1, 4, 8), "onnxruntime", 8, [SIDE, SIDE, 3]),
    ("onnxruntime", "fp32", BatchRange(4, 4, 4), "onnxruntime", 0, [4, SIDE, SIDE, 3]),
    ("openvino", "fp16", BatchRange(1, 4, 8), "openvino", 8, [SIDE, SIDE, 3]),
    ("openvino", "int8", BatchRange(1, 1, 1), "openvino", 0, [1, SIDE, SIDE, 3]),
    ("tensorrt", "fp16", BatchRange(1, 4, 8), "tensorrt", 0, [1, SIDE, SIDE, 3]),
]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("target", "precision", "batch", "backend", "largest", "dims"), GRID)
def test_protobuf_reads_the_config_of_every_backend(
    target: str,
    precision: str,
    batch: BatchRange,
    backend: str,
    largest: int,
    dims: list[int],
    wrapped: bool,
) -> None:
    """Also of those that cannot run here; the engine's own batch counts for TensorRT."""
    engines = tuple(
        engine_record(file=f"{each}.plan", compute_capability=(each,)) for each in ("8.6", "8.7")
    )
    told = manifest(
        target=target,
        precision=precision,
        batch=batch,
        output=OutputSpec('lo"gits\n', CLASSES),
        labels="labels.json",
        engines=engines if target == "tensorrt" else (),
    )
    row = server("triton", wrapped=wrapped)
    row.check(told)
    config = parsed(str(row.shared("m", told)))
    assert config.name == "m"
    assert config.backend == ("python" if wrapped else backend)
    assert config.max_batch_size == (32 if wrapped else largest)
    assert list(config.input[0].dims) == ([SIDE, SIDE, 3] if wrapped else dims)
    assert (
        config.input[0].data_type
        == config.input[0]
        .DESCRIPTOR.file.enum_types_by_name["DataType"]
        .values_by_name["TYPE_UINT8"]
        .number
    )
    assert config.output[0].name == 'lo"gits\n'
    assert config.output[0].label_filename == "labels.txt"
    assert config.HasField("dynamic_batching") == (config.max_batch_size > 0)
    preferred = list(config.dynamic_batching.preferred_batch_size)
    assert all(0 < each <= config.max_batch_size for each in preferred)
    if target == "tensorrt" and not wrapped:
        assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
        names = {"8.6": "model-8.6.plan", "8.7": "model-8.7.plan"}
        assert dict(config.cc_model_filenames) == names


def test_features_and_values_have_no_classes(tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path / "m",
        "onnxruntime",
        tiny_model(),
        LABELS,
        output=OutputSpec("logits", CLASSES, "regression"),
    )
    deploy([bundle], tmp_path / "models", WRAPPED)
    assert not (tmp_path / "models/m/labels.txt").exists()
    config = parsed((tmp_path / "models/m/config.pbtxt").read_text())
    assert not config.output[0].label_filename


def parsed(text: str) -> Any:
    import_client()
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    return text_format.Parse(text, ModelConfig())
