"""Progress without a terminal: a line now and then, and none of what is soon over."""

from __future__ import annotations

import pytest

from effnet_edge.cli.common import Settings, progress_bar, stage_display
from effnet_edge.cli.main import cli
from effnet_edge.cli.progress_lines import EVERY_SECONDS, ProgressLines


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_comes_now_and_then_with_the_time_left() -> None:
    clock, told = Clock(), list[str]()
    lines = ProgressLines(told.append, clock)
    for done in range(1, 101):
        clock.now += 1
        lines.update("comparing", done, 100)
    assert len(told) == 100 // EVERY_SECONDS
    assert told[0] == "comparing: 15 of 100, about 85 s left"
    assert told[-1].startswith("comparing: 90 of 100, about ")


def test_what_is_soon_over_says_nothing() -> None:
    clock, told = Clock(), list[str]()
    lines = ProgressLines(told.append, clock)
    for part in ("a", "b", "c"):
        for done in range(1, 5):
            clock.now += 1
            lines.update(part, done, 4)
    assert told == []


def test_each_part_has_its_own_time_left() -> None:
    clock, told = Clock(), list[str]()
    lines = ProgressLines(told.append, clock)
    lines.update("slow", 0, 2)
    clock.now += 1000
    lines.update("slow", 1, 2)
    lines.update("quick", 0, 10)
    clock.now += 20
    lines.update("quick", 5, 10)
    assert told == ["slow: 1 of 2, about 17 min left", "quick: 5 of 10, about 20 s left"]


@pytest.mark.parametrize(
    ("settings", "heard"),
    [(Settings(), True), (Settings(json=True), True), (Settings(quiet=True), False)],
)
@pytest.mark.parametrize("display", ["bar", "stages"])
def test_quiet_alone_silences_progress(
    settings: Settings,
    heard: bool,
    display: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("effnet_edge.cli.progress_lines.EVERY_SECONDS", 0.0)
    with cli.make_context("effnet-edge", ["list"], obj=settings):
        if display == "bar":
            with progress_bar("reading") as step:
                step(1, 3)
        else:
            with stage_display() as stages:
                stages.progress("reading", 1, 3)
    out, errors = capsys.readouterr()
    assert ("reading: 1 of 3" in errors) == heard
    assert out == ""
