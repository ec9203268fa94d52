"""A bundle's path as a person reads it, and as a command that is copied takes it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnet_edge.bundle import Bundle


def shown_path(bundle: Bundle) -> str:
    """Relative to the working directory where it lies below it."""
    here = Path.cwd()
    return str(bundle.path.relative_to(here) if bundle.path.is_relative_to(here) else bundle.path)


def for_a_shell(bundle: Bundle) -> str:
    """Quoted where it has to be."""
    path = shown_path(bundle)
    return shlex.quote(f"./{path}" if path.startswith("-") else path)
