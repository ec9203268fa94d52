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
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read_limits(written(tmp_path, text))


def test_a_limit_out_of_its_range_is_refused(tmp_path: Path) -> None:
    limits = read_limits(written(tmp_path, "[gate]\nmin-agreement = 101"))

    with pytest.raises(UsageError, match="min_agreement must be between"):
        gate_of(limits)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_limits(tmp_path / "none.toml")
