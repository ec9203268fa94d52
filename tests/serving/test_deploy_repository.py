"""What deploy writes: whole, beside what is there, and nothing that would be answered wrongly."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gpu_or_fake
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from repository_content import OVMS, TRITON, WRAPPED, content
from signing_keys import write_keys
from tiny_bundles import CLASSES, engine_record, manifest, tiny_model, write_bundle

from effnet_edge.bundle import BatchRange, Bundle
from effnet_edge.bundle.signing import SigningKey, TrustedKey
from effnet_edge.bundle.writing import sign_bundle
from effnet_edge.cli.main import cli
from effnet_edge.deploy.repository import deploy
from effnet_edge.deploy.triton import Triton
from effnet_edge.errors import BundleError, UsageError
from effnet_edge.labels import Label
from effnet_edge.runtime import EngineRunner
from effnet_edge.targets import TARGETS
from effnet_edge.text import plain

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def onnx_bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "ort", "onnxruntime", tiny_model(batch="N"))


@pytest.fixture
def openvino_bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "ov", "openvino", tiny_model(), precision="fp16")


def run(*arguments: object) -> tuple[int, str]:
    told = CliRunner().invoke(cli, [str(each) for each in arguments])
    return told.exit_code, told.output or str(told.exception)


def hash_of(bundle: Path) -> str:
    return hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()


def test_triton_gets_the_model_its_config_and_its_labels(onnx_bundle: Path, tmp_path: Path) -> None:
    (model,) = deploy([onnx_bundle], tmp_path / "models", TRITON)
    files = content(tmp_path / "models")
    assert set(files) == {
        "ort/config.pbtxt",
        "ort/labels.txt",
        "ort/1/model.onnx",
        "ort/1/manifest.json",
    }
    assert files["ort/1/model.onnx"] == (onnx_bundle / "model.onnx").read_bytes()
    assert files["ort/labels.txt"].decode().splitlines() == [f"animal {i}" for i in range(5)]
    config = files["ort/config.pbtxt"].decode()
    assert hash_of(onnx_bundle) == model.manifest_sha256
    assert model.manifest_sha256 in config
    assert "max_batch_size: 8\n" in config
    assert "preferred_batch_size: [ 4 ]" in config


def test_a_signed_bundle_is_whole_in_a_wrapped_model(openvino_bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "ours")
    with pytest.raises(Exception, match="not signed"):
        deploy([openvino_bundle], tmp_path / "m", WRAPPED, trusted=TrustedKey(public))
    assert not (tmp_path / "m").exists()
    sign_bundle(openvino_bundle, SigningKey(private))
    deploy([openvino_bundle], tmp_path / "m", WRAPPED, trusted=TrustedKey(public))
    Bundle.load(tmp_path / "m/ov/1/bundle", trusted=TrustedKey(public))
    assert content(tmp_path / "m/ov/1/bundle") == content(openvino_bundle)
    deploy([openvino_bundle], tmp_path / "n", OVMS)
    assert (tmp_path / "n/ov/1/manifest.sig").exists()


def test_a_new_version_stands_beside_the_old_one_and_edits_stay(
    onnx_bundle: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    deploy([onnx_bundle], models, TRITON)
    config = models / "ort" / "config.pbtxt"
    edited = config.read_text() + "version_policy { all { } }\n"
    config.write_text(edited)
    before = content(models)
    newer = write_bundle(
        tmp_path / "newer", "onnxruntime", tiny_model(batch="N"), created="2027-01-01T00:00:00Z"
    )
    (model,) = deploy([newer], models, TRITON, name="ort")
    assert (model.version, model.path) == (2, str(models / "ort" / "2"))
    assert config.read_text() == edited.replace(hash_of(onnx_bundle), hash_of(newer))
    after = content(models)
    del before["ort/config.pbtxt"]
    assert before.items() <= after.items()
    with pytest.raises(UsageError, match="is there already, as"):
        deploy([onnx_bundle], models, TRITON)
    shutil.rmtree(models / "ort" / "1")
    assert deploy([onnx_bundle], models, TRITON)[0].version == 3


@pytest.mark.parametrize(
    ("changes", "labels", "says"),
    [
        ({"batch": BatchRange(1, 2, 4)}, None, "takes or gives something else"),
        ({}, [Label(f"plant {i}", None) for i in range(5)], "other labels"),
    ],
)
def test_a_version_that_does_not_fit_the_others_is_refused(
    onnx_bundle: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    labels: list[Label] | None,
    says: str,
) -> None:
    deploy([onnx_bundle], tmp_path / "models", TRITON)
    before = content(tmp_path / "models")
    given = () if labels is None else (labels,)
    other = write_bundle(
        tmp_path / "o" / "ort", "onnxruntime", tiny_model(batch="N"), *given, **changes
    )
    with pytest.raises(UsageError, match=says):
        deploy([other], tmp_path / "models", TRITON)
    with pytest.raises(UsageError, match="not written by effnet-edge deploy in the same way"):
        deploy([other], tmp_path / "models", WRAPPED)
    assert content(tmp_path / "models") == before


def test_what_is_no_model_of_ours_stays(onnx_bundle: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "ort").mkdir(parents=True)
    (models / "ort" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is no model"):
        deploy([onnx_bundle], models, TRITON)
    deploy([onnx_bundle], models, TRITON, name="other")
    config = models / "other" / "config.pbtxt"
    config.write_text(re.sub(r'"[0-9a-f]{64}"', '"gone"', config.read_text()))
    newer = write_bundle(
        tmp_path / "other", "onnxruntime", tiny_model(batch="N"), created="2027-01-01T00:00:00Z"
    )
    with pytest.raises(UsageError, match="has no parameter effnet_edge_manifest_sha256"):
        deploy([newer], models, TRITON)
    assert (models / "ort" / "notes.txt").read_text() == "mine"
    assert not (models / "other" / "2").exists()


def test_several_bundles_appear_together_or_not_at_all(
    onnx_bundle: Path, openvino_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"ort: it was proven in ONNX Runtime"):
        deploy([openvino_bundle, onnx_bundle], tmp_path / "a" / "models", OVMS)
    (onnx_bundle / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(Exception, match="is not the file that was exported"):
        deploy([openvino_bundle, onnx_bundle], tmp_path / "a" / "models", WRAPPED)
    assert not (tmp_path / "a").exists()
    shutil.rmtree(onnx_bundle)
    write_bundle(onnx_bundle, "onnxruntime", tiny_model())
    deployed = deploy([openvino_bundle, onnx_bundle], tmp_path / "a" / "models", WRAPPED)
    assert [each.name for each in deployed] == ["ov", "ort"]
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["models"]


def test_a_failure_in_the_middle_leaves_the_repository_as_it_was(
    onnx_bundle: Path, openvino_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    deploy([onnx_bundle], models, WRAPPED)
    before = content(models)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Triton, "write_version", fail)
    with pytest.raises(KeyboardInterrupt):
        deploy([openvino_bundle], models, WRAPPED)
    assert content(models) == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["models", "ort", "ov"]


HOLD = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_two_writers_do_not_meet(onnx_bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / ".models.01234567.partial"
    other.mkdir()
    # A process of its own: whatever this one forks would hold the lock as well.
    command = [sys.executable, "-c", HOLD, str(other)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "held\n"
        with pytest.raises(BundleError, match="is being written by another"):
            deploy([onnx_bundle], tmp_path / "models", TRITON)
        writer.kill()
    # What a killed writer left is removed by the next.
    deploy([onnx_bundle], tmp_path / "models", TRITON)
    assert not other.exists()


@pytest.mark.parametrize(
    ("changes", "chosen", "says"),
    [
        ({"precision": "fp32"}, "triton", "cannot be told to keep FP32"),
        ({"precision": "int8", "batch": BatchRange(1, 4, 8)}, "triton", "cannot answer single"),
        ({"precision": "int8", "batch": BatchRange(1, 4, 8)}, "ovms", "cannot answer single"),
        ({"target": "onnxruntime", "batch": BatchRange(2, 4, 8)}, "triton", "give it fewer"),
        ({"target": "onnxruntime"}, "ovms", "it was proven in ONNX Runtime"),
        ({"target": "tensorrt"}, "triton", "has no engine yet: effnet-edge build"),
        ({"target": "tensorrt"}, "wrapped", "has no engine yet: effnet-edge build"),
        ({"target": "tensorrt-rtx"}, "triton", "Triton has no backend for TensorRT-RTX"),
        ({"target": "litert"}, "triton", "Triton has no backend for LiteRT"),
        ({"target": "litert"}, "ovms", "it was proven in LiteRT"),
        (
            {"target": "tensorrt", "engines": (engine_record(dla_core=0),)},
            "triton",
            "runs on a DLA core",
        ),
        (
            {"target": "tensorrt", "engines": (engine_record(), engine_record(file="b.plan"))},
            "triton",
            "several engines for GPUs of one compute capability",
        ),
    ],
)
def test_what_would_be_answered_wrongly_is_refused(
    changes: dict[str, Any], chosen: str, says: str
) -> None:
    row = {"triton": TRITON, "wrapped": WRAPPED, "ovms": OVMS}[chosen]
    with pytest.raises(UsageError, match=says):
        row.check(manifest(**changes))


@pytest.mark.parametrize("name", ["onnxruntime", "litert"])
def test_a_precision_that_no_server_could_load_is_refused(tmp_path: Path, name: str) -> None:
    bundle = write_bundle(tmp_path / "b", name, tiny_model())
    told = f"precision .?bf16.?: {TARGETS[name].title} runs"
    with pytest.raises(UsageError, match=told):
        EngineRunner.load(bundle, precision="bf16")
    with pytest.raises(UsageError, match=told):
        deploy([bundle], tmp_path / "models", Triton(wrapped=True, options={"precision": "bf16"}))
    assert not (tmp_path / "models").exists()


def test_openvinos_precision_is_a_parameter(tmp_path: Path, openvino_bundle: Path) -> None:
    wrapped = Triton(wrapped=True, options={"precision": "fp32"})
    deploy([openvino_bundle], tmp_path / "models", wrapped)
    assert '"effnet_edge_precision"' in (tmp_path / "models/ov/config.pbtxt").read_text()


@pytest.mark.parametrize("chosen", [TRITON, OVMS])
def test_int8_of_one_image_and_fp16_of_any_number_are_taken(chosen: Any) -> None:
    chosen.check(manifest(precision="int8"))
    chosen.check(manifest(precision="fp16", batch=BatchRange(1, 4, 8)))


@pytest.mark.skipif(gpu_or_fake.runs_for_real(), reason="the fake's engine is another file")
def test_a_tensorrt_engine_goes_to_the_plan_backend(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "trt", "tensorrt", tiny_model())
    deploy([bundle], tmp_path / "models", TRITON)
    assert content(tmp_path / "models")["trt/1/model.plan"] == (bundle / "engine.plan").read_bytes()
    config = (tmp_path / "models/trt/config.pbtxt").read_text()
    assert 'backend: "tensorrt"' in config
    assert "KIND_GPU" in config
    several = replace(
        manifest(target="tensorrt", batch=BatchRange(1, 1, 1)),
        engines=(
            engine_record(compute_capability=("8.6",)),
            engine_record(compute_capability=("8.7",), file="b.plan"),
        ),
    )
    TRITON.check(several)
    assert 'key: "8.7" value: "model-8.7.plan"' in str(TRITON.shared("m", several))


@pytest.fixture(scope="module")
def any_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("any") / "b", "onnxruntime", tiny_model())


@settings(max_examples=40)
@given(name=st.one_of(st.from_regex(r"[\w.+-]{1,110}"), st.text(max_size=20)))
def test_a_name_is_taken_as_it_is_or_refused(name: str, any_bundle: Path) -> None:
    models = any_bundle.with_name("models")
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}", name):
        deploy([any_bundle], models, TRITON, name=name)
        assert [each.name for each in models.iterdir()] == [name]
        assert f'name: "{name}"' in (models / name / "config.pbtxt").read_text()
        shutil.rmtree(models)
    else:
        with pytest.raises(UsageError, match="cannot be a model's name"):
            deploy([any_bundle], models, TRITON, name=name)
        assert not models.exists()


@settings(max_examples=15)
@given(names=st.lists(st.text(st.characters(codec="utf-8")), min_size=CLASSES, max_size=CLASSES))
def test_any_label_is_a_line(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("labels")
    labels = [Label(name, None) for name in names]
    bundle = write_bundle(folder / "b", "onnxruntime", tiny_model(), labels)
    deploy([bundle], folder / "models", TRITON)
    # Triton reads lines that end in a line feed, and nothing else.
    *lines, end = (folder / "models/b/labels.txt").read_bytes().decode().split("\n")
    assert lines == [plain(name) for name in names]
    assert end == ""
    # What is escaped was a control character or the like.
    assert [line for line, name in zip(lines, names, strict=True) if name.isprintable()] == [
        name for name in names if name.isprintable()
    ]


@settings(max_examples=15)
@given(
    versions=st.sets(st.integers(1, 10**9), min_size=1, max_size=4),
    others=st.sets(st.sampled_from(["0", "01", "-3", "v4", "1.5", "٣", "notes"])),
)
def test_a_version_is_one_more_than_the_largest(
    versions: set[int], others: set[str], any_bundle: Path
) -> None:
    models = any_bundle.with_name("models")
    deploy([any_bundle], models, TRITON)
    first = models / "b" / "1"
    first.rename(models / "first")
    newer = any_bundle.with_name("newer")
    if not newer.exists():
        later = {"created": "2027-01-01T00:00:00Z"}
        write_bundle(newer, "onnxruntime", tiny_model(), **later)
    for each in versions:
        shutil.copytree(models / "first", models / "b" / str(each))
    for each in others:
        (models / "b" / each).mkdir()
    try:
        (told,) = deploy([newer], models, TRITON, name="b")
        assert told.version == max(versions) + 1
        names = {each.name for each in (models / "b").iterdir() if each.is_dir()}
        assert names == {str(each) for each in (*versions, told.version)} | others
    finally:
        shutil.rmtree(models)


def test_the_command_tells_what_it_wrote(onnx_bundle: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    code, told = run("deploy", onnx_bundle, "--for", "triton", "-o", models, "--json")
    assert code == 0
    document = json.loads(told)
    assert document["serve"] == f"tritonserver --model-repository={models}"
    assert document["models"][0]["manifest_sha256"] == hash_of(onnx_bundle)
    code, told = run("deploy", onnx_bundle, "--for", "triton", "-o", tmp_path / "n", "--wrapped")
    assert (code, "version 1 of ort, EngineRunner" in told) == (0, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--for", "deepstream"], "nvinfer gives the engine float planes"),
        (["--for", "ovms", "--wrapped"], "--wrapped is Triton's"),
        (["--for", "triton", "--threads", "2"], "--threads is of EngineRunner"),
        (["--for", "triton", "--name", "a/b"], "cannot be a model's name"),
        (["--for", "triton", "--name", "config.json"], "'config.json' cannot be a model's name"),
        (["--for", "triton", "--name", "Config.JSON"], "'Config.JSON' cannot be a model's name"),
        (["--for", "triton", "--name", "manifest.json"], "'manifest.json' cannot be a model's"),
    ],
)
def test_bad_use_is_told_in_one_line(
    onnx_bundle: Path, tmp_path: Path, options: list[str], says: str
) -> None:
    code, told = run("deploy", onnx_bundle, *options, "-o", tmp_path / "models")
    assert code != 0
    assert says in told
    assert not (tmp_path / "models").exists()


def test_nothing_is_written_into_a_bundle(onnx_bundle: Path, openvino_bundle: Path) -> None:
    before = content(openvino_bundle)
    for place in (openvino_bundle, openvino_bundle / "deeper"):
        code, told = run("deploy", onnx_bundle, "--for", "triton", "-o", place)
        assert code != 0
        assert "bundle" in told
    assert content(openvino_bundle) == before
