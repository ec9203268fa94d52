"""Symbolic links that lead in a circle: bad use in one line, wherever one is written to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.cli.main import cli
from effnet_edge.deploy.repository import deploy
from effnet_edge.deploy.servers import server
from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle "b", a plan that has it, and links to themselves."""
    write_bundle(tmp_path / "b", "onnxruntime", tiny_model())
    (tmp_path / "plan.toml").write_text('[[bundle]]\npath = "b"\n')
    for name in ("loop", "loop.html", "loop.png"):
        (tmp_path / name).symlink_to(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(command: str) -> str:
    with pytest.raises(UsageError) as refused:
        CliRunner().invoke(cli, command.split(), catch_exceptions=False)
    return str(refused.value)


@pytest.mark.parametrize(
    "command",
    [
        "predict b p.jpg --jsonl loop",
        "predict b p.jpg --jsonl loop/lines",
        "deploy b --for triton -o loop",
        "deploy b --for ovms -o loop/models",
        "fleet plan.toml -o loop",
        "fleet plan.toml --report loop.html",
        "parity b --report loop.html",
        "parity b --answers loop",
        "bench b --report loop/page.html",
        "export b0 -o loop",
        "tune b0 -o loop --calibration .",
        "tune b -o loop --calibration .",
        "sensitivity b0 --plot loop.png",
    ],
)
def test_a_destination_in_a_circle_is_refused(place: Path, command: str) -> None:
    before = sorted(place.iterdir())
    assert "loop" in refusal(command)
    assert "the symbolic links on this way lead in a circle" in refusal(command)
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize("command", ["verify b --trusted loop", "sign b --key loop"])
def test_a_key_in_a_circle_is_refused(place: Path, command: str) -> None:
    assert (place / "loop").is_symlink()
    assert "loop: the key cannot be used" in refusal(command)


def test_a_repository_in_a_circle_is_refused_in_python_too(place: Path) -> None:
    with pytest.raises(UsageError, match="is no folder that can be a repository"):
        deploy([place / "b"], place / "loop", server("triton"))
