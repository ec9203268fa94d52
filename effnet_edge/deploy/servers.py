"""The servers that a model repository is written for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from effnet_edge.deploy.ovms import Ovms
from effnet_edge.deploy.triton import Triton
from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from effnet_edge.bundle import Manifest
    from effnet_edge.deploy.source import Source


class Server(Protocol):
    """What differs from one server's repository to another's.

    Every repository has a folder for each model, and in it one for each version, called 1, 2 …
    """

    @property
    def title(self) -> str:
        """What people call the server."""

    def check(self, manifest: Manifest) -> None:
        """Raise UsageError for a bundle that the server would not answer as it was proven."""

    def check_repository(self, repository: Path) -> None:
        """Raise UsageError where `repository` is another server's."""

    def backend(self, manifest: Manifest) -> str:
        """What runs the model, in words."""

    def manifest_place(self, version: Path) -> Path:
        """The folder in which a version's manifest.json is."""

    def shared(self, name: str, manifest: Manifest) -> object:
        """What every version of a model must have in common."""

    def model_files(self, name: str, source: Source) -> dict[str, str]:
        """The texts of the files in a new model's folder, by their names."""

    def changed_files(self, model: Path, source: Source) -> dict[str, str]:
        """The texts of those that a new version changes; raises UsageError where it cannot."""

    def missing_changes(self, model: Path, source: Source) -> dict[str, str]:
        """The texts of those that the newest version, which is there, should have changed."""

    def repository_files(
        self, repository: Path, models: Sequence[tuple[str, Manifest]]
    ) -> dict[str, str]:
        """The texts of the files beside the models, where these have to change."""

    def start(self, repository: Path) -> str:
        """The command that serves the repository."""

    def write_version(self, source: Source, folder: Path) -> None:
        """Fill a version's folder; raises BundleError where the bundle has changed."""


@dataclass(frozen=True)
class EngineOptions:
    """How `EngineRunner.load` is to run wrapped models; None is its own choice."""

    device: str | None = None
    threads: int | None = None
    precision: str | None = None

    def given(self) -> dict[str, str]:
        """Those that are not left to it."""
        return {name: str(value) for name, value in vars(self).items() if value is not None}


_DEEPSTREAM = (
    "--for deepstream: DeepStream's nvinfer gives the engine float planes that it scaled by one "
    "factor for all channels, and no pixels as uint8 (N, H, W, C), so that no bundle can be "
    "described to it: serve it with --for triton"
)


def server(name: str, *, wrapped: bool = False, options: EngineOptions | None = None) -> Server:
    """The server of that name.

    Raises:
        UsageError: it cannot serve bundles, or has nothing of the kind that is asked for.
    """
    if name == "deepstream":
        raise UsageError(_DEEPSTREAM)
    given = (options or EngineOptions()).given()
    if wrapped and name != "triton":
        raise UsageError("--wrapped is Triton's: leave it out, or say --for triton")
    if given and not wrapped:
        raise UsageError(
            f"--{next(iter(given))} is of EngineRunner, which runs models with --for triton "
            "--wrapped"
        )
    return Triton(wrapped=wrapped, options=given) if name == "triton" else Ovms()
