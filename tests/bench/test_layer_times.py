"""How long the layers of an engine take, by its own clock."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from tiny_bundles import quantized_model, tiny_model, write_bundle

from effnet_edge.bench.parts import by_part, part_of
from effnet_edge.cli.main import cli
from effnet_edge.errors import UsageError
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.layer_times import LayerTime, medians

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("target", "convolution"), [("openvino", "i8"), ("onnxruntime", "cpu")])
def test_every_layer_of_an_int8_engine_is_timed(
    tmp_path: Path, target: str, convolution: str
) -> None:
    path = write_bundle(
        tmp_path / "b", target, quantized_model(tmp_path, batch="N"), precision="int8"
    )
    with EngineRunner.load(path) as run:
        for size in (1, 3):  # OpenVINO has an engine of its own for single images
            times = run.layer_times(size, runs=3)
            found = [each for each in times if "Conv" in each.operator]
            assert [convolution in each.kernel.lower() for each in found] == [True]
            assert all(each.seconds >= 0 for each in times)
            assert sum(each.seconds for each in times) > 0


def test_a_batch_that_the_engine_does_not_take_is_not_timed(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "b", "onnxruntime", tiny_model(batch=2))
    with EngineRunner.load(path) as run:
        most = run.manifest.batch.maximum
        with pytest.raises(UsageError, match=f"size {most + 1}: needs {most} or fewer"):
            run.layer_times(most + 1)


def test_a_closed_runner_times_nothing(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "b", "onnxruntime", tiny_model())
    with EngineRunner.load(path) as run:
        pass
    with pytest.raises(Exception, match="closed"):
        run.layer_times(1)


def test_of_several_runs_the_median_counts() -> None:
    def run(first: float, second: float) -> list[LayerTime]:
        return [LayerTime("a", "Conv", "fast", first), LayerTime("b", "Conv", "fast", second)]

    told = medians([run(1, 20), run(3, 10), run(2, 30)])
    assert [(each.name, each.seconds) for each in told] == [("a", 2), ("b", 20)]


def test_layers_are_added_up_by_part_and_kernel() -> None:
    layers = [
        LayerTime("stages.0.0.project.conv/WithoutBiases", "Convolution", "I8", 1.0),
        LayerTime("stages.6.3.project.conv/WithoutBiases", "Convolution", "I8", 2.0),
        LayerTime("stages.6.4.project.conv/WithoutBiases", "Convolution", "f32", 1.0),
        LayerTime("stem.conv", "Convolution", "I8", 4.0),
        LayerTime("Constant_9", "Const", "", 0.0),
    ]
    parts = by_part(layers)
    assert [(part.part, part.kernel, part.layers, part.seconds) for part in parts] == [
        ("stem.conv", "I8", 1, 4.0),
        ("project.conv", "I8", 2, 3.0),
        ("project.conv", "f32", 1, 1.0),
    ]
    assert [part.share for part in parts] == [0.5, 0.375, 0.125]
    assert by_part([]) == []


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("stages.3.0.se.reduce/WithoutBiases", "se.reduce"),
        ("classifier/WithoutBiases", "classifier"),
        ("/features.4.0.block/conv", "block"),
        ("head.conv", "head.conv"),
        ("", ""),
    ],
)
def test_the_part_is_the_name_without_its_block(name: str, part: str) -> None:
    assert part_of(name) == part


def bench(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["bench", *arguments, "--runs", "2"], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_bench_tells_them_in_the_table_in_json_and_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "b", "onnxruntime", tiny_model(batch="N"))
    write_bundle(tmp_path / "other", "litert", tiny_model())
    table = bench("b", "--layers", "--report", "out.html")
    assert "b: its layers" in table
    assert "The layers of b" in (tmp_path / "out.html").read_text()
    first, second = json.loads(bench("b", "other", "--layers", "--json"))
    operators = [layer["operator"] for layer in first["layers"]]
    assert "Conv" in " ".join(operators)
    assert second["layers"] == []
    assert json.loads(bench("b", "--json"))[0]["layers"] == []
    with pytest.raises(UsageError, match="--layers: other: LiteRT tells no times of layers"):
        bench("other", "--layers")
