"""A minute of fuzzing, and that the harness sees what it is there for."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest
from fuzz import fuzz
from fuzz_mutations import mutated
from fuzz_reading import read, seeds
from fuzz_targets import TARGETS
from fuzz_worker import input_of

HERE = Path(__file__).parent

PLANTED = """
    import sys
    sys.path.insert(0, {here!r})
    import fuzz_worker as worker
    from fuzz_reading import Target
    from effnet_edge.errors import UsageError

    class Untidy(UsageError):
        def __init__(self, text):
            self.args = (text,)

    def read(data, folder):
        if data == b"seed":
            return 1
        {fault}

    worker.MOST_BYTES = 256 << 20
    worker.serve({{"planted": Target(lambda: [b"seed"], read, told_by_checksum=True)}})
"""


@pytest.mark.parametrize("name", TARGETS)
def test_the_sound_files_are_read_alike_every_time(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    for seed in seeds(target):
        assert read(target, seed, tmp_path) == read(target, seed, tmp_path)


def test_a_number_makes_the_same_input_again() -> None:
    target = TARGETS["gates"]
    assert input_of(target, 7) == input_of(target, 7)
    assert len({input_of(target, number)[0] for number in range(200)}) > 150


def test_changes_take_files_of_every_size() -> None:
    import random

    for number in range(3000):
        mutated(random.Random(number), [b"", b"x", bytes(100)])


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("raise KeyError(1)", "foreign"),
        ("bytearray(1 << 30)", "foreign"),
        ("raise Untidy('two\\nlines')", "untidy"),
        ("raise Untidy('\\x1b[2J')", "untidy"),
        ("raise Untidy(' ')", "untidy"),
        ("return 2", "wrong"),
        ("import os; os.kill(os.getpid(), 11)", "crashed"),
        ("while True: pass", "hung"),
        ("raise UsageError('one line')", "refused"),
        ("return 1", "answered"),
    ],
)
def test_planted_faults_are_seen(fault: str, kind: str, tmp_path: Path) -> None:
    script = tmp_path / "planted.py"
    script.write_text(dedent(PLANTED).format(here=str(HERE), fault=fault))
    tally = fuzz(
        {"planted": 1}, inputs=2, seconds=600, command=[sys.executable, str(script)], limit=2
    )
    others = {"answered"} if fault != "return 1" else set()  # a change may undo another
    assert set(tally.counts) - others == {kind}
    if kind not in ("refused", "answered"):
        assert tally.findings[0].startswith(f"{kind}: --target planted --number ")


@pytest.mark.sample
def test_a_minute_of_fuzzing_finds_nothing() -> None:
    tally = fuzz({name: each.every for name, each in TARGETS.items()}, inputs=10**6, seconds=60)
    assert tally.findings == []
    assert tally.counts["refused"] > 100
    assert tally.counts["answered"] > 100
