"""What a node does for a sweep: one export, whose bundle it sends back."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from effnet_edge.errors import BackendError
from effnet_edge.fleet.checking import BUNDLE
from effnet_edge.fleet.package import Package

_LINE = 400
_EFFNET_EDGE = (sys.executable, "-c", "from effnet_edge.cli.main import main; main()")


def export(order: Package) -> Package:
    """Run `effnet-edge export` with the arguments of the order.

    Raises:
        BackendError: it failed, and the text is what it says; or it made no bundle.
    """
    name, arguments = order.document["bundle"], order.document["arguments"]
    with tempfile.TemporaryDirectory(prefix="effnet-edge-fleet-") as room:
        place = Path(room) / name
        ended = subprocess.run(
            [*_EFFNET_EDGE, "export", *arguments, "-o", str(place), "--quiet"],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if ended.returncode:
            raise BackendError(_reason(ended.stderr, ended.returncode))
        if not place.is_dir():
            raise BackendError(
                "effnet-edge export ended well and made no bundle: leave out of the options what "
                "only tells something, such as --help"
            )
        files = {f"{BUNDLE}/{file.name}": file.read_bytes() for file in sorted(place.iterdir())}
    return Package({}, files)


def _reason(errors: str, code: int) -> str:
    """The last line of what it complained of, without the name of the program."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    if not lines:
        return f"effnet-edge export ended with exit code {code}"
    return lines[-1].removeprefix("effnet-edge: error: ")[:_LINE]
