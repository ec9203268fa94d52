"""No file of the sources is too long to be read at once."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("effnet_edge", "export", "calibration", "tests", "benchmarks", "examples", "tools")
MOST_LINES = 400


def test_every_file_can_be_read_at_once() -> None:
    files = [file for folder in SOURCES for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > len(SOURCES)
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in files}
    assert {file: length for file, length in lengths.items() if length > MOST_LINES} == {}
