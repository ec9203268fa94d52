"""Options that contradict each other or do nothing end with exit code 2, before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.cli.common import Settings
from effnet_edge.cli.main import cli
from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: object) -> None:
    cli.main(list(map(str, arguments)), standalone_mode=False, obj=Settings())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--int8 --fp16", "--fp16 and --int8 exclude each other"),
        ("--fp16 --int8 --fp32", "--fp32 and --fp16 and --int8 exclude"),
        ("--fp32 --weight-bits 7", "--weight-bits goes with --int8"),
        ("--weight-bits 8", "--weight-bits goes with --int8"),
        ("--target onnxruntime --fast-activations", "choose --target openvino or litert"),
        ("--fp16 --fast-activations --max-kl 1", "--max-kl goes with --int8"),
        ("--fp16 --calibration table.json --fast-activations", "needs pictures to fit on"),
        ("--target onnxruntime --fp32 --calibration table.json", "--calibration goes with --int8"),
        ("--int8 --target tensorrt --fast-activations", "makes nothing faster on tensorrt"),
        ("--int8 --calibration table.json --fast-activations", "needs pictures to fit on"),
        ("--exact-activations", "--exact-activations: nothing takes the place of a SiLU"),
        ("--int8 --target onnxruntime --exact-activations", "--exact-activations: nothing takes"),
        ("--int8 --calibration table.json --exact-activations", "needs pictures to calibrate on"),
        ("--fp32 --calibration .", "--calibration goes with --int8"),
        ("--calibration .", "--calibration goes with --int8"),
        ("--fp32 --calibration-size 9", "--calibration-size goes with --int8"),
        ("--target tensorrt --fp32 --calibration .", "--calibration goes with --int8"),
        ("--target tensorrt --calibration table.json", "a calibration table goes with --int8"),
        ("--int8 --calibration table.json --calibration-size 9", "is used as it is"),
        ("--int8 --calibration table.json --max-kl 1", "needs pictures to measure on"),
        ("--target openvino --compute-capability 8.6", "goes with --target tensorrt-rtx"),
        ("--target tensorrt --compute-capability 8.6", "goes with --target tensorrt-rtx"),
        ("--require-engine", "--require-engine goes with tensorrt and tensorrt-rtx"),
        ("--fp16 --max-kl 1", "--max-kl goes with --int8"),
        ("--max-drop 1", "--max-drop goes with --int8"),
        ("--max-drop 1 --max-kl 1", "--max-drop and --max-kl goes? with --int8"),
        ("--features --labels names.txt", "--labels does not go with --features"),
        ("--features --num-classes 3", "--num-classes does not go with --features"),
        ("--features --multi-label", "a network without classifier has no labels"),
        ("--int8 --features --max-kl 1", "--max-kl goes with classes"),
        ("--int8 --multi-label --max-drop 1", "use --max-kl"),
        ("--int8 --target tensorrt --weight-bits 7", "7 is for x86"),
        ("--int8 --target litert --weight-bits 7", "7 is for x86"),
        ("--int8 --target litert --max-kl 1", "--max-kl leaves tensors in 16 bit"),
        ("--target onnxruntime --fp16", "--fp16 with --target onnxruntime"),
    ],
)
def test_an_export_that_contradicts_itself(
    options: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("table.json", "names.txt"):
        (tmp_path / name).touch()

    with pytest.raises(UsageError, match=says):
        run("export", "b0", *options.split())

    assert sorted(path.name for path in tmp_path.iterdir()) == ["names.txt", "table.json"]


@pytest.mark.parametrize(
    "options",
    [
        ("--variant", "b3"),
        ("--num-classes", "3"),
        ("--resolution", "64x96"),
        ("--fit", "pad"),
        ("--resolution", "64"),
        ("--features",),
        ("--mean", "0.5,0.5,0.5"),
    ],
)
def test_a_bundle_tells_its_own_network(tmp_path: Path, options: tuple[str, ...]) -> None:
    bundle = write_bundle(tmp_path / "bundle", "onnxruntime", tiny_model())

    with pytest.raises(UsageError, match=f"{options[0]} goes with a variant: a bundle"):
        run("parity", bundle, *options)


def test_sensitivity_of_a_bundle_takes_nothing_of_a_variant(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", "onnxruntime", tiny_model())

    for option in (
        "--calibration-size 8",
        "--target tensorrt",
        "--std 1,1,1",
        "--padding same",
        "--pooling max",
    ):
        with pytest.raises(UsageError, match="goes with a variant: a bundle"):
            run("sensitivity", bundle, *option.split())


def test_two_sets_of_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").touch()
    with pytest.raises(UsageError, match="each name a set of pictures"):
        run("parity", "torch", "--images", tmp_path, "--labels", tmp_path / "labels.csv")
