"""The servers that repositories are written for, and what is in a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.deploy.servers import server

if TYPE_CHECKING:
    from pathlib import Path

TRITON, WRAPPED, OVMS = server("triton"), server("triton", wrapped=True), server("ovms")


def content(folder: Path) -> dict[str, bytes]:
    """Every file, by its path in the folder."""
    files = [each for each in folder.rglob("*") if each.is_file()]
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in files}
