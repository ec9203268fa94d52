"""The hashed requirements are those of pyproject.toml, at the versions of constraints.txt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "requirements").glob("*.txt"))
EXTRAS = [path for path in FILES if path.stem not in {"cuda", "torch-cpu"}]
BUILT_WITH = {"hatchling", "pathspec", "pluggy", "tomlkit", "trove-classifiers"}
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")

by_name = pytest.mark.parametrize("path", EXTRAS, ids=lambda path: path.stem)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, set[str]]:
    """Name → the versions that it is pinned to, on some Python or other."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.removesuffix("\\").strip())
            found.setdefault(canonical(requirement.name), set()).add(str(requirement.specifier))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_requirement_is_exact_and_has_hashes(path: Path) -> None:
    requirements = re.split(r"\n(?=\S)", path.read_text(encoding="utf-8").strip())
    assert requirements
    for each in requirements:
        assert re.match(r"[\w.-]+==[\w.!+-]+ ", each), each
        assert HASH.search(each), each


@by_name
def test_the_versions_are_those_of_the_constraints(path: Path) -> None:
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    hashed = pins(path.read_text(encoding="utf-8"))
    shared = hashed.keys() & pinned.keys()
    assert hashed.keys() - pinned.keys() <= BUILT_WITH
    assert {name: hashed[name] for name in shared if not hashed[name] <= pinned[name]} == {}


@by_name
def test_what_the_extra_needs_is_there(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras, waiting = project["optional-dependencies"], [path.stem]
    needed = {canonical(Requirement(each).name) for each in project["dependencies"]}
    while waiting:
        for each in map(Requirement, extras[waiting.pop()]):
            if canonical(each.name) == project["name"]:
                waiting += each.extras
            else:
                needed.add(canonical(each.name))
    assert needed <= pins(path.read_text(encoding="utf-8")).keys()
