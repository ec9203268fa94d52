"""What a command says at Ctrl-C is true of what it leaves, wherever in its work Ctrl-C came."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.cli import answer_output
from effnet_edge.cli.ending import CtrlC
from effnet_edge.cli.lines_file import ERROR, PICTURE, LinesFile
from effnet_edge.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle "b" and a folder "in" of five pictures, where the test runs."""
    write_bundle(tmp_path / "b", "onnxruntime", tiny_model(batch="N"))
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 9, 3), np.uint8)
    for number, each in enumerate(pixels):
        Image.fromarray(each).save(tmp_path / f"in/{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, CtrlC())
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
def test_a_line_is_counted_though_ctrl_c_comes_just_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def write(*arguments: int | bytes) -> int:
        written = real(*arguments)  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGINT)
        return written

    with LinesFile(tmp_path / "a.jsonl", {"of": "a test"}, resume=False) as lines:
        lines.write({PICTURE: "first"})
        monkeypatch.setattr(os, "pwrite", write)
        with pytest.raises(KeyboardInterrupt):
            lines.write({PICTURE: "second", ERROR: "is damaged"})
        assert (lines.done, lines.failed) == ({"first", "second"}, 1)
    assert (tmp_path / "a.jsonl").read_text().count("\n") == 3


@pytest.mark.usefixtures("place", "_ctrl_c")
def test_a_document_has_as_many_answers_as_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(answer_output.Outcome):
        def __setattr__(self, name: str, value: int) -> None:
            super().__setattr__(name, value)
            if (name, value) == ("answered", 3):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(answer_output, "Outcome", Interrupted)
    done = CliRunner().invoke(cli, ["predict", "b", "in", "--json"])
    assert done.exit_code == 130
    assert "interrupted: 3 answered" in done.stderr
    assert len(json.loads(done.stdout)["images"]) == 3


COMMANDS = {
    "parity b --reference b --images in --report page.html --quiet": "page.html",
    "deploy b --for triton -o models": "models",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_written_when_ctrl_c_comes_is_named(place: Path, command: str) -> None:
    """It comes when the first output has its name, and what the disk has to say is waited for."""
    code = (
        "import signal, sys, effnet_edge.files as files, effnet_edge.deploy.repository as models\n"
        "from pathlib import Path\n"
        "from effnet_edge.cli.main import main\n"
        "def sync(path, real=files.sync):\n"
        f"    if Path({COMMANDS[command]!r}).exists():\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    real(path)\n"
        "files.sync = models.sync = sync\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130
    line = done.stderr.splitlines()[-1]
    assert line.startswith("effnet-edge: error: interrupted: ")
    assert line.endswith(f"{COMMANDS[command]} is written whole, and nothing else")
    assert (place / COMMANDS[command]).exists()


@pytest.mark.parametrize("streams", ["", "2>&-"])
def test_ctrl_c_while_the_command_is_imported_is_one_line(tmp_path: Path, streams: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import signal, sys\n"
        "class Finder:\n"
        "    def find_spec(name, *_):\n"
        "        if name == 'click':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder)\n"
        "from effnet_edge.cli.start import main\n"
        "main()\n"
    )
    line = f"{sys.executable} {program} list {streams}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    told = "effnet-edge: error: interrupted: no output was written\n"
    assert done.stderr == ("" if streams else told)


def test_the_installed_command_begins_there() -> None:
    (command,) = metadata.entry_points(group="console_scripts", name="effnet-edge")
    assert command.value == "effnet_edge.cli.start:main"
