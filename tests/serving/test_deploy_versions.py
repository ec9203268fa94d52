"""What may stand beside what in a repository: models of one server, versions that answer alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from repository_content import OVMS, TRITON, WRAPPED, content
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.deploy.repository import deploy
from effnet_edge.errors import UsageError

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
