"""Whether this machine has what an export needs, and whether it answers when it is tried."""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib import metadata, resources
from typing import TYPE_CHECKING

from effnet_edge.errors import EffnetEdgeError, first_line
from effnet_edge.extras import DISTRIBUTION, install_hint

if TYPE_CHECKING:
    from collections.abc import Callable

    from packaging.requirements import Requirement

EXTRA = "export"


@dataclass(frozen=True)
class ExportStatus:
    """Whether this machine can export.

    Attributes:
        versions: of the libraries that are installed.
        missing: the names of those that are not.
        broken: what is wrong with those that are too old, or fail when they are tried.
    """

    works: bool
    versions: dict[str, str]
    missing: list[str]
    broken: dict[str, str]
    install_hint: str = install_hint(EXTRA)

    @property
    def detail(self) -> str:
        """What hinders an export, in one line; empty if nothing does."""
        faults = [f"missing: {', '.join(self.missing)}"] if self.missing else []
        return "; ".join(faults + [f"{name}: {why}" for name, why in self.broken.items()])


def export_status() -> ExportStatus:
    """Look for every library of the extra and try those that load quickly; never raises."""
    versions: dict[str, str] = {}
    missing: list[str] = []
    broken: dict[str, str] = {}
    try:
        requirements = _requirements()
    except metadata.PackageNotFoundError:  # run from its sources alone
        return ExportStatus(False, versions, [DISTRIBUTION], broken)
    for requirement in requirements:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(requirement.name)
            continue
        versions[requirement.name] = version
        if not requirement.specifier.contains(version, prereleases=True):
            broken[requirement.name] = f"{version} is here, {requirement.specifier} is needed"
        elif (reason := _failure(requirement.name)) is not None:
            broken[requirement.name] = reason
    return ExportStatus(not missing and not broken, versions, missing, broken)


def _requirements() -> list[Requirement]:
    """What the extra installs, as the installed distribution tells it (`pyproject.toml`)."""
    from packaging.requirements import Requirement

    told = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or ()]
    return [
        each
        for each in told
        if each.marker
        and each.marker.evaluate({"extra": EXTRA})
        and not each.marker.evaluate({"extra": ""})
    ]


def _failure(library: str) -> str | None:
    """Why a library does not do what it is here for; None if it does, or is too slow to try."""
    try:
        _TRIALS.get(library, lambda: None)()
    except Exception as error:  # whatever a broken installation raises
        return first_line(error)
    return None


def _try_onnx() -> None:
    import onnx

    probe = resources.files("effnet_edge").joinpath("data", "probe.onnx").read_bytes()
    onnx.checker.check_model(onnx.load_model_from_string(probe))


def _try_h5py() -> None:
    import h5py

    with h5py.File(io.BytesIO(), "w") as file:
        file["kernel"] = [1.0, 2.0]
        _expect(file["kernel"][1] == 2.0)


def _try_crc32c() -> None:
    import google_crc32c

    # The check value of CRC-32C: RFC 3720, and Williams, "A Painless Guide to CRC", 15.
    _expect(google_crc32c.value(b"123456789") == 0xE3069283)


def _try_safetensors() -> None:
    import numpy as np
    from safetensors.numpy import load, save

    _expect(load(save({"weight": np.ones(2, np.float32)}))["weight"].sum() == 2)


def _try_hub() -> None:
    from huggingface_hub import hf_hub_url

    _expect("google/b0" in hf_hub_url("google/b0", "config.json"))


def _try_platformdirs() -> None:
    import platformdirs

    _expect(DISTRIBUTION in platformdirs.user_cache_dir(DISTRIBUTION))


def _expect(right: bool) -> None:
    if not right:
        raise EffnetEdgeError("gives wrong values")


# torch, onnxscript, onnxsim, scikit-image and scikit-learn take seconds to load; onnxruntime is
# tried as a backend.
_TRIALS: dict[str, Callable[[], None]] = {
    "onnx": _try_onnx,
    "h5py": _try_h5py,
    "google-crc32c": _try_crc32c,
    "safetensors": _try_safetensors,
    "huggingface-hub": _try_hub,
    "platformdirs": _try_platformdirs,
}
