"""A deploy that fails or is killed once something has appeared: undone, or gone on with."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from repository_content import OVMS, TRITON, content
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.cli.main import cli
from effnet_edge.deploy.repository import deploy
from effnet_edge.errors import UsageError, WriteError

FULL = "full"
SERVERS = {"ovms": OVMS, "triton": TRITON}
# What is deployed when something is there already, the last of its renames, and what comes of it.
CASES = [
    ("ovms", ["new"], "config.json", {"old": [1], "new": [1]}),
    ("ovms", ["new", "newer/old"], "config.json", {"old": [1, 2], "new": [1]}),
    ("triton", ["newer/old"], "old/config.pbtxt", {"old": [1, 2]}),
    ("triton", ["new", "newer/old"], "old/config.pbtxt", {"old": [1, 2], "new": [1]}),
]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Where the repository is to be, beside the bundles."""
    for index, name in enumerate(("old", "new", "newer/old")):
        created = f"202{index}-01-01T00:00:00Z"
        write_bundle(tmp_path / name, "openvino", tiny_model(), precision="fp16", created=created)
    return tmp_path / "models"


def beside(models: Path, names: list[str]) -> list[Path]:
    return [models.parent / name for name in names]


def versions(models: Path) -> dict[str, list[int]]:
    return {
        model.name: sorted(int(each.name) for each in model.iterdir() if each.is_dir())
        for model in models.iterdir()
        if model.is_dir()
    }


def told(models: Path) -> dict[str, bytes]:
    """What the configurations say."""
    return {name: each for name, each in content(models).items() if "config." in name}


def test_a_disk_that_is_full_is_one_line_with_the_place(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("effnet_edge.deploy.repository.write_whole", full)
    arguments = ["deploy", str(models.parent / "new"), "--for", "ovms", "-o", str(models)]
    with pytest.raises(WriteError) as refused:
        CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert str(refused.value) == f"-o {models}: cannot be written: No space left on device"
    assert not models.exists()


@pytest.mark.parametrize(("server", "names", "last", "after"), CASES)
def test_what_fails_on_the_way_leaves_all_as_it_was(
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: str,
    names: list[str],
    last: str,
    after: dict[str, list[int]],
) -> None:
    deploy(beside(models, ["old"]), models, SERVERS[server])
    before = content(models)
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if Path(target) == models / last:
            raise OSError(errno.ENOSPC, FULL)
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", refuse)
        with pytest.raises(OSError, match=FULL):
            deploy(beside(models, names), models, SERVERS[server])
    assert content(models) == before
    assert versions(models) == {"old": [1]}
    assert not any(each.name.startswith(".") for each in models.parent.iterdir())
    deploy(beside(models, names), models, SERVERS[server])
    assert versions(models) == after


def whole(models: Path, server: str, bundles: list[Path]) -> dict[str, bytes]:
    """What the configurations say where nothing comes between."""
    other = models.with_name("whole")
    deploy(beside(models, ["old"]), other, SERVERS[server])
    deploy(bundles, other, SERVERS[server])
    return told(other)


KILLED = """
import os, signal, sys
from pathlib import Path
from effnet_edge.cli.main import main

last, replace = Path(sys.argv.pop(1)), Path.replace

def killed(self, target):
    if Path(target) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)

Path.replace = killed
main()
"""


@pytest.mark.parametrize(("server", "names", "last", "after"), CASES)
def test_the_same_command_goes_on_after_a_kill(
    models: Path, server: str, names: list[str], last: str, after: dict[str, list[int]]
) -> None:
    deploy(beside(models, ["old"]), models, SERVERS[server])
    before = told(models)
    bundles = beside(models, names)
    command = [sys.executable, "-c", KILLED, models / last, "deploy", *bundles]
    ended = subprocess.run([*command, "--for", server, "-o", models], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert versions(models) == after
    assert told(models)[last] == before[last]
    models_told = deploy(bundles, models, SERVERS[server])
    assert versions(models) == after
    assert [each.name for each in models_told] == [Path(name).name for name in names]
    assert [each.version for each in models_told] == [after[each.name][-1] for each in models_told]
    assert told(models) == whole(models, server, bundles)
    with pytest.raises(UsageError, match="is there already, as"):
        deploy(bundles, models, SERVERS[server])


def test_what_is_there_of_several_is_told_and_the_rest_written(models: Path) -> None:
    deploy(beside(models, ["old"]), models, TRITON)
    before = content(models)
    told = deploy(beside(models, ["old", "new"]), models, TRITON)
    assert [(each.name, each.version) for each in told] == [("old", 1), ("new", 1)]
    assert before.items() <= content(models).items()
