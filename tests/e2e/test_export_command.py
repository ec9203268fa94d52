"""`effnet-edge export`, end to end on the bundled B0."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import onnx
import pytest
import torch
from later import quick
from real_commands import EFFNET_EDGE, Run

from effnet_edge.bundle import Bundle
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.variants import VARIANTS


def test_the_main_job_writes_a_verified_bundle(openvino_fp16: Path) -> None:
    bundle = Bundle.load(openvino_fp16)

    manifest = bundle.manifest
    assert (manifest.variant, manifest.target, manifest.precision) == ("b0", "openvino", "fp16")
    assert [stage.stage for stage in manifest.parity] == ["export", "simplify", "openvino"]
    assert all(stage.holds for stage in manifest.parity)
    assert manifest.parity[1].measures["relative_error"].value <= 1e-3
    assert manifest.parity[1].value("top1_agreement") == 1.0
    assert manifest.weights.name == "imagenet"
    assert bundle.labels is not None
    assert bundle.labels[281].wnid == "n02123045"
    assert {"torch", "onnx", "onnxsim", "openvino"} <= manifest.tools.keys()
    assert sum(record.bytes for record in manifest.files.values()) < 12e6


@pytest.mark.sample
def test_fp32_is_exact_in_the_engine_too(openvino_fp32: Path) -> None:
    engine = Bundle.load(openvino_fp32).manifest.parity[-1]

    assert engine.execution_precision == "FP32"
    assert engine.measures["relative_error"].value <= 1e-3
    assert engine.value("top1_agreement") == 1.0


@pytest.mark.slow
def test_the_onnxruntime_target_is_a_plain_onnx_file(onnxruntime_fp32: Path) -> None:
    bundle = Bundle.load(onnxruntime_fp32)

    onnx.checker.check_model(onnx.load(bundle.model_path), full_check=True)
    assert bundle.manifest.precision == "fp32"


@pytest.mark.slow
def test_the_last_line_says_what_to_run_next_and_json_is_json(
    effnet_edge: Run, tmp_path: Path
) -> None:
    options = ("b0", "--weights", "random", "--resolution", "64", "--num-classes", "3")
    told = effnet_edge("export", *options)
    assert told.stderr.splitlines()[-1] == "Next: effnet-edge predict b0-openvino-fp16 PHOTO"
    assert told.stdout.count("passed") == 3

    document = json.loads(effnet_edge("export", *options, "--force", "--json").stdout)
    assert document["bundle"] == str(tmp_path / "b0-openvino-fp16")
    assert {stage["stage"] for stage in document["parity"]} == {"export", "simplify", "openvino"}

    quiet = effnet_edge("export", *options, "--force", "--quiet")
    assert quiet.returncode == 0
    assert quiet.stderr == ""


@pytest.mark.slow
def test_weights_of_ones_own_with_ones_own_labels(effnet_edge: Run, tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = EfficientNet(VARIANTS["b0"], num_classes=3, resolution=64)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    (tmp_path / "labels.txt").write_text("cat\ndog\nthird kind\n")

    completed = effnet_edge(
        *("export", "b0", "--weights", "mine.pth", "--num-classes", "3", "--labels", "labels.txt"),
        *("--resolution", "64", "--input", "float32-nchw", "--fp32", "-o", "mine"),
    )

    assert completed.returncode == 0, completed.stderr
    bundle = Bundle.load(tmp_path / "mine")
    assert [label.name for label in bundle.labels] == ["cat", "dog", "third kind"]
    assert bundle.manifest.input.dtype == "float32"
    assert bundle.manifest.weights.source == str(tmp_path / "mine.pth")
    again = effnet_edge("parity", "mine", "--limit", "4", "--min-agreement", "100")
    assert again.returncode == 0, again.stderr + again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["b9"], "unknown variant 'b9'"),
        (["l2"], "l2 has no weights named imagenet"),
        (["b0", "--weights", "nowhere.pth"], "no such file"),
        (["b0", "--target", "onnxruntime", "--fp16"], "--fp16 with --target onnxruntime"),
        (["b0", "--target", "litert", "--int8", "--max-kl", "1"], "leaves tensors in 16 bit"),
        (["b0", "--batch", "4:2:1"], "MIN:OPT:MAX"),
        (["b0", "--num-classes", "0"], "--num-classes"),
        (["b0", "--target", "coreml"], "coreml"),
        (["b0", "--labels", "absent.txt"], "absent.txt"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(
    effnet_edge: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    completed = effnet_edge("export", *arguments)

    assert completed.returncode == 2
    assert message in completed.stderr
    assert "Traceback" not in completed.stderr
    assert len(completed.stderr.splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []


def test_too_few_labels_are_refused(effnet_edge: Run, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")

    completed = effnet_edge("export", "b0", "--labels", "labels.txt")

    assert completed.returncode == 2
    assert "2 labels for 1000 classes" in completed.stderr


def test_a_directory_that_is_no_bundle_is_left_alone(effnet_edge: Run, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("do not touch")

    completed = effnet_edge("export", "b0", "-o", "precious")

    assert completed.returncode == 2
    assert "precious" in completed.stderr
    assert [path.name for path in precious.iterdir()] == ["thesis.tex"]


def test_a_damaged_checkpoint_is_a_failed_job(effnet_edge: Run, tmp_path: Path) -> None:
    (tmp_path / "half.pth").write_bytes(b"PK\x03\x04 and then nothing")

    completed = effnet_edge("export", "b0", "--weights", "half.pth")

    assert completed.returncode == 1
    assert "half.pth is truncated or damaged" in completed.stderr
    assert len(completed.stderr.splitlines()) <= 2


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("stop", quick([signal.SIGINT], [signal.SIGINT, signal.SIGTERM], "sample"))
def test_interrupting_leaves_nothing_behind(tmp_path: Path, stop: signal.Signals) -> None:
    process = subprocess.Popen(
        [EFFNET_EDGE, "export", "b0"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell hands down an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()):
        assert time.monotonic() < deadline, "the export never began to write"
        time.sleep(0.05)
    began = cpu_seconds(process.pid)
    while cpu_seconds(process.pid) < began + 0.1:
        assert process.poll() is None, "the export ended before it could be interrupted"
        time.sleep(0.01)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == (130 if stop is signal.SIGINT else 143)
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path: Path):
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(mount)],
        check=False,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("mounting a small disk needs root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("openvino", marks=pytest.mark.sample),
        pytest.param("onnxruntime", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_told_and_left_clean(effnet_edge: Run, tiny_disk: Path, target: str) -> None:
    completed = effnet_edge("export", "b0", "--target", target, "-o", tiny_disk / "bundle")

    assert completed.returncode == 1
    assert "No space left" in completed.stderr
    assert "Traceback" not in completed.stderr
    assert list(tiny_disk.iterdir()) == []


@pytest.mark.slow
def test_an_older_bundle_is_replaced_with_force_only(effnet_edge: Run, tmp_path: Path) -> None:
    options = ("--weights", "random", "--resolution", "64", "-o", "bundle")
    assert effnet_edge("export", "b0", *options, "--num-classes", "3").returncode == 0
    refused = effnet_edge("export", "b0", *options, "--num-classes", "4")
    assert refused.returncode == 2
    assert "bundle is there already: --force replaces it" in refused.stderr
    assert Bundle.load(tmp_path / "bundle").manifest.output.classes == 3
    again = effnet_edge("export", "b0", *options, "--num-classes", "4", "--force")
    assert again.returncode == 0, again.stderr

    assert Bundle.load(tmp_path / "bundle").manifest.output.classes == 4
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_debug_option_shows_the_traceback(effnet_edge: Run) -> None:
    completed = effnet_edge("export", "b9", "--debug")

    assert "Traceback" in completed.stderr
    assert completed.returncode == 1


def test_ones_umask_is_respected(openvino_fp16: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)

    assert (openvino_fp16.stat().st_mode & 0o777) == 0o777 & ~umask
