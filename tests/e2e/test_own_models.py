"""The commands on a greyscale network whose labels do not exclude each other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from real_commands import run_command

if TYPE_CHECKING:
    from pathlib import Path

    from real_commands import Run

pytestmark = pytest.mark.sample

NAMES = ("car", "bus", "tree", "sign")


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("street")
    (folder / "names.txt").write_text("\n".join(NAMES))
    options = ("--weights", "random", "--mean", "0.5", "--std", "0.25", "--resolution", "64")
    kind = ("--multi-label", "--num-classes", "4", "--labels", "names.txt", "-o", "street")
    completed = run_command("export", "b0", *options, *kind, cwd=folder)
    assert completed.returncode == 0, completed.stderr
    assert "KL divergence per label" in completed.stdout
    return folder / "street"


def test_predict_gives_the_labels_that_reach_the_threshold(
    effnet_edge: Run, street: Path, espresso: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "grey.npy", np.full((70, 90), 128, np.uint8))
    completed = effnet_edge("predict", street, espresso, "grey.npy", "--threshold", "0", "--json")

    document = json.loads(completed.stdout)
    assert document["output"] == "multi-label"
    for answers in document["images"].values():
        assert {each["label"] for each in answers} == set(NAMES)
        assert all(0 <= each["probability"] <= 1 for each in answers)

    none = effnet_edge("predict", street, espresso, "--threshold", "1")
    assert none.returncode == 0
    assert "no class reaches the threshold" in none.stdout


def test_parity_report_bench_and_info_know_the_labels(
    effnet_edge: Run, street: Path, tmp_path: Path
) -> None:
    limits = ("--limit", "8", "--max-kl", "0.01", "--report", "page.html", "--json")
    completed = effnet_edge("parity", street, *limits)

    assert completed.returncode == 0, completed.stderr
    document = json.loads(completed.stdout)
    (candidate,) = document["candidates"]
    assert document["output"] == "multi-label"
    assert document["gate"] == "KL divergence per label ≤ 0.01 nats"
    assert candidate["top1_agreement"] is None
    assert candidate["label_agreement"] > 0.9
    assert "in grey" in document["image_source"]
    assert "Independent labels" in (tmp_path / "page.html").read_text()
    info = effnet_edge("info", street).stdout
    assert "4 labels" in info
    assert "1 channel" in info
    assert effnet_edge("bench", street, "--runs", "3").returncode == 0


def test_accuracy_of_independent_labels_is_refused_in_one_line(
    effnet_edge: Run, street: Path, espresso: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text(f"path,label\n{espresso},car\n")
    completed = effnet_edge("parity", street, "--labels", "list.csv")
    assert completed.returncode == 2
    first, line = completed.stderr.splitlines()
    assert first == "opening the models"
    assert "one class a picture" in line


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--multi-label", "--features"), "--multi-label and --features"),
        (("--mean", "grey"), "'grey' is not a number a channel"),
        (("--mean", "0.5,0.5"), "--mean has 2 values"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    effnet_edge: Run, tmp_path: Path, options: tuple[str, ...], what: str
) -> None:
    completed = effnet_edge("export", "b0", *options)
    assert completed.returncode == 2
    assert what in completed.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
