"""Names of classes, files and folders are text: no markup, no command to the terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from tiny_bundles import CLASSES, tiny_model, write_bundle

from effnet_edge.labels import Label

if TYPE_CHECKING:
    from pathlib import Path

LABELS = [
    "[/b]",
    "[link=http://example.org]cat[/link]",
    "\x1b]0;owned\x07cat",
    "dog :smile:",
    "\u202egod",
]
SHOWN = [*LABELS[:2], r"\x1b]0;owned\x07cat", "dog :smile:", r"\u202egod"]


def run(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from effnet_edge.cli.main import main; main()", *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    labels = [Label(name, None) for name in LABELS]
    return write_bundle(tmp_path / "b [x]", "onnxruntime", tiny_model(), labels)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    name = "p[/x] \x1b[31m :smile:.png"
    (tmp_path / "p[").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "p[" / name.partition("/")[2], "png")
    return "p[/" + name.partition("/")[2]


def test_names_are_shown_as_they_are(bundle: Path, picture: str, tmp_path: Path) -> None:
    done = run("predict", bundle, picture, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for each in (*SHOWN, r"p[/x] \x1b[31m :smile:.png"):
        assert each in done.stdout
    assert "\x1b" not in done.stdout
    told = run("info", bundle, cwd=tmp_path)
    assert "b [x] (all files intact)" in told.stdout


def test_json_is_the_same_text_and_does_nothing_either(
    bundle: Path, picture: str, tmp_path: Path
) -> None:
    done = run("predict", bundle, picture, "--json", cwd=tmp_path)
    answers = json.loads(done.stdout)["images"][picture]
    assert sorted(each["label"] for each in answers) == sorted(LABELS)
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout


def test_an_error_does_nothing_either(bundle: Path, tmp_path: Path) -> None:
    done = run("predict", bundle, "no\x1b[31m[/b].png", cwd=tmp_path)
    assert done.returncode != 0
    assert r"no\x1b[31m[/b].png" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_terminal_that_lacks_a_character_gets_its_escape(tmp_path: Path) -> None:
    labels = [Label("犬", None)] * CLASSES
    path = write_bundle(tmp_path / "b", "onnxruntime", tiny_model(), labels)
    Image.new("RGB", (9, 9)).save(tmp_path / "dog.png")
    done = run("predict", path, "dog.png", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert r"\u72ac" in done.stdout


def redirected(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    shell = f"{sys.executable} -c 'from effnet_edge.cli.main import main; main()' {command}"
    return subprocess.run(
        ["sh", "-c", shell],
        check=False,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


@pytest.mark.parametrize("json_option", ["", "--json"])
def test_a_full_standard_output_is_one_line(tmp_path: Path, json_option: str) -> None:
    done = redirected(f"list {json_option} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr
        == "effnet-edge: error: the system refuses: No space left on device: standard output\n"
    )


@pytest.mark.parametrize("json_option", ["", "--json"])
def test_a_closed_standard_output_is_no_error(tmp_path: Path, json_option: str) -> None:
    done = redirected(f"list {json_option} >&-", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_lost_terminal_ends_a_command_as_sigterm_does() -> None:
    code = (
        "import os, signal; from effnet_edge.cli import main\n"
        "def wait(**_): os.kill(os.getpid(), signal.SIGHUP)\n"
        "main.cli.main = wait; main.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    assert done.returncode == 128 + signal.SIGHUP
