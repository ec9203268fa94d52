"""Fuzzes every reader of files.

    python tests/fuzz/fuzz.py --inputs 200000
    python tests/fuzz/fuzz.py --target onnx --number 4711

An input is a sound file with some changes that its number decides. It ends in one of our own errors
in one line, or in an answer; anything else is a finding: another exception, an answer with other
values than a checksum vouches for, a process that ends, more than 10 s of the processor, or 2 GiB
more than the sound files take. Findings are kept in `--keep`.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WORKER = Path(__file__).with_name("fuzz_worker.py")
MOST_SECONDS = 10
_START_SECONDS = 300
_PATIENCE = 20  # other programs, and processes that it waits for, have the processor, too
_FINDINGS = ("foreign", "untidy", "wrong", "crashed", "hung")


@dataclass
class Tally:
    """What came of the inputs: how many of each kind, and each finding in a line."""

    counts: Counter[str] = field(default_factory=Counter)
    by_target: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def add(self, target: str, number: int, came: Mapping[str, str]) -> None:
        kind = came["kind"]
        self.counts[kind] += 1
        self.by_target[target] += 1
        if kind in _FINDINGS:
            detail = came.get("detail", "")
            self.findings.append(f"{kind}: --target {target} --number {number}: {detail}")

    def __str__(self) -> str:
        found = ", ".join(f"{self.counts[kind]} {kind}" for kind in _FINDINGS)
        return (
            f"{self.counts.total()} inputs tried: {self.counts['refused']} refused, "
            f"{self.counts['answered']} answered; findings: {found}"
        )


class Worker:
    """A process that tries inputs; it is started anew after one that it did not survive."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[str] | None = None

    def try_input(self, target: str, number: int, seconds: float = MOST_SECONDS) -> dict[str, str]:
        process = self._process or self._start()
        assert process.stdin
        try:
            process.stdin.write(f"{target} {number}\n")
            process.stdin.flush()
            line = self._line(process, seconds)
        except BrokenPipeError:
            line = ""
        if line is None:
            self.close()
            return {"kind": "hung", "detail": f"no answer in {seconds:g} s"}
        if not line:
            status = process.wait()
            self.close()
            return {"kind": "crashed", "detail": f"the process ended with {status}"}
        came: dict[str, str] = json.loads(line)
        return came

    def _start(self) -> subprocess.Popen[str]:
        self._process = process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._line(process, _START_SECONDS) != "ready\n":
            raise RuntimeError("the sound files cannot be read: run the tests in tests/fuzz")
        return process

    @staticmethod
    def _line(process: subprocess.Popen[str], seconds: float) -> str | None:
        """What it answers; None once it took so long of the processor, or waited far longer."""
        assert process.stdout
        before, end = _processor_seconds(process.pid), time.monotonic() + _PATIENCE * seconds
        while time.monotonic() < end:
            ready, _, _ = select.select([process.stdout], [], [], min(seconds, 1))
            if ready:
                return process.stdout.readline()
            if _processor_seconds(process.pid) - before > seconds:
                return None
        return None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _processor_seconds(process: int) -> float:
    """That it and its threads have had, not counting its children's; 0 where it is gone."""
    try:
        told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def rounds(every: Mapping[str, int], first: int) -> Iterator[tuple[str, int]]:
    """Every target in turn, without an end; slow ones in every so many rounds."""
    number = first
    while True:
        for name, rarity in every.items():
            if number % rarity == 0:
                yield name, number
        number += 1


def fuzz(
    every: Mapping[str, int],
    *,
    inputs: int,
    seconds: float,
    first: int = 0,
    command: list[str] | None = None,
    limit: float = MOST_SECONDS,
) -> Tally:
    """Try so many inputs, or as many as the time allows."""
    tally, end = Tally(), time.monotonic() + seconds
    worker = Worker(command or [sys.executable, str(WORKER), *every])
    try:
        for name, number in rounds(every, first):
            if tally.counts.total() >= inputs or time.monotonic() > end:
                return tally
            tally.add(name, number, worker.try_input(name, number, limit))
            if tally.counts.total() % 5000 == 0:
                print(tally, file=sys.stderr, flush=True)
    finally:
        worker.close()
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzzes every reader of files.")
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--target", action="append", help="one format; all if not given")
    parser.add_argument("--number", type=int, help="this input alone, in this process")
    parser.add_argument("--keep", type=Path, help="folder for the files of the findings")
    given = parser.parse_args()
    from fuzz_worker import input_of, outcome  # which finds the other modules

    from fuzz_targets import TARGETS  # isort: skip

    names = given.target or list(TARGETS)
    if given.number is not None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            print(outcome(TARGETS[names[0]], given.number, Path(folder)))
        return 0
    every = {name: TARGETS[name].every for name in names}
    tally = fuzz(every, inputs=given.inputs, seconds=given.seconds, first=given.first)
    for finding in tally.findings:
        print(finding)
    if given.keep and tally.findings:
        given.keep.mkdir(parents=True, exist_ok=True)
        for finding in tally.findings:
            words = finding.split()
            name, number = words[2], int(words[4].rstrip(":"))
            (given.keep / f"{name}-{number}").write_bytes(input_of(TARGETS[name], number)[0])
    print(", ".join(f"{name} {count}" for name, count in tally.by_target.items()))
    print(tally)
    return bool(tally.findings)


if __name__ == "__main__":
    sys.exit(main())
