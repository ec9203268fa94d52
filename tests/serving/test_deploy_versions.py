"""What may stand beside what in a repository: models of one server, versions that answer alike."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from repository_content import OVMS, TRITON, WRAPPED, content
from tiny_bundles import CLASSES, PREPROCESSING, tiny_model, write_bundle

from effnet_edge.bundle import OutputSpec
from effnet_edge.deploy.repository import deploy
from effnet_edge.errors import UsageError
from effnet_edge.labels import Label

if TYPE_CHECKING:
    from pathlib import Path

    from effnet_edge.deploy.servers import Server


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "ov", "openvino", tiny_model(), precision="fp16")


def newer(place: Path, *labels: Any, dtype: str = "uint8", **changes: Any) -> Path:
    """Another bundle of the same network."""
    changes = {"precision": "fp16", "created": "2027-01-01T00:00:00Z", **changes}
    return write_bundle(place / "newer", "openvino", tiny_model(dtype), *labels, **changes)


@pytest.mark.parametrize("name", ["ov", "other"])
@pytest.mark.parametrize(
    ("theirs", "ours", "says"),
    [
        (TRITON, OVMS, "has a config.pbtxt, as Triton reads it"),
        (WRAPPED, OVMS, "has a config.pbtxt, as Triton reads it"),
        (OVMS, TRITON, "has a config.json, as OpenVINO Model Server reads it"),
        (OVMS, WRAPPED, "has a config.json, as OpenVINO Model Server reads it"),
    ],
)
def test_another_servers_repository_is_refused(
    bundle: Path, tmp_path: Path, name: str, theirs: Server, ours: Server, says: str
) -> None:
    models = tmp_path / "models"
    deploy([bundle], models, theirs)
    before = content(models)
    with pytest.raises(UsageError, match=says):
        deploy([newer(tmp_path)], models, ours, name=name)
    assert content(models) == before


@pytest.mark.parametrize("server", [TRITON, WRAPPED, OVMS])
@pytest.mark.parametrize(
    ("dtype", "changes", "says"),
    [
        ("uint8", {"crop_fraction": 1.0}, "has other crop_fraction than"),
        ("uint8", {"interpolation": "bilinear"}, "has other interpolation than"),
        ("uint8", {"fit": "pad"}, "has other fit, mean than"),
        ("float32", {"mean": (0.5, 0.5, 0.5)}, "has other mean than"),
        ("float32", {"std": (0.5, 0.5, 0.5), "fit": "stretch"}, "has other fit, std than"),
    ],
)
def test_a_version_whose_pictures_clients_prepare_otherwise_is_refused(
    tmp_path: Path, server: Server, dtype: str, changes: dict[str, Any], says: str
) -> None:
    models = tmp_path / "models"
    first = write_bundle(tmp_path / "m", "openvino", tiny_model(dtype), precision="fp16")
    deploy([first], models, server)
    before = content(models)
    other = newer(tmp_path, dtype=dtype, preprocessing=replace(PREPROCESSING, **changes))
    with pytest.raises(UsageError, match=says):
        deploy([other], models, server, name="m")
    assert content(models) == before


@pytest.mark.parametrize("server", [TRITON, WRAPPED, OVMS])
def test_a_version_whose_outputs_are_read_otherwise_is_refused(
    bundle: Path, tmp_path: Path, server: Server
) -> None:
    deploy([bundle], tmp_path / "models", server)
    other = newer(tmp_path, output=OutputSpec("logits", CLASSES, "multi-label"))
    with pytest.raises(UsageError, match=r"other kind of output|something else"):
        deploy([other], tmp_path / "models", server, name="ov")


@pytest.mark.parametrize("server", [TRITON, WRAPPED, OVMS])
def test_a_version_with_other_labels_is_refused(
    bundle: Path, tmp_path: Path, server: Server
) -> None:
    models = tmp_path / "models"
    deploy([bundle], models, server)
    plants = [Label(f"plant {index}", None) for index in range(5)]
    for labels in (plants, None):
        with pytest.raises(UsageError, match=r"other labels|something else"):
            deploy([newer(tmp_path / str(labels), labels)], models, server, name="ov")
    assert [each.name for each in (models / "ov").iterdir() if each.is_dir()] == ["1"]


@pytest.mark.parametrize("server", [TRITON, WRAPPED, OVMS])
def test_what_is_in_the_graph_may_be_another(bundle: Path, tmp_path: Path, server: Server) -> None:
    deploy([bundle], tmp_path / "models", server)
    other = newer(tmp_path, preprocessing=replace(PREPROCESSING, mean=(0.5, 0.5, 0.5)))
    (told,) = deploy([other], tmp_path / "models", server, name="ov")
    assert told.version == 2
