"""Repositories for OpenVINO Model Server, held to what its documentation says.

The server cannot be had from the package registries; OpenVINO itself runs what is written, with
the configuration that is written.
"""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from tiny_bundles import SIDE, tiny_model, write_bundle

from effnet_edge.deploy.repository import deploy
from effnet_edge.deploy.servers import server
from effnet_edge.errors import UsageError
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.openvino_core import import_openvino, openvino_core

SCHEMA = json.loads(Path(__file__).with_name("ovms_config.schema.json").read_text())
OVMS = server("ovms")


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    return [
        write_bundle(tmp_path / "fp32", "openvino", tiny_model()),
        write_bundle(tmp_path / "fp16", "openvino", tiny_model(batch="N"), precision="fp16"),
    ]


def read(models: Path) -> dict[str, object]:
    document = json.loads((models / "config.json").read_text())
    jsonschema.validate(document, SCHEMA)
    return document


def test_the_configuration_is_one_and_its_models_are_there(
    bundles: list[Path], tmp_path: Path
) -> None:
    models = tmp_path / "models"
    deploy(bundles, models, OVMS)
    for each in read(models)["model_config_list"]:
        entry = each["config"]
        # Paths are relative to config.json; versions are folders of positive whole numbers.
        versions = [int(each.name) for each in (models / entry["base_path"]).iterdir()]
        assert versions == [1]
        folder = models / entry["base_path"] / "1"
        assert {"model.xml", "model.bin"} <= {each.name for each in folder.iterdir()}
        import_openvino()
        compiled = openvino_core().compile_model(
            folder / "model.xml", entry["target_device"], entry.get("plugin_config", {})
        )
        pixels = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
        with EngineRunner.load(tmp_path / entry["name"]) as runner:
            assert np.array_equal(compiled(pixels)[0], runner.infer(pixels))


def test_fp32_stays_fp32_and_nothing_else_is_asked_for(bundles: list[Path], tmp_path: Path) -> None:
    deploy(bundles, tmp_path / "models", OVMS)
    fp32, fp16 = (each["config"] for each in read(tmp_path / "models")["model_config_list"])
    assert fp32["plugin_config"] == {"INFERENCE_PRECISION_HINT": "f32"}
    assert "plugin_config" not in fp16


def test_a_configuration_that_is_there_keeps_what_it_says(
    bundles: list[Path], tmp_path: Path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    theirs = {"config": {"name": "théirs", "base_path": "/elsewhere", "nireq": 4}}
    document = {"model_config_list": [theirs], "monitoring": {"metrics": {"enable": True}}}
    (models / "config.json").write_text(json.dumps(document))
    deploy(bundles[:1], models, OVMS)
    newer = write_bundle(
        tmp_path / "new" / "fp32", "openvino", tiny_model(), created="2027-01-01T00:00:00Z"
    )
    (model,) = deploy([newer], models, OVMS)
    assert model.version == 2
    found = read(models)
    assert found["monitoring"] == document["monitoring"]
    names = [each["config"]["name"] for each in found["model_config_list"]]
    assert names == ["théirs", "fp32"]
    with pytest.raises(UsageError, match="has a config.json"):
        deploy(bundles, models, server("triton", wrapped=True))


def test_an_entry_without_a_model_is_not_taken_over(bundles: list[Path], tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    theirs = {"config": {"name": "fp32", "base_path": "/elsewhere"}}
    (models / "config.json").write_text(json.dumps({"model_config_list": [theirs]}))
    with pytest.raises(UsageError, match="has an entry of that name already"):
        deploy(bundles[:1], models, OVMS)
    assert [each.name for each in models.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"model_config_list": [{}]}', "[" * 100_000, '"\\ud800"']
)
def test_a_configuration_that_is_none_is_refused(
    bundles: list[Path], tmp_path: Path, text: str
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "config.json").write_text(text)
    with pytest.raises(UsageError, match="correct it, or choose another -o"):
        deploy(bundles, tmp_path / "models", OVMS)
    assert (tmp_path / "models" / "config.json").read_text() == text


def test_a_folder_in_the_place_of_the_configuration_is_refused(
    bundles: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "models" / "config.json").mkdir(parents=True)
    with pytest.raises(UsageError, match="correct it, or choose another -o"):
        deploy(bundles, tmp_path / "models", OVMS)


@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
def test_a_model_cannot_be_called_as_the_files_beside_it(
    bundles: list[Path], tmp_path: Path, name: str
) -> None:
    bundle = bundles[0].rename(tmp_path / name)
    with pytest.raises(UsageError, match=f"'{name}' cannot be a model's name"):
        deploy([bundle], tmp_path / "models", OVMS)
    assert not (tmp_path / "models").exists()
