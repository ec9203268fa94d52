"""Commands that end before their time: by Ctrl-C, once or more, or as nobody reads the output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from real_commands import EFFNET_EDGE
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.cli.ending import READER_LEFT, CtrlC
from effnet_edge.cli.main import cli
from effnet_edge.errors import UsageError
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle "b", and as many names of one picture in "in" as keep a command busy."""
    folder = tmp_path_factory.mktemp("early")
    write_bundle(folder / "b", "onnxruntime", tiny_model(batch="N"))
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "one.png")
    (folder / "in").mkdir()
    for number in range(4000):
        os.link(folder / "one.png", folder / f"in/{number:04}.png")
    return folder


def statuses(line: str, folder: Path) -> tuple[list[int], str]:
    """The exit code of each command of a pipe, and what they complained of."""
    script = f'{line}; echo "${{PIPESTATUS[@]}}" >&2'
    done = subprocess.run(
        ["bash", "-c", script.replace("effnet-edge", str(EFFNET_EDGE))],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    *told, codes = done.stderr.splitlines()
    return [int(code) for code in codes.split()], "\n".join(told)


def test_a_reader_that_leaves_in_the_middle_is_told_as_of_any_program(place: Path) -> None:
    codes, told = statuses("effnet-edge predict b in --quiet | head -1", place)
    assert codes == [READER_LEFT, 0]
    assert told == ""


@pytest.mark.parametrize("command", ["list", "list --json", "info b", "predict b one.png"])
def test_what_is_done_has_its_own_exit_code_though_nobody_reads_it(
    place: Path, command: str
) -> None:
    """A table goes out line by line, and a document at the end: either way nothing is told."""
    codes, told = statuses(f"effnet-edge {command} --quiet | (exec <&-; sleep 1)", place)
    assert codes[0] in (0, READER_LEFT)
    assert told == ""


@pytest.mark.parametrize("option", ["", "--json"])
def test_what_failed_has_not_passed_though_nobody_reads_it(place: Path, option: str) -> None:
    (place / "bad.png").write_bytes(b"no picture")
    command = f"effnet-edge predict b bad.png one.png {option} 2>/dev/null"
    codes, _ = statuses(f"{command} | (exec <&-; sleep 1)", place)
    assert codes[0] in (1, READER_LEFT)


@pytest.mark.parametrize("gaps", [(0.003, 0.02), (0.05, 0.3)])
def test_two_more_ctrl_c_change_nothing(place: Path, gaps: tuple[float, ...]) -> None:
    command = [EFFNET_EDGE, "predict", "b", "in", "--top", "1", "--jsonl", f"{gaps[0]}.jsonl"]
    with subprocess.Popen(command, cwd=place, stdout=-1, stderr=-1, text=True) as process:
        path = place / f"{gaps[0]}.jsonl"
        while not path.exists() or path.stat().st_size < 2000:
            time.sleep(0.01)
            assert process.poll() is None
        for gap in (0.0, *gaps):
            time.sleep(gap)
            process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    kept = path.read_text().count("\n") - 1
    assert f"interrupted: {kept} answered, which {path.name} keeps" in told
    assert "Traceback" not in told
    assert "no output was written" not in told


def test_ctrl_c_names_what_a_parity_keeps(place: Path) -> None:
    command = [EFFNET_EDGE, "parity", "b", "--reference", "b", "--images", "in"]
    command += ["--jsonl", "p.jsonl", "--answers", "kept", "--batch-size", "4"]
    with subprocess.Popen(command, cwd=place, stdout=-1, stderr=-1, text=True) as process:
        path = place / "p.jsonl"
        while not path.exists() or path.stat().st_size < 4000:
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    line = told.splitlines()[-1]
    assert line.endswith(
        "interrupted: kept keeps what was answered, and p.jsonl the lines: the same command with "
        "--resume goes on"
    )


def test_signals_of_one_second_are_one() -> None:
    now = [100.0]
    handler = CtrlC(lambda: now[0])
    with pytest.raises(KeyboardInterrupt):
        handler(signal.SIGINT, None)
    now[0] += 0.9
    handler(signal.SIGINT, None)
    now[0] += 0.2
    with pytest.raises(KeyboardInterrupt):
        handler(signal.SIGINT, None)


def test_who_ignored_ctrl_c_goes_on_doing_so(place: Path) -> None:
    """As a shell does for what runs in the background."""
    code = (
        "import os, signal, sys\n"
        "from effnet_edge.cli import main as front\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "front.cli.main = lambda **_: os.kill(os.getpid(), signal.SIGINT) or 0\n"
        "front.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=place, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        "tune b0 --calibration . --max-kl nan",
        "tune b0 --calibration . --max-latency nan",
        "export b0 --int8 --max-kl nan",
        "export b0 --int8 --max-drop nan",
        "predict b one.png --threshold nan",
        "tune b0 --calibration . --max-drop inf",
        "tune b0 --calibration . --max-latency inf",
        "export b0 --int8 --max-kl inf",
        "export b0 --int8 --max-nrmse inf",
        "predict b one.png --every inf",
        "build b --max-latency inf",
    ],
)
def test_neither_nan_nor_infinity_is_a_number(
    place: Path, monkeypatch: pytest.MonkeyPatch, arguments: str
) -> None:
    monkeypatch.chdir(place)
    done = CliRunner().invoke(cli, arguments.split())
    assert done.exit_code == 2
    *_, option, value = arguments.split()
    assert f"Invalid value for '{option}': {value} is not a number" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        "parity b --limit",
        "parity b --batch-size",
        "sensitivity b --limit",
        "export b0 --calibration-size",
        "export b0 --num-classes",
        "predict b one.png --top",
        "bench b --runs",
        "build b --dla",
    ],
)
def test_a_number_that_no_library_has_an_integer_for_is_bad_use(
    place: Path, monkeypatch: pytest.MonkeyPatch, arguments: str
) -> None:
    monkeypatch.chdir(place)
    number = str(10**20)
    done = CliRunner().invoke(cli, [*arguments.split(), number])
    assert done.exit_code == 2
    option = arguments.rsplit(maxsplit=1)[-1]
    assert f"Invalid value for '{option}': {number} is more than 2147483647" in done.output


def test_a_batch_that_no_engine_takes_is_refused_before_the_work() -> None:
    done = CliRunner().invoke(cli, ["export", "b0", "--batch", "1:8:65536"])
    assert done.exit_code == 2
    assert "Invalid value for '--batch': an engine takes at most 65535 images" in done.output


@pytest.mark.parametrize("option", ["--threads", "--streams"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "litert"])
def test_more_threads_than_any_machine_has_are_refused(
    tmp_path: Path, option: str, engine: str
) -> None:
    write_bundle(tmp_path / "b", engine, tiny_model())
    done = CliRunner().invoke(cli, ["bench", str(tmp_path / "b"), option, "99999", "--runs", "1"])
    assert done.exit_code == 2
    assert f"Invalid value for '{option}': 99999 is not in the range 1<=x<=" in done.output
    with pytest.raises(UsageError, match=r"99999: needs \d+ or fewer"):
        EngineRunner.load(tmp_path / "b", **{option.removeprefix("--"): 99999})
