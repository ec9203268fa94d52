"""`export --int8`, `sensitivity` and `calibration diff`, end to end on the bundled B0."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from effnet_calibration.table import CalibrationTable
from effnet_edge.bundle import Bundle
from effnet_edge.model.preprocessing import variant_preprocessing
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.model.variants import VARIANTS
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.pictures.sets import ImageSet

if TYPE_CHECKING:
    from pathlib import Path

    from real_commands import Run

SMALL = ("--int8", "--resolution", "96")
TENSORS = 82
SMALL_MAPS = ("2.1", "3.0", "3.1", "3.2", "4.0", "4.1", "4.2", "5.0", "5.1", "5.2", "5.3", "6.0")
ALWAYS_KEPT = tuple(
    sorted(
        [
            *(f"stages.{block}.depthwise.conv" for block in SMALL_MAPS),
            *(f"stages.{block}.project.conv" for block in SMALL_MAPS[-4:]),
            "stages.6.0.se.reduce",
        ]
    )
)
"""At 160 pixels: small depthwise convolutions, and the last blocks' part."""
KEPT_AT_96 = len(ALWAYS_KEPT) + 2
"""Those of 1.1 and 2.0 are small there, too."""
# Half of what all of INT8 loses here: how much that is varies with the threads that round the sums.
TIGHT_KL = 0.004


def photos(folder: Path, count: int) -> Path:
    """`count` crops of the embedded photos as files."""
    folder.mkdir()
    crops = EmbeddedPhotos(count, seed=3)
    for batch, _ in crops.batches(variant_preprocessing(VARIANTS["b0"], 96), count):
        for index, pixels in enumerate(batch):
            Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return folder


def surest_answers(folder: Path, count: int) -> dict[str, int]:
    """B0's classes at 96 px of those pictures, by name, that it is surest of."""
    source = load_source(NetworkRequest("b0", resolution=96))
    pictures = ImageSet.from_folder(folder)
    (pixels, _), *_ = pictures.batches(source.preprocessing, len(pictures), [])
    logits = TorchClassifier(source.network, source.preprocessing).infer(pixels)
    surest = np.argsort(np.diff(np.sort(logits)[:, -2:])[:, 0])[-count:]
    return {f"{index:02}.png": int(logits[index].argmax()) for index in surest}


def one_line(stderr: str) -> str:
    (line,) = [each for each in stderr.splitlines() if each.startswith("effnet-edge: error: ")]
    assert "Traceback" not in stderr
    return line


@pytest.mark.sample
def test_the_bundle_passed_its_gates_and_knows_the_espresso(
    effnet_edge: Run, openvino_int8: Path, espresso: Path
) -> None:
    manifest = Bundle.load(openvino_int8).manifest

    assert [stage.stage for stage in manifest.parity][-3:] == [
        "weights",
        "quantize",
        "openvino",
    ]
    assert all(stage.holds for stage in manifest.parity)
    assert manifest.parity[-1].execution_precision == "INT8"
    assert manifest.calibration.size == 40
    assert manifest.calibration.kept == ALWAYS_KEPT
    assert manifest.files[manifest.model.replace(".xml", ".bin")].bytes < 8e6
    predicted = effnet_edge("predict", openvino_int8, espresso, "--json")
    (best, *_) = json.loads(predicted.stdout)["images"][str(espresso)]
    assert best["label"] == "espresso"


@pytest.mark.sample
def test_none_of_its_nodes_is_at_fault(effnet_edge: Run, openvino_int8: Path) -> None:
    """Its hard-swishes leave factors to what reads them, and so does what it is held against."""
    inside = ("--limit", "8", "--bisect", "--layers")
    completed = effnet_edge("parity", openvino_int8, *inside, "--json")

    assert completed.returncode == 0, completed.stderr
    (candidate,) = json.loads(completed.stdout)["candidates"]
    assert candidate["faults"] == []
    assert min(float(each["added_sqnr_db"]) for each in candidate["layers"]) > 15


@pytest.mark.sample
def test_its_table_makes_the_same_model_again(
    effnet_edge: Run, openvino_int8: Path, tmp_path: Path
) -> None:
    table = openvino_int8 / "calibration.json"
    options = ("--int8", "--resolution", "160", "--calibration", table, "-o", "again")

    completed = effnet_edge("export", "b0", *options)

    assert completed.returncode == 0, completed.stderr
    first, second = Bundle.load(openvino_int8).manifest, Bundle.load(tmp_path / "again").manifest
    assert second.files["model.bin"] == first.files["model.bin"]
    assert second.files["calibration.json"] == first.files["calibration.json"]
    assert second.calibration == first.calibration


@pytest.mark.slow
def test_a_kl_budget_keeps_tensors_and_their_names_make_the_model_again(
    effnet_edge: Run, tmp_path: Path
) -> None:
    pictures = photos(tmp_path / "pictures", 32)
    options = (*SMALL, "--calibration", pictures, "--max-kl", str(TIGHT_KL), "-o", "mixed")

    completed = effnet_edge("export", "b0", *options, "--json")

    assert completed.returncode == 0, completed.stderr
    document = json.loads(completed.stdout)
    mixed, kept = document["mixed_precision"], document["kept"]
    assert set(ALWAYS_KEPT) < set(kept)
    assert len(kept) < mixed["tensors"] == TENSORS
    assert mixed["loss"]["kl"] <= TIGHT_KL < mixed["loss_without_budget"]["kl"]
    assert mixed["loss"]["accuracy"] is None
    latency = mixed["latency"]
    assert latency["without_budget"]["ratio"] == 1.0
    medians = latency["bundle"]["median"], latency["without_budget"]["median"]
    assert latency["ratio"] == pytest.approx(medians[0] / medians[1])
    calibration = Bundle.load(tmp_path / "mixed").manifest.calibration
    assert calibration.kept == tuple(kept)
    table = CalibrationTable.load(tmp_path / "mixed" / "calibration.json")
    assert table.quantization(calibration.scheme).kept == tuple(kept)

    options = (*SMALL, "--calibration", "mixed/calibration.json", "-o", "again")
    again = effnet_edge("export", "b0", *options)
    assert again.returncode == 0, again.stderr
    assert "In 16 bit:" in again.stdout
    assert kept[0] in again.stdout
    first, second = (Bundle.load(tmp_path / name).manifest for name in ("mixed", "again"))
    assert second.files["model.bin"] == first.files["model.bin"]


@pytest.mark.slow
def test_a_drop_budget_on_labelled_pictures_with_two_unreadable_ones(
    effnet_edge: Run, tmp_path: Path
) -> None:
    pictures = photos(tmp_path / "pictures", 30)
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    (pictures / "empty.jpg").touch()
    names = sorted(path.name for path in pictures.iterdir())
    labels = dict.fromkeys(names, 0) | surest_answers(pictures, 15)
    rows = [f"pictures/{name},{label}" for name, label in labels.items()]
    (tmp_path / "labels.csv").write_text("\n".join(["path,class_index", *rows]))

    options = (*SMALL, "--calibration", "labels.csv", "--max-drop", "90", "-o", "bundle")
    completed = effnet_edge("export", "b0", *options)

    assert completed.returncode == 0, completed.stderr
    assert f"{KEPT_AT_96} of {TENSORS} tensors stay in 16 bit" in completed.stdout
    assert "top-1 drop 0.00 points (95 % interval" in completed.stdout
    assert "30 pictures)" in completed.stdout
    assert "warning: calibrating on 30 pictures" in completed.stderr
    images = CalibrationTable.load(tmp_path / "bundle" / "calibration.json").images
    assert images.size == 30
    assert len(images.skipped) == 2
    assert any("broken.png" in line for line in images.skipped)


@pytest.mark.slow
def test_a_budget_that_cannot_be_met_is_a_failed_job(effnet_edge: Run, tmp_path: Path) -> None:
    options = (*SMALL, "--calibration-size", "8", "--max-kl", "0", "-o", "bundle")
    completed = effnet_edge("export", "b0", *options)

    assert completed.returncode == 1
    line = one_line(completed.stderr)
    assert f"cannot be met: with {TENSORS - 1} of {TENSORS} tensors in 16 bit, KL" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.sample
def test_a_budget_needs_int8_and_pictures_and_labels(
    effnet_edge: Run, openvino_int8: Path, tmp_path: Path
) -> None:
    table = openvino_int8 / "calibration.json"
    pictures = photos(tmp_path / "pictures", 2)
    for options, message in (
        (("--max-kl", "0.01"), "--max-kl goes with --int8"),
        ((*SMALL, "--max-kl", "0.01", "--calibration", table), "needs pictures to measure on"),
        ((*SMALL, "--max-drop", "1", "--calibration", pictures), "--max-kl"),
        ((*SMALL, "--max-drop", "1"), "does not tell: name the folders by class"),
    ):
        completed = effnet_edge("export", "b0", *options)
        assert completed.returncode == 2
        assert message in one_line(completed.stderr)


@pytest.mark.slow
def test_a_table_of_another_model_or_version_is_refused(
    effnet_edge: Run, openvino_int8: Path, tmp_path: Path
) -> None:
    table = openvino_int8 / "calibration.json"
    newer = json.loads(table.read_text()) | {"schema_version": 99}
    (tmp_path / "newer.json").write_text(json.dumps(newer))
    untrained = ("--weights", "random")
    for options, message in (
        (("b0", *untrained, "--resolution", "160", "--calibration", table), "other weights"),
        (("b1", *untrained, "--resolution", "160", "--calibration", table), "its variant is b0"),
        (("b0", "--calibration", table), "its resolution is 160×160, the network's is 224×224"),
        (("b0", "--calibration", "newer.json"), "schema version 99"),
    ):
        completed = effnet_edge("export", *options, "--int8")
        assert completed.returncode == 1
        assert message in one_line(completed.stderr)
        assert [path.name for path in tmp_path.iterdir()] == ["newer.json"]


@pytest.mark.sample
def test_pictures_that_cannot_be_calibrated_on_are_refused(
    effnet_edge: Run, tmp_path: Path
) -> None:
    (tmp_path / "nothing").mkdir()
    bad = photos(tmp_path / "bad", 8)
    for name in ("a.png", "b.png"):
        (bad / name).write_bytes(b"no picture")
    plain = tmp_path / "plain"
    plain.mkdir()
    for level in range(4):
        Image.new("RGB", (70, 70), (60 * level, 10, 10)).save(plain / f"{level}.png")
    for folder, code, message in (
        ("nothing", 2, "has no pictures"),
        ("bad", 1, "2 of the 10 pictures in bad cannot be read, the first: 'bad/a.png'"),
        ("plain", 1, "every picture in plain is of a single colour"),
    ):
        completed = effnet_edge("export", "b0", *SMALL, "--calibration", folder)
        assert completed.returncode == code
        assert message in one_line(completed.stderr)


def test_a_checkpoint_with_nan_is_refused(effnet_edge: Run, tmp_path: Path) -> None:
    weights = load_source(NetworkRequest("b0")).network.state_dict()
    weights["stages.3.1.project.conv.weight"][0, 0] = float("nan")
    torch.save(weights, tmp_path / "nan.pth")

    completed = effnet_edge("export", "b0", *SMALL, "--weights", "nan.pth")

    assert completed.returncode == 1
    line = one_line(completed.stderr)
    assert "stages.3.1.project.conv.weight holds NaN" in line


@pytest.mark.slow
def test_dead_channels_and_an_all_zero_tensor_give_right_answers(
    effnet_edge: Run, tmp_path: Path
) -> None:
    network = load_source(NetworkRequest("b0", resolution=128)).network
    with torch.no_grad():
        for block, channels in ((network.stages[2][1], 60), (network.stages[4][2], None)):
            for tensor in (block.expand.conv.weight, block.expand.bn.bias):
                tensor[:channels] = 0
    torch.save(network.state_dict(), tmp_path / "dead.pth")

    options = ("--int8", "--resolution", "128", "--weights", "dead.pth", "-o", "bundle")
    completed = effnet_edge("export", "b0", *options, "--calibration-size", "40")

    assert completed.returncode == 0, completed.stderr
    table = CalibrationTable.load(tmp_path / "bundle" / "calibration.json")
    ranges = table.ranges["stages.4.2.depthwise.conv"]
    assert not np.any(ranges.minimum)
    assert not np.any(ranges.maximum)
    # Without a whole block, many crops have two classes that are as good as equal.
    compared = effnet_edge("parity", "bundle", "--limit", "64", "--json")
    (candidate,) = json.loads(compared.stdout)["candidates"]
    assert candidate["top1_agreement"] >= 0.8
    assert candidate["kl"] < 0.03


@pytest.mark.slow
def test_sensitivity_of_a_bundle(effnet_edge: Run, openvino_int8: Path, tmp_path: Path) -> None:
    options = ("--limit", "4", "--plot", "costs.png")
    told = effnet_edge("sensitivity", openvino_int8, *options, "--json")

    assert told.returncode == 0, told.stderr
    document = json.loads(told.stdout)
    kls = [cost["divergence"] for cost in document["costs"]]
    assert len(kls) == TENSORS - len(ALWAYS_KEPT)
    assert kls == sorted(kls, reverse=True)
    assert document["images"] == 4
    # Both are crops of the embedded photos.
    assert document["on_calibration_pictures"] is True
    assert "measured on the pictures of the calibration" in told.stderr
    assert (tmp_path / "costs.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_sensitivity_of_a_variant_with_a_table_as_a_table(
    effnet_edge: Run, openvino_int8: Path
) -> None:
    table = openvino_int8 / "calibration.json"
    options = ("--resolution", "160", "--calibration", table, "--limit", "2", "--top", "100")
    told = effnet_edge("sensitivity", "b0", *options)

    assert told.returncode == 0, told.stderr
    rows = [line for line in told.stdout.splitlines() if "%" in line]
    assert len(rows) == TENSORS - len(ALWAYS_KEPT)
    assert sum("dB" in row for row in rows) == len(rows) - 1  # The stem reads pixels.
    assert sum(".depthwise" in row for row in rows) == 16 - len(SMALL_MAPS)


@pytest.mark.sample
def test_sensitivity_of_what_has_none_is_bad_use(
    effnet_edge: Run, openvino_fp32: Path, openvino_int8: Path, tmp_path: Path
) -> None:
    table = openvino_int8 / "calibration.json"
    for arguments, message in (
        (("nowhere",), "neither a variant"),
        ((openvino_fp32,), "is no INT8 bundle"),
        ((openvino_int8, "--calibration", table), "--calibration goes with a variant"),
        ((openvino_int8, "--plot", "costs.txt"), "the name must end in"),
    ):
        completed = effnet_edge("sensitivity", *arguments)
        assert completed.returncode == 2
        assert message in one_line(completed.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.sample
def test_calibration_diff_says_what_differs(
    effnet_edge: Run, openvino_int8: Path, openvino_fp32: Path, tmp_path: Path
) -> None:
    table = shutil.copy(openvino_int8 / "calibration.json", tmp_path / "table.json")
    same = effnet_edge("calibration", "diff", table, openvino_int8)
    assert (same.returncode, same.stdout, same.stderr) == (0, "", "nothing differs\n")

    changed = json.loads((tmp_path / "table.json").read_text())
    ((scheme, quantization),) = changed["quantizations"].items()
    quantization["kept"] = ["head.conv"]
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    differs = effnet_edge("calibration", "diff", table, "changed.json")
    assert differs.returncode == 1
    assert differs.stdout == f"quantizations.{scheme}.kept: {', '.join(ALWAYS_KEPT)} → head.conv\n"
    document = json.loads(effnet_edge("calibration", "diff", table, table, "--json").stdout)
    assert document == {"same": True, "differences": []}

    (tmp_path / "half.json").write_text("{")
    for other, message in (("half.json", "is not JSON"), (openvino_fp32, "is no INT8 bundle")):
        completed = effnet_edge("calibration", "diff", table, other)
        assert completed.returncode == 2
        assert message in one_line(completed.stderr)


@pytest.mark.slow
def test_the_gates_use_pictures_of_ones_own_that_were_held_out(
    effnet_edge: Run, tmp_path: Path
) -> None:
    photos(tmp_path / "pictures", 50)

    completed = effnet_edge("export", "b0", *SMALL, "--calibration", "pictures", "-o", "bundle")

    assert completed.returncode == 0, completed.stderr
    manifest = Bundle.load(tmp_path / "bundle").manifest
    assert manifest.parity_images == "16 pictures held out of the 50 in pictures"
    assert manifest.calibration.size == 34
    assert all(stage.images == 16 for stage in manifest.parity)
    assert manifest.parity_images in completed.stdout
    assert "≤ 0.05" in completed.stdout
