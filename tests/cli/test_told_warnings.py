"""What is not as a file has it is told by every command, with --quiet, too."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING

import click
import pytest
import torch
from click.testing import CliRunner
from real_commands import run_command

from effnet_calibration.errors import CalibrationWarning
from effnet_edge.cli.common import Settings, common_options, print_document
from effnet_edge.cli.main import cli
from effnet_edge.errors import CheckpointWarning
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.variants import VARIANTS

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@common_options
def warning_command() -> None:
    for _ in range(2):
        warnings.warn("a.pth: left out: loss.centers", CheckpointWarning, stacklevel=1)
        warnings.warn("calibrating on 3 pictures", CalibrationWarning, stacklevel=1)
    print_document({"done": True})


@pytest.mark.parametrize("options", [(), ("--quiet",), ("--quiet", "--json")])
def test_each_warning_is_a_line_and_in_the_document(options: tuple[str, ...]) -> None:
    group = type(cli)(commands={"warn": warning_command})

    done = CliRunner().invoke(group, ["warn", *options], obj=Settings())

    told = ["a.pth: left out: loss.centers", "calibrating on 3 pictures"]
    assert done.stderr.splitlines() == [f"effnet-edge: warning: {each}" for each in told]
    assert json.loads(done.stdout) == {"done": True, "warnings": told}


def test_a_quiet_export_tells_what_it_left_out(tmp_path: Path) -> None:
    network = EfficientNet(VARIANTS["b0"], num_classes=3, resolution=32)
    torch.save(network.state_dict() | {"loss.centers": torch.ones(1)}, tmp_path / "arc.pth")
    options = ("--weights", "arc.pth", "--resolution", "32", "--target", "onnxruntime", "--fp32")

    done = run_command("export", "b0", *options, "--quiet", "--json", cwd=tmp_path)

    told = "arc.pth: left out, as they are no weights of the network: loss.centers"
    assert done.stderr.splitlines() == [f"effnet-edge: warning: {told}"]
    assert json.loads(done.stdout)["warnings"] == [told]


def test_help_says_what_quiet_leaves_out() -> None:
    told = CliRunner().invoke(cli, ["export", "--help"], obj=Settings()).stdout
    assert "result, warnings and errors only" in " ".join(told.split())
