"""What a newcomer types first, in ordinary and clumsy ways."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from effnet_edge.cli.common import _plain_console
from effnet_edge.text import plain

EFFNET_EDGE = str(Path(sys.executable).with_name("effnet-edge"))


def effnet_edge(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [EFFNET_EDGE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1", **environment},
    )


@pytest.mark.parametrize("command", [(), ("calibration",)])
def test_a_group_without_a_command_prints_its_help(command: tuple[str, ...]) -> None:
    done = effnet_edge(*command)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == effnet_edge(*command, "--help").stdout
    assert len(done.stdout.splitlines()) > 5


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("export", "efficientnet_b0"), "did you mean b0?"),
        (("export", "efficientnet-b0"), "did you mean b0?"),
        (("export", "EfficientNetB0"), "did you mean b0?"),
        (("export", "tf_efficientnetv2_s"), "did you mean v2-s?"),
        (("export", "efficientnet_lite0"), "did you mean lite0?"),
        (("export", "b9"), "did you mean b0"),
        (("export", "resnet50"), "choose one of b0"),
        (("parity", "torch", "--variant", "efficientnet_b3"), "did you mean b3?"),
        (("sensitivity", "efficientnet_b0"), "did you mean b0?"),
        (("export", "b0", "--targt", "openvino"), "--target"),
        (("export", "b0", "--calibraton", "x"), "--calibration"),
        (("exprot", "b0"), "did you mean export?"),
        (("calibration", "dif"), "diff"),
    ],
)
def test_a_misspelt_name_is_met_with_the_right_one(arguments: tuple[str, ...], meant: str) -> None:
    done = effnet_edge(*arguments)

    assert done.returncode == 2
    assert meant.lower() in done.stderr.lower()
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "b9"),
        ("export", "nothing"),
        ("export", "b0", "--weights", "not-there.pth"),
        ("export", "b0", "--weights", "imagnet"),
        ("export", "b0", "-o", str(Path(__file__).parent)),
        ("parity", "torch", "--weights", "not-there.pth"),
        ("sensitivity", "b0", "--weights", "not-there.pth"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_heavy_is_imported(
    arguments: tuple[str, ...],
) -> None:
    code = (
        "import sys, contextlib, effnet_edge.cli.main as main\n"
        f"sys.argv[1:] = {list(arguments)!r}\n"
        "with contextlib.suppress(SystemExit): main.main()\n"
        "found = {'torch', 'onnx', 'openvino'} & set(sys.modules)\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_common_options_may_stand_before_the_command() -> None:
    after, before = effnet_edge("list", "--json"), effnet_edge("--json", "list")

    assert before.returncode == 0
    assert before.stdout == after.stdout != effnet_edge("list").stdout


def test_the_version_is_told() -> None:
    assert effnet_edge("--version").stdout.startswith("effnet-edge, version ")


def completions(line: str) -> list[str]:
    done = effnet_edge(
        _EFFNET_EDGE_COMPLETE="bash_complete",
        COMP_WORDS=line,
        COMP_CWORD=str(len(line.split(" ")) - 1),
    )
    return [each.partition(",")[2] for each in done.stdout.splitlines()]


def test_the_shell_completes_commands_variants_and_targets() -> None:
    assert completions("effnet-edge exp") == ["export"]
    assert completions("effnet-edge export lite") == [f"lite{index}" for index in range(5)]
    assert completions("effnet-edge export b0 --target open") == ["openvino"]
    assert "b0" in completions("effnet-edge sensitivity b")


def test_sixty_columns_are_enough_for_the_help() -> None:
    for command in ((), ("export",), ("parity",)):
        done = effnet_edge(*command, "--help", COLUMNS="60")
        assert done.returncode == 0
        assert max(map(len, done.stdout.splitlines())) <= 60, command


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (("export", "b0"), "loading the network"),
        (("parity", "torch"), "opening the models"),
        (("sensitivity", "b0"), "measuring the cost of each tensor"),
    ],
)
def test_the_first_answer_comes_before_anything_heavy_is_imported(
    arguments: tuple[str, ...], first: str, tmp_path: Path
) -> None:
    """PyTorch is in the way, so that the command ends where it would be imported."""
    (tmp_path / "torch.py").write_text("raise SystemExit(3)")
    done = effnet_edge(*arguments, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")

    assert (done.returncode, done.stderr.splitlines()) == (3, [first])


def test_a_bench_says_at_once_what_it_does() -> None:
    assert effnet_edge("bench", "nothere").stderr.splitlines()[0] == "opening the models"


@pytest.mark.parametrize("width", [40, 60, 80])
def test_nothing_in_a_table_is_cut_where_it_is_narrow(width: int) -> None:
    names = ["imagenet, noisy-student", "ImageNet", "torchvision"]
    table = Table(*names)
    table.add_row(*(name * 3 for name in names))
    console = _plain_console(width=width, file=io.StringIO())
    console.print(table)

    assert "…" not in console.file.getvalue()


def test_nothing_that_a_table_shows_acts() -> None:
    name, shown = "c\x01trl\x1b[31m\u202e[b]\x07", r"c\x01trl\x1b[31m\u202e[b]\x07"
    # rich leaves a bell and its like out of a Text.
    marked = Text(name)
    table = Table(title=Text(f"{name}\nlines"), caption=Text(name))
    table.add_column(Text(name), footer=Text(name))
    table.add_column(name)
    table.add_row(marked, name)
    console = _plain_console(width=160, file=io.StringIO())
    console.print(table, Text(name), name)

    told = console.file.getvalue()
    assert not {each for each in told if each != "\n" and each != plain(each)}
    assert told.count(shown.removesuffix(r"\x07")) == 8
    assert told.count(shown) == 3
    borders = {len(line) for line in told.splitlines() if line.startswith(("┃", "│"))}
    assert len(borders) == 1


def test_a_name_with_a_line_break_is_one_line_and_one_row() -> None:
    table = Table("name", title="of a\nb")
    table.add_row("a\nb")
    table.add_row(Text("two\nlines of its own"))
    console = _plain_console(width=160, file=io.StringIO())
    console.print("a\nb: passed", table)

    lines = console.file.getvalue().splitlines()
    assert lines[0] == r"a\nb: passed"
    assert [line.strip("│ ") for line in lines if line.startswith("│")] == [
        r"a\nb",
        "two",
        "lines of its own",
    ]
    assert r"of a\nb" in lines[1]
