"""Tries inputs one after the other in a process that may crash, hang or run out of memory.

It reads "TARGET NUMBER" a line, and answers with a line of JSON: what came of the input of that
number. `fuzz.py` starts it and watches.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).parent
for place in (HERE, HERE.parent):
    sys.path.insert(0, str(place))

from fuzz_mutations import mutated  # noqa: E402
from fuzz_reading import Target, read, seeds  # noqa: E402

from effnet_edge.errors import EffnetEdgeError  # noqa: E402
from effnet_edge.text import plain  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_BYTES = 2 << 30


def input_of(target: Target, number: int) -> tuple[bytes, bytes]:
    """The file of that number, and the sound one that it was made from."""
    return mutated(random.Random(number), seeds(target))


def outcome(target: Target, number: int, folder: Path) -> dict[str, str]:
    """`refused` or `answered`; otherwise a finding: `foreign`, `untidy` or `wrong`."""
    data, seed = input_of(target, number)
    try:
        found = read(target, data, folder)
    except EffnetEdgeError as error:
        text = str(error)
        if not text.strip() or plain(text) != text:
            return {"kind": "untidy", "detail": repr(text[:300])}
        return {"kind": "refused"}
    except Exception as error:
        return {"kind": "foreign", "detail": f"{type(error).__name__}: {error}"[:300]}
    if target.told_by_checksum and found != read(target, seed, folder):
        return {"kind": "wrong", "detail": "other values, and every checksum holds"}
    return {"kind": "answered"}


def serve(targets: Mapping[str, Target]) -> None:
    """Answer until the input ends. What the libraries print goes nowhere."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with tempfile.TemporaryDirectory(prefix="effnet-edge-fuzz-") as folder:
        place = Path(folder)
        for target in targets.values():
            for seed in seeds(target):
                read(target, seed, place)
        _limit_memory()
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            name, number = line.split()
            came = outcome(targets[name], int(number), place)
            print(json.dumps(came), file=answers, flush=True)


def _limit_memory() -> None:
    """To so much more than reading the sound files took."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    from fuzz_targets import TARGETS

    serve({name: TARGETS[name] for name in sys.argv[1:] or TARGETS})
