"""README and docs: every command, option, link, path and snippet in them is one that exists."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from effnet_edge.cli.main import cli

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted(
    [README, ROOT / "CHANGELOG.md", ROOT / "examples/README.md", *(ROOT / "docs").glob("*.md")]
)
FIGURES = "figures.md"
TABLES_OF_ONE_BENCHMARK = {
    "int8-against-peers.md",
    "int8-ablation.md",
    "fp16-against-peers.md",
    "tensorrt-sizes.md",
}
NUMBER = r"(?<![\w.:,-])[−-]?\d+(?:\.\d+)?(?:e-?\d+)?"
# A duration or a size of any number, an accuracy or error where it has a fraction, any KL.
MEASURED = re.compile(
    rf"{NUMBER} ?(?:ms|s|min|MB|GB|MiB|GiB)\b"
    r"|(?<![\w.:,-])\d+\.\d+ ?(?:points?\b|%|dB\b|nats\b)"
    r"|\bKL(?: divergence)?(?: of| is)? \d"
)
IN_README = re.compile(rf"{NUMBER} ?(?:points?\b|%|dB\b|nats\b|ms\b|s\b|MB\b|GB\b)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
PATH = re.compile(
    r"(?:tests|benchmarks|examples|tools|docs|effnet_edge|export|calibration)/[\w./*-]+"
)
MODULE = re.compile(r"effnet_(?:edge|export|calibration)(?:\.\w+)+")
OPTIONS_OF_OTHERS = {
    "--slow",
    "--sample",
    "--peers",
    "--extra-index-url",
    "--show",
    "--output",
    "--strict",
}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=name)


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks in one of the languages ("" is none)."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [text for language, text in found if language in languages]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    return [" ".join(span.split()) for span in SPAN.findall(prose(page))]


def command_lines(page: Path) -> list[str]:
    """Every `effnet-edge …` of the page, whole: in shells, workflows, usage blocks and spans."""
    lines = []
    for block in blocks(page, "sh", "yaml"):
        lines += block.replace("\\\n", " ").splitlines()
    lines += [" ".join(block.split()) for block in blocks(page, "") if "[--" in block]
    commands = []
    for line in [*lines, *spans(page)]:
        for part in re.split(r" && | \| ", line):
            start = re.match(r"\W*(?:run: )?(?:\S*/)?effnet-edge(?: |$)", part)
            if start:
                commands.append(part[start.end() :])
    return commands


def parse(line: str) -> None:
    """Parse as click would, without running; the words in capitals are any value.

    Raises `click.ClickException` for a command, option or choice that does not exist.
    """
    words = shlex.split(line.replace("[", " ").replace("]", " "), comments=True)
    command: click.Command = cli
    context = click.Context(cli, info_name="effnet-edge")
    words = [word for word in words if word != "…"]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            raise click.UsageError(f"no command {words[0]!r}")
        command, words = found, words[1:]
        context = click.Context(command, context, info_name=command.name)
    # `--fp16|--fp32` are two options, `same|symmetric` two values of one.
    given = [each for word in words for each in (word.split("|") if word[:1] == "-" else [word])]
    values, rest, _ = command.make_parser(context).parse_args(given)
    if rest:
        raise click.UsageError(f"too many arguments: {' '.join(rest)}")
    for parameter in command.params:
        value = values.get(parameter.name or "")
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            for each in value.split("|"):
                if not each.isupper():
                    parameter.type.convert(each, parameter, context)


def options_of(command: click.Command) -> set[str]:
    parameters = command.get_params(click.Context(command))
    own = {each for one in parameters for each in (*one.opts, *one.secondary_opts)}
    if isinstance(command, click.Group):
        own = own.union(*map(options_of, command.commands.values()))
    return {each for each in own if each.startswith("--")} | {"--help"}


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the page's headings."""
    headings = HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", each.lower()).strip().replace(" ", "-") for each in headings}


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 100


@every_page
def test_every_command_line_parses(page: Path) -> None:
    wrong = []
    for line in command_lines(page):
        try:
            parse(line)
        except (click.ClickException, ValueError) as error:
            wrong.append(f"effnet-edge {line}: {error}")
    assert not wrong


@pytest.mark.parametrize(
    "line",
    [
        "exprot b0",
        "export b0 --targt openvino",
        "export b0 --target openvno",
        "export b0 --padding same|symetric",
        "export VARIANT [--fp16|--fp23]",
        "parity A B --reprot FILE.html",
        "calibration dif A B",
        "info b0 b1",
    ],
)
def test_a_command_line_with_a_mistake_does_not_parse(line: str) -> None:
    with pytest.raises(click.ClickException):
        parse(line)


def test_the_commands_are_found_where_they_stand() -> None:
    assert "export b0 --target openvino" in [line.strip() for line in command_lines(README)]
    assert len(command_lines(README)) > 10
    assert any(
        line.startswith("parity b0 --images") for line in command_lines(ROOT / "docs/parity.md")
    )


@every_page
def test_every_option_in_the_text_exists(page: Path) -> None:
    named = {span.split()[0].split("=")[0] for span in spans(page) if span.startswith("--")}
    assert named - options_of(cli) <= OPTIONS_OF_OTHERS


def test_the_page_on_export_names_every_option() -> None:
    text = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    options = options_of(cli.commands["export"]) - {"--output", "--help"}
    assert {each for each in options if not re.search(rf"{each}\b", text)} == set()


def test_the_readme_names_every_command() -> None:
    named = {line.split()[0] for line in command_lines(README) if line.split()}
    assert set(cli.commands) <= named


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        if not goal.exists() or (anchor and anchor not in anchors(goal)):
            broken.append(target)
    assert not broken


def test_every_page_is_in_an_index() -> None:
    """From the README every page is reached, over links alone."""
    reached, waiting = {README}, [README]
    while waiting:
        page = waiting.pop()
        for target in LINK.findall(prose(page)):
            goal = (page.parent / target.partition("#")[0]).resolve()
            if goal.suffix == ".md" and goal.exists() and goal not in reached:
                reached.add(goal)
                waiting.append(goal)
    assert {name(page) for page in PAGES} - {name(page) for page in reached} <= {
        "examples/README.md"
    }


@every_page
def test_every_file_and_module_that_is_named_exists(page: Path) -> None:
    text = prose(page)
    paths = [each.rstrip(".") for span in SPAN.findall(text) for each in PATH.findall(span)]
    missing = [each for each in paths if not (ROOT / each).exists()]
    for module in {each for span in SPAN.findall(text) for each in MODULE.findall(span)}:
        if not exists(module):
            missing.append(module)
    assert not missing


def exists(dotted: str) -> bool:
    """Whether the name is a module, or something in one."""
    try:
        importlib.import_module(dotted)
    except ImportError:
        parent, _, last = dotted.rpartition(".")
        return bool(parent) and exists(parent) and hasattr(importlib.import_module(parent), last)
    return True


@every_page
def test_every_python_snippet_compiles_and_imports_what_exists(page: Path) -> None:
    for snippet in blocks(page, "python"):
        for node in ast.walk(ast.parse(snippet)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("effnet_"):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, each.name) for each in node.names), ast.unparse(node)


def test_the_readme_tells_no_figure() -> None:
    assert IN_README.findall(README.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "page",
    [each for each in PAGES if each.name not in {FIGURES, *TABLES_OF_ONE_BENCHMARK}],
    ids=name,
)
def test_measured_figures_stand_in_one_place(page: Path) -> None:
    assert MEASURED.findall(SPAN.sub("", prose(page))) == []


def test_a_measured_figure_is_recognized() -> None:
    text = (ROOT / "docs" / FIGURES).read_text(encoding="utf-8")
    assert len(MEASURED.findall(text)) > 20
    for figure in ("32 s", "7 min", "9.7 GB", "98.5 %", "−0.50 points", "29.1 dB", "KL 0.0064"):
        assert MEASURED.search(f"B0 has {figure} here"), figure
    for other in ("TensorRT 10.3", "the gate is 50 dB", "the 95 % interval", "crops of 224/256"):
        assert not MEASURED.search(other), other


def test_the_page_of_figures_links_to_the_tables_of_benchmarks() -> None:
    targets = LINK.findall((ROOT / "docs" / FIGURES).read_text(encoding="utf-8"))
    assert set(targets) >= TABLES_OF_ONE_BENCHMARK
