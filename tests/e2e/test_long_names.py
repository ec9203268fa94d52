"""Names that no file can have: bad use in one line, whatever they are given for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.errors import UsageError
from effnet_edge.fleet.plan import read_plan
from effnet_edge.pictures.image import decode

if TYPE_CHECKING:
    from pathlib import Path

    from real_commands import Run

LONG = "n" * 5000


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "b", "onnxruntime", tiny_model())
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        f"predict b {LONG}.jpg",
        f"predict {LONG} p.jpg",
        f"info {LONG}",
        f"verify {LONG}",
        f"bench {LONG}",
        f"sensitivity {LONG}",
        f"deploy b --for triton -o {LONG}",
        f"deploy {LONG} --for triton -o models",
        f"export b0 --weights {LONG}.pth",
        f"export b0 -o {LONG}",
    ],
)
def test_a_name_that_is_too_long_is_bad_use(place: Path, effnet_edge: Run, command: str) -> None:
    before = sorted(place.iterdir())
    done = effnet_edge(*command.split())
    assert done.returncode == 2, done.stderr
    assert LONG in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert sorted(place.iterdir()) == before


def test_in_a_plan_its_key_is_told(place: Path) -> None:
    plan = place / "plan.toml"
    plan.write_text(f'[[bundle]]\npath = "b"\n[pictures]\nimages = "{LONG}"\n')
    with pytest.raises(UsageError, match=r"plan\.toml: pictures\.images: .*File name too long"):
        read_plan(plan)


def test_python_is_told_the_same() -> None:
    with pytest.raises(UsageError, match="longer than any path"):
        decode(f"{LONG}.jpg")
