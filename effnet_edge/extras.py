"""The optional parts of the distribution: what installs them, and how a missing one is told."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from effnet_edge.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DISTRIBUTION = "effnet-edge"


def install_hint(extra: str) -> str:
    """Give the command that installs an extra: "export", "report" or a target's package."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


@contextmanager
def needed_for(job: str, extra: str, otherwise: str = "") -> Iterator[None]:
    """Import in this block what an extra installs.

    Args:
        job: what cannot be done without it: "export", "a report".
        otherwise: what to do instead of installing it, after a comma.

    Raises:
        BackendError: a module that is imported here is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise BackendError(
            f"{job} needs {error.name}, which is not installed: "
            + ", ".join(filter(None, (install_hint(extra), otherwise)))
        ) from error


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those distributions that are installed, by name, in their order."""
    from importlib import metadata

    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
