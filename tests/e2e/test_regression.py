"""The commands on networks whose outputs are values, and on a single yes or no."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from conditioned_networks import conditioned_network
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from real_commands import run_command
from safetensors.torch import save_file
from tiny_bundles import SIDE as SIDE_OF_TINY
from tiny_bundles import write_bundle

from effnet_edge.bundle import OutputSpec
from effnet_edge.labels import Label

if TYPE_CHECKING:
    from pathlib import Path

    from real_commands import Run

pytestmark = pytest.mark.sample

SIDE = "64"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of one network: sound, and wrecked in its last layer."""
    folder = tmp_path_factory.mktemp("values")
    state = conditioned_network("b0", int(SIDE), classes=1, output_kind="regression").state_dict()
    weight, bias = state["classifier.weight"], state["classifier.bias"] + 40
    heads = {
        "age": (weight, bias),
        "opposite": (-weight, bias),
        "offset": (weight, bias + 5),
        "scaled": (2 * weight, bias),
        "dead": (0 * weight, bias),
    }
    for name, (their_weight, their_bias) in heads.items():
        theirs = {"classifier.weight": their_weight, "classifier.bias": their_bias}
        save_file(state | theirs, folder / f"{name}.safetensors")
    (folder / "name.txt").write_text("[age], years")
    return folder


def _export(folder: Path, name: str, *options: str) -> Path:
    network = ("--weights", "age.safetensors", "--resolution", SIDE, "--regression")
    completed = run_command("export", "b0", *network, *options, "-o", name, cwd=folder)
    assert completed.returncode == 0, completed.stderr
    return folder / name


@pytest.fixture(scope="module")
def age(folder: Path) -> Path:
    return _export(folder, "age", "--target", "onnxruntime", "--labels", "name.txt")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["openvino", "onnxruntime"])
def test_int8_holds_a_budget_of_the_spread(folder: Path, target: str) -> None:
    budget = ("--int8", "--max-nrmse", "0.2", "--calibration-size", "48")
    bundle = _export(folder, f"int8-{target}", "--target", target, *budget)
    manifest = json.loads((bundle / "manifest.json").read_text())
    last = manifest["parity"][-1]["measures"]["nrmse"]
    assert 0 < last["value"] <= last["at_most"] == 0.25


def _pictures(folder: Path, count: int = 6) -> list[str]:
    random = np.random.default_rng(0)
    names = [f"{index}.png" for index in range(count)]
    for name in names:
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).resize((70, 70)).save(
            folder / name
        )
    return names


def test_predict_and_info_give_values(effnet_edge: Run, age: Path, espresso: Path) -> None:
    (estimate,) = json.loads(effnet_edge("predict", age, espresso, "--json").stdout)["images"][
        str(espresso)
    ]
    assert estimate["label"] == "[age], years"
    printed = effnet_edge("predict", age, espresso).stdout
    assert f"{estimate['value']:.6g}  [age], years" in printed
    assert "%" not in printed
    assert "1 value" in effnet_edge("info", age).stdout
    refused = effnet_edge("predict", age, espresso, "--top", "1")
    assert refused.returncode == 2
    assert "EngineRunner.estimate" in refused.stderr


def test_parity_tells_wrecked_models(effnet_edge: Run, age: Path, folder: Path) -> None:
    faults = ("opposite", "offset", "scaled", "dead")
    wrecked = [folder / f"{fault}.safetensors" for fault in faults]
    completed = effnet_edge("parity", age, *wrecked, "--limit", "12", "--max-nrmse", "0.4")
    assert completed.returncode == 1, completed.stdout
    assert "age: RMSE / spread" in completed.stdout
    assert "FAILED: age" not in completed.stdout
    for fault in faults:
        assert f"FAILED: {fault}.safetensors: RMSE / spread" in completed.stdout
        assert f"{fault}.safetensors: first node at fault: logits (Linear)" in completed.stdout
    assert "dead.safetensors gives the same for all 12 pictures" in completed.stdout


def test_a_report_tells_errors_from_true_values(
    effnet_edge: Run, age: Path, folder: Path, tmp_path: Path
) -> None:
    names = _pictures(tmp_path)
    answers = json.loads(effnet_edge("predict", age, *names, "--json").stdout)["images"]
    rows = [f'{name},"{answers[name][0]["value"] + 1}"' for name in names]
    (tmp_path / "ages.csv").write_text('path,"[age], years"\n' + "\n".join(rows))

    offset = folder / "offset.safetensors"
    limits = ("--max-mae-increase", "2.5", "--report", "page.html", "--json")
    completed = effnet_edge("parity", age, offset, "--labels", "ages.csv", *limits)

    assert completed.returncode == 1, completed.stderr
    document = json.loads(completed.stdout)
    sound, moved = document["candidates"]
    assert (sound["passed"], moved["passed"]) == (True, False)
    assert sound["truth"]["candidate_mae"] == pytest.approx([1], abs=1e-3)
    # One below the truth before, four above it now.
    assert moved["mae_increase"] == pytest.approx(3, abs=1e-3)
    (row,) = moved["by_output"]
    assert (row["label"], row["offset"]) == ("[age], years", pytest.approx(5, abs=1e-3))
    assert len(moved["differences"]) == len(names)
    page = (tmp_path / "page.html").read_text()
    assert "the largest differences" in page
    assert "[age], years" in page
    assert "top-1" not in page
    assert "increase of the mean absolute error" in (tmp_path / "page.junit.xml").read_text()


def test_a_limit_on_classes_is_refused(effnet_edge: Run, age: Path) -> None:
    completed = effnet_edge("parity", age, "--limit", "4", "--max-kl", "0.01")
    assert completed.returncode == 2
    assert "--max-nrmse" in completed.stderr.splitlines()[-1]


def test_a_yes_or_no_is_a_probability(effnet_edge: Run, espresso: Path, tmp_path: Path) -> None:
    model = _one_output("pixels", TensorProto.UINT8, [1, SIDE_OF_TINY, SIDE_OF_TINY, 3], 0.01)
    output = OutputSpec("y", 1, "multi-label")
    bundle = write_bundle(
        tmp_path / "yes", "onnxruntime", model, [Label("yes", None)], output=output
    )
    document = json.loads(effnet_edge("predict", bundle, espresso, "--json").stdout)
    ((answer,),) = document["images"].values()
    assert answer["label"] == "yes"
    assert 0.5 < answer["probability"] < 1


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("export", ("--weights", "random", "--num-classes", "1")),
        ("export", ("--weights", "age.safetensors")),
        ("sensitivity", ("--weights", "age.safetensors")),
    ],
)
def test_one_output_must_be_said_to_be_something(
    folder: Path, command: str, options: tuple[str, ...]
) -> None:
    completed = run_command(command, "b0", "--resolution", SIDE, *options, cwd=folder)
    assert completed.returncode == 2
    (line,) = completed.stderr.splitlines()[-1:]
    assert "--multi-label for a yes or no" in line
    assert "--regression for a value" in line


def _one_output(
    name: str, element: int, shape: list[int | str], factor: float, *, keeps_axis: bool = True
) -> onnx.ModelProto:
    """The mean of all values times a factor, (N, 1) or (N,)."""
    nodes = [
        helper.make_node("Cast", [name], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "factor"], ["flat"]),
        helper.make_node("Unsqueeze", ["flat", "axis"], ["y"])
        if keeps_axis
        else helper.make_node("Identity", ["flat"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "one output",
        [helper.make_tensor_value_info(name, element, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.array(factor, np.float32), "factor"),
            numpy_helper.from_array(np.array([1]), "axis"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("keeps_axis", [True, False])
def test_foreign_models_of_one_output_are_compared(
    effnet_edge: Run, tmp_path: Path, keeps_axis: bool
) -> None:
    for name, factor in (("a", 3.0), ("same", 3.0 + 1e-6), ("opposite", -3.0)):
        shape = ["N", 3, 32, 32]
        model = _one_output("x", TensorProto.FLOAT, shape, factor, keeps_axis=keeps_axis)
        onnx.save(model, tmp_path / f"{name}.onnx")
    models = ("same.onnx", "opposite.onnx", "--reference", "a.onnx")

    limits = ("--limit", "8", "--max-nrmse", "0.01")
    completed = effnet_edge("parity", *models, "--regression", *limits, "--json")
    same, opposite = json.loads(completed.stdout)["candidates"]
    assert (same["passed"], opposite["passed"]) == (True, False)
    assert opposite["correlation"] == pytest.approx(-1)

    rows = [f"{name},1" for name in _pictures(tmp_path)]
    (tmp_path / "list.csv").write_text("path,class_index\n" + "\n".join(rows))
    limits = ("--labels", "list.csv", "--min-agreement", "100", "--max-drop", "100")
    completed = effnet_edge("parity", *models, "--multi-label", *limits, "--json")
    same, opposite = json.loads(completed.stdout)["candidates"]
    assert (same["passed"], opposite["passed"]) == (True, False)
    assert abs(opposite["top1_drop"]) == 100

    completed = effnet_edge("parity", *models)
    assert completed.returncode == 2
    assert "--regression for a value" in completed.stderr.splitlines()[-1]
