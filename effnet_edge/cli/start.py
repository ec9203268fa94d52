"""Where `effnet-edge` begins: Ctrl-C ends it in one line while it is still being imported, too."""

from __future__ import annotations

import sys
from typing import NoReturn

from effnet_edge.cli.ending import INTERRUPTED, NOTHING_WRITTEN, CtrlC


def main() -> NoReturn:
    """Import the command line, run it and exit, as `effnet_edge.cli.main.main` does."""
    CtrlC.install()
    try:
        from effnet_edge.cli.main import main as run
    except KeyboardInterrupt:
        CtrlC.ignore()
        if sys.stderr is not None:
            sys.stderr.write(f"effnet-edge: error: {NOTHING_WRITTEN}\n")
        sys.exit(INTERRUPTED)
    run()
