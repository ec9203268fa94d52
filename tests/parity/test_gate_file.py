from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effnet_edge.errors import UsageError
from effnet_edge.parity import Gate
from effnet_edge.parity.measures.gate_file import gate_of, read_limits

if TYPE_CHECKING:
    from pathlib import Path


def written(folder: Path, text: str) -> Path:
    path = folder / "gates.toml"
    path.write_text(text)
    return path


def test_limits_have_the_units_of_the_command_line(tmp_path: Path) -> None:
    text = "[gate]\nmax-drop = 1\nmin-agreement = 97.5\nmin-sqnr = 15.0\nmax-kl = 0.05\n"

    limits = read_limits(written(tmp_path, text))

    assert gate_of(limits) == Gate(max_drop=1.0, min_agreement=0.975, min_sqnr_db=15.0, max_kl=0.05)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("max-drop = 1", r"has no table \[gate\]"),
        ("[gate]\nmax_drop = 1", "there is no limit 'max_drop': choose one of max-drop"),
        ("[gate]\nmax-kl = 'small'", "max-kl is 'small'; it must be a number"),
        ("[gate]\nmax-kl = true", "max-kl is True; it must be a number"),
        ("[gate", "is not TOML"),
        ("min-agreement = 99\n[gate]\nmax-kl = 1", "'min-agreement' is no limit where it stands"),
        ("[gates]\nmax-drop = 1\n[gate]\nmax-kl = 1", "'gates' is no limit where it stands"),
        ("[gate]\nmax-kl = 1\n[gate.strict]\nmax-kl = 0", "there is no limit 'strict'"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read_limits(written(tmp_path, text))


def test_a_limit_out_of_its_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"gates.toml': min-agreement must be between 0 % and 100 %"
    ):
        read_limits(written(tmp_path, "[gate]\nmin-agreement = 101"))


@pytest.mark.parametrize("value", [0.97, 1e-3, 1.0])
def test_a_share_is_refused_where_percent_are_meant(tmp_path: Path, value: float) -> None:
    says = f"min-agreement {value:g} is {value:g} %: did you mean {100 * value:g} %"
    with pytest.raises(UsageError, match=f"gates.toml': {says}"):
        read_limits(written(tmp_path, f"[gate]\nmin-agreement = {value}"))
    with pytest.raises(UsageError, match=f"--{says}"):
        gate_of({"min-agreement": value})
    assert gate_of({"min-agreement": 97.0, "max-drop": 0.5}) == Gate(
        min_agreement=0.97, max_drop=0.5
    )


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("min-agreement", 150, "between 0 % and 100 %, not 150 %"),
        ("max-kl", -0.1, "at least 0 nats, not -0.1 nats"),
        ("max-drop", -1, "at least 0 points, not -1 points"),
        ("min-sqnr", float("nan"), "is nan: it must be a number"),
        ("max-kl", float("inf"), "is inf: it must be a number"),
    ],
)
def test_a_limit_is_told_in_the_units_that_it_was_given_in(
    option: str, value: float, says: str
) -> None:
    with pytest.raises(UsageError, match=f"--{option} .*{says}"):
        gate_of({option: value})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_limits(tmp_path / "none.toml")
