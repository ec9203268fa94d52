"""predict, parity, info, list, bench and doctor on real bundles and on wrong input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from real_commands import EFFNET_EDGE, error_lines

from effnet_edge.model.variants import VARIANTS

if TYPE_CHECKING:
    from pathlib import Path

    from real_commands import Run


@pytest.mark.parametrize(
    "bundle",
    [
        "openvino_fp16",
        pytest.param("openvino_fp32", marks=pytest.mark.sample),
        pytest.param("onnxruntime_fp32", marks=pytest.mark.slow),
    ],
)
def test_predict_knows_the_espresso(
    effnet_edge: Run, espresso: Path, bundle: str, request: pytest.FixtureRequest
) -> None:
    completed = effnet_edge("predict", request.getfixturevalue(bundle), espresso, "--json")

    best = json.loads(completed.stdout)["images"][str(espresso)][0]
    assert (best["label"], best["wnid"]) == ("espresso", "n07920052")
    assert best["probability"] > 0.8


def test_predict_prints_the_labels(effnet_edge: Run, openvino_fp16: Path, espresso: Path) -> None:
    completed = effnet_edge("predict", openvino_fp16, espresso, "--top", "3")

    lines = [line for line in completed.stdout.splitlines() if "%" in line]
    assert len(lines) == 3
    assert "espresso" in lines[0]


def written(folder: Path, name: str, image: Image.Image, **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def test_pictures_of_every_kind_are_classified_alike(
    effnet_edge: Run, openvino_fp16: Path, espresso: Path, tmp_path: Path
) -> None:
    photo = Image.open(espresso)
    sideways = photo.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    grey16 = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    pictures = [
        written(tmp_path, "grey.png", photo.convert("L")),
        written(tmp_path, "rgba.png", photo.convert("RGBA")),
        written(tmp_path, "cmyk.jpg", photo.convert("CMYK")),
        written(tmp_path, "sixteen.png", grey16),
        written(tmp_path, "rotated.jpg", sideways, exif=exif),
        written(tmp_path, "palette.gif", photo.convert("P")),
    ]

    completed = effnet_edge("predict", openvino_fp16, *pictures, "--json")

    assert completed.returncode == 0, completed.stderr
    for path, predictions in json.loads(completed.stdout)["images"].items():
        assert "espresso" in {prediction["label"] for prediction in predictions}, path


def test_odd_sizes_are_classified(effnet_edge: Run, openvino_fp16: Path, tmp_path: Path) -> None:
    pictures = [
        written(tmp_path, "dot.png", Image.new("RGB", (1, 1), "red")),
        written(tmp_path, "panorama.jpg", Image.new("RGB", (20_000, 300), "green")),
    ]

    completed = effnet_edge("predict", openvino_fp16, *pictures, "--json")

    assert completed.returncode == 0, completed.stderr
    assert len(json.loads(completed.stdout)["images"]) == 2


def test_unusable_pictures_are_named_one_line_each(
    effnet_edge: Run, openvino_fp16: Path, espresso: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "truncated.jpg").write_bytes(espresso.read_bytes()[:9000])
    (tmp_path / "text.jpg").write_text("this is no picture\n" * 50)
    bomb = Image.new("1", (30_000, 30_000))
    written(tmp_path, "bomb.png", bomb)
    names = ["empty.jpg", "truncated.jpg", "text.jpg", "bomb.png"]

    completed = effnet_edge("predict", openvino_fp16, *names, espresso, "--json")

    assert completed.returncode == 1
    lines = completed.stderr.splitlines()
    assert len(lines) == len(names)
    assert all(name in line for name, line in zip(names, lines, strict=True))
    images = json.loads(completed.stdout)["images"]
    assert list(images) == [*names, str(espresso)]
    assert all(name in images[name]["error"] for name in names)
    assert images[str(espresso)][0]["label"] == "espresso"


def test_a_picture_or_bundle_that_is_not_there_is_bad_use(
    effnet_edge: Run, openvino_fp16: Path, espresso: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    for arguments in (
        ("predict", openvino_fp16, "absent.jpg"),
        ("predict", openvino_fp16, "folder"),
        ("predict", "absent-bundle", espresso),
        ("predict", openvino_fp16, espresso, "--device", "TPU"),
        ("parity", openvino_fp16, "--images", "folder"),
        ("info", "absent"),
    ):
        completed = effnet_edge(*arguments)
        assert completed.returncode == 2, arguments
        assert len(error_lines(completed.stderr)) == 1, completed.stderr


def test_a_changed_byte_is_refused_by_every_command(
    effnet_edge: Run, openvino_fp16: Path, espresso: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(openvino_fp16, broken)
    weights = bytearray((broken / "model.bin").read_bytes())
    weights[1000] ^= 1
    (broken / "model.bin").write_bytes(weights)

    for arguments in (("predict", broken, espresso), ("parity", broken), ("info", broken)):
        completed = effnet_edge(*arguments)
        assert completed.returncode == 1
        assert "model.bin" in completed.stderr
        assert len(error_lines(completed.stderr)) == 1


@pytest.mark.sample
def test_parity_with_torch_and_its_gates(effnet_edge: Run, openvino_fp32: Path) -> None:
    completed = effnet_edge(
        *("parity", openvino_fp32, "--limit", "12", "--min-agreement", "100", "--json")
    )

    report = json.loads(completed.stdout)
    result = report["candidates"][0]
    assert completed.returncode == 0
    assert report["passed"]
    assert result["top1_agreement"] == 1.0
    assert result["relative_error"] < 1e-3
    assert result["candidate_precision"] == "FP32"


@pytest.mark.slow
def test_parity_of_two_engines_and_of_a_foreign_onnx(
    effnet_edge: Run, openvino_fp32: Path, onnxruntime_fp32: Path
) -> None:
    between = effnet_edge("parity", openvino_fp32, "--reference", onnxruntime_fp32, "--json")
    assert json.loads(between.stdout)["candidates"][0]["sqnr_db"] > 80

    foreign = effnet_edge(
        "parity", onnxruntime_fp32 / "model.onnx", "--reference", "torch", "--limit", "4", "--json"
    )
    assert json.loads(foreign.stdout)["candidates"][0]["relative_error"] < 1e-4


@pytest.mark.slow
def test_parity_fails_between_different_weights(effnet_edge: Run, openvino_fp32: Path) -> None:
    assert effnet_edge("export", "b0", "--weights", "random", "-o", "other").returncode == 0

    completed = effnet_edge(
        "parity", "other", "--reference", openvino_fp32, "--min-agreement", "50", "--limit", "8"
    )

    assert completed.returncode == 1
    assert "FAILED: other: top-1 agreement" in completed.stdout
    assert "other: first node at fault: stem.act (Convolution)" in completed.stdout


@pytest.mark.sample
def test_parity_on_labelled_pictures(
    effnet_edge: Run, openvino_fp16: Path, espresso: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "set" / "n07920052"
    folder.mkdir(parents=True)
    for index in range(4):
        shutil.copy(espresso, folder / f"{index}.jpg")
    (folder / "broken.jpg").write_text("no picture")

    completed = effnet_edge("parity", openvino_fp16, "--images", "set", "--max-drop", "1", "--json")

    result = json.loads(completed.stdout)
    assert completed.returncode == 0, completed.stderr
    assert result["images"] == 4
    assert len(result["skipped"]) == 1
    assert result["candidates"][0]["accuracy"]["top1"]["drop_points"] == 0.0

    unlabelled = effnet_edge("parity", openvino_fp16, "--limit", "2", "--max-drop", "1")
    assert unlabelled.returncode == 2
    assert "labels" in unlabelled.stderr


@pytest.mark.slow
def test_parity_of_several_candidates_with_layers_and_a_report(
    effnet_edge: Run, openvino_fp16: Path, openvino_fp32: Path, tmp_path: Path
) -> None:
    (tmp_path / "gates.toml").write_text("[gate]\nmin-agreement = 50\nmin-sqnr = 15\n")
    ir = openvino_fp32 / "model.xml"
    common = ("--limit", "4", "--gates", "gates.toml")

    completed = effnet_edge(
        "parity", openvino_fp16, ir, "torch", *common, "--layers", "--report", "report.html"
    )

    assert completed.returncode == 0, completed.stderr
    report = json.loads((tmp_path / "report.parity.json").read_text())
    assert [each["candidate"] for each in report["candidates"]] == ["bundle", "model.xml", "torch"]
    assert all(len(each["layers"]) > 100 for each in report["candidates"])
    assert report["gate"] == "top-1 agreement ≥ 50 %, SQNR ≥ 15 dB"
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") >= 3
    assert all(name in page for name in ("bundle", "model.xml", "torch"))

    again = effnet_edge(
        "parity", ir, *common, "--min-sqnr", "500", "--compare", "report.parity.json", "--bisect"
    )
    assert again.returncode == 1
    assert "is below the 500.00 dB asked for" in again.stdout
    assert "changed: model.xml: fails now" in again.stdout
    assert "nodes is at fault by itself" in again.stdout


@pytest.mark.sample
def test_a_checkpoint_is_a_model_too(effnet_edge: Run, openvino_fp32: Path, tmp_path: Path) -> None:
    from importlib import resources

    checkpoint = resources.files("effnet_edge") / "data" / "b0.safetensors"
    (tmp_path / "mine.safetensors").write_bytes(checkpoint.read_bytes())

    completed = effnet_edge(
        "parity", "mine.safetensors", "--reference", openvino_fp32, "--limit", "4", "--json"
    )

    assert json.loads(completed.stdout)["candidates"][0]["sqnr_db"] > 80


def test_list_and_info_describe_the_family(effnet_edge: Run, openvino_fp16: Path) -> None:
    rows = json.loads(effnet_edge("list", "--json").stdout)
    assert [row["name"] for row in rows] == list(VARIANTS)
    assert "66.35 M" in effnet_edge("list").stdout

    assert json.loads(effnet_edge("info", "b3", "--json").stdout)["resolution"] == 300
    assert "12.23 M" in effnet_edge("info", "b3").stdout
    manifest = json.loads(effnet_edge("info", openvino_fp16, "--json").stdout)["manifest"]
    assert manifest["variant"] == "b0"
    assert "all files intact" in effnet_edge("info", openvino_fp16).stdout


@pytest.mark.sample
def test_bench_compares_bundles(effnet_edge: Run, openvino_fp16: Path, openvino_fp32: Path) -> None:
    models = (openvino_fp16, openvino_fp32, "torch")
    completed = effnet_edge("bench", *models, "--runs", "3", "--threads", "1", "--json")

    rows = json.loads(completed.stdout)
    assert [row["path"] for row in rows] == [str(openvino_fp16), str(openvino_fp32), "torch"]
    assert rows[2]["device"].startswith("PyTorch ")
    assert rows[0]["timing"]["ratio"] == 1.0
    assert rows[1]["execution_precision"] == "FP32"


def test_doctor_runs_every_backend(effnet_edge: Run) -> None:
    completed = effnet_edge("doctor", "--json")

    document = json.loads(completed.stdout)
    assert completed.returncode == 0
    backends = {backend["name"]: backend for backend in document["backends"]}
    assert set(backends) == {"openvino", "onnxruntime", "litert", "tensorrt", "tensorrt-rtx"}
    assert backends["openvino"]["works"]
    assert backends["onnxruntime"]["works"]
    assert document["export"]["works"]
    assert "yes" in effnet_edge("doctor").stdout


def test_help_and_import_load_nothing_heavy() -> None:
    engines = ("openvino", "onnxruntime", "ai_edge_litert", "tensorrt")
    heavy = {*engines, "torch", "onnx", "numpy", "PIL", "rich"}
    code = (
        "import sys, contextlib, effnet_edge, effnet_edge.cli.main as main\n"
        "with contextlib.suppress(SystemExit): sys.argv[1:] = ['--help']; main.main()\n"
        f"found = {heavy} & set(sys.modules)\n"
        "assert not found, found"
    )

    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    completed = subprocess.run(
        f"{EFFNET_EDGE} list --json | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.stdout == "[\n"
    assert completed.stderr == ""
