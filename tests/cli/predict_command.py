"""Runs `effnet-edge predict b` in this process, for tests that made the bundle "b"."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from effnet_edge.cli.main import cli
from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from click.testing import Result


def predict(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, ["predict", "b", *arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def refusal(*arguments: str) -> str:
    with pytest.raises(UsageError) as refused:
        predict(*arguments)
    return str(refused.value)
