from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet_edge.bench.other_work import ProcessorTime

if TYPE_CHECKING:
    from pathlib import Path

SECOND = os.sysconf("SC_CLK_TCK")


def test_ticks_are_told_apart(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    ticks = [each * SECOND for each in (5, 1, 2, 30, 4, 1, 1, 6, 3, 0)]
    stat.write_text(f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3\n")
    found = ProcessorTime.now(stat)
    assert found is not None
    assert (found.whole, found.busy) == (50.0, 16.0)  # guests are within user


@pytest.mark.parametrize("content", [None, "", "cpu\n", "cpu a b\n", "intr 1 2 3 4 5 6 7 8\n"])
def test_what_cannot_be_read_is_not_known(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "stat").write_text(content)
    assert ProcessorTime.now(tmp_path / "stat") is None


@given(*(st.floats(0, 1e6) for _ in range(3)))
def test_a_share_is_one(own: float, others: float, idle: float) -> None:
    start = ProcessorTime(1000.0, 600.0, 10.0)
    later = ProcessorTime(1000 + own + others + idle, 600 + own + others, 10 + own)
    share = start.others_until(later)
    if own + others + idle < 1e-6:
        return
    assert share is not None
    assert share == pytest.approx(others / (own + others + idle), abs=1e-3)


def test_another_program_is_seen() -> None:
    start = ProcessorTime.now()
    if start is None:
        pytest.skip("this system has no /proc/stat")
    loop = "import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass"
    begun = time.process_time()
    subprocess.run([sys.executable, "-c", loop], check=True)
    later = ProcessorTime.now()
    assert later is not None
    share = start.others_until(later)
    assert share is not None
    assert share * (later.whole - start.whole) >= 0.8
    assert time.process_time() - begun < 0.5
