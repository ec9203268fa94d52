"""Served models of a comparison, and the bundles that their servers say they are from."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.bundle import Bundle
from effnet_edge.bundle.reading import read_manifest_bytes
from effnet_edge.errors import BundleError
from effnet_export.recording import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import ExitStack

    from effnet_edge.parity.models.entrance import Entrance
    from effnet_edge.parity.models.reading import Reading
    from effnet_edge.parity.models.served import ServedClassifier
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.serving.asking import Asking
    from effnet_export.recording import Identity

_SHOWN_DIGITS = 12


class ServedModels:
    """Connections to the served models of one comparison, closed with `stack`.

    Attributes:
        bundles: those that servers say their models are from, as far as they are here, by address.

    Raises:
        UsageError: options say how to ask, and there is no served model.
        UsageError, ServerError, BackendError: as `ServedModel.connect`.
    """

    def __init__(self, addresses: Sequence[str], asking: Asking, stack: ExitStack) -> None:
        asking.check(addresses)
        self._models = {each: stack.enter_context(asking.connect(each)) for each in addresses}
        self.bundles: dict[str, Bundle] = {}
        self._others: tuple[str, ...] = ()

    def find_bundles(self, given: Mapping[str, Bundle]) -> dict[str, Bundle]:
        """Look for the bundles behind the models: those that were given, then in this folder.

        Returns what was found and not given, by path.
        """
        here = {sha256_of_manifest(bundle.path): bundle for bundle in given.values()}
        self._others = tuple(given)
        wanted = {model.description.manifest_sha256 for model in self._models.values()}
        found = {}
        if wanted - {None, *here}:
            for folder in _bundle_folders(Path()):
                sha256 = sha256_of_manifest(folder)
                if sha256 in wanted and sha256 not in here:
                    found[str(folder)] = here[sha256] = Bundle.load(folder)
        for address, model in self._models.items():
            bundle = here.get(model.description.manifest_sha256 or "")
            if bundle is not None:
                self.bundles[address] = bundle
        return found

    def entrance(self, address: str, reading: Reading) -> Entrance:
        """How pictures go in; raises as `entrance_of_served`."""
        from effnet_edge.parity.models.served import entrance_of_served

        return entrance_of_served(self._models[address], reading)

    def open(
        self, address: str, preprocessing: Preprocessing, reading: Reading
    ) -> ServedClassifier:
        """The model as it is compared; raises as `ServedClassifier`."""
        from effnet_edge.parity.models.served import ServedClassifier

        bundle = self.bundles.get(address)
        return ServedClassifier(
            self._models[address],
            preprocessing,
            reading,
            bundle_batch=bundle.manifest.batch if bundle else None,
        )

    def identity(self, address: str, preprocessing: Preprocessing) -> Identity:
        """What its answers are known by: where it is, and what its server says that it is."""
        told = self._models[address].description
        return plain(
            {
                "kind": "served",
                "address": address,
                "server": told.server,
                "platform": told.platform,
                "manifest": told.manifest_sha256,
                "preprocessing": asdict(preprocessing),
            }
        )

    def about(self, address: str) -> tuple[str, ...]:
        """What is to be told of a served model, after its name."""
        model = self._models[address]
        told = model.description
        runs = f" ({told.platform})" if told.platform else ""
        most = "any number of" if told.most is None else f"up to {told.most}"
        if told.most == told.least:
            most = f"just {told.most}"
        lines = [f"is served by {told.server}{runs}: {model.form}, {most} pictures a request"]
        sha256 = told.manifest_sha256
        if sha256 is None:
            return tuple(lines)
        short = f"manifest.json's SHA-256 {sha256[:_SHOWN_DIGITS]}…"
        if address in self.bundles:
            origin = f"is from the bundle {self.bundles[address].path} ({short})"
        elif self._others:
            origin = f"is not from {' or '.join(self._others)}, but from a bundle of {short}"
        else:
            origin = (
                f"is from a bundle that is not here ({short}): as --reference BUNDLE it tells "
                "preprocessing and labels"
            )
        lines.append(f"says that it {origin}")
        return tuple(lines)


def sha256_of_manifest(folder: Path) -> str:
    """Of the manifest in a bundle's folder; raises BundleError where there is none."""
    return hashlib.sha256(read_manifest_bytes(folder)).hexdigest()


def _bundle_folders(place: Path) -> Iterator[Path]:
    """A folder and those in it, as far as they look like bundles."""
    try:
        folders = [place, *sorted(each for each in place.iterdir() if each.is_dir())]
    except OSError:
        folders = [place]
    for folder in folders:
        try:
            read_manifest_bytes(folder)
        except (BundleError, OSError):
            continue
        yield folder
