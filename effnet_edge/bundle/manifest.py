"""The manifest of a bundle: what the model takes and gives, how it was proven, what its files are.

It is data: reading one executes nothing and unpickles nothing. `docs/bundle.md` is the format.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from effnet_edge.bundle.schema import check_manifest, parse_json
from effnet_edge.errors import BundleError, UsageError
from effnet_edge.machine import Machine  # noqa: TC001 - cattrs resolves it at run time
from effnet_edge.model.provenance import Weights  # noqa: TC001 - as above
from effnet_edge.model.variants import Padding  # noqa: TC001 - as above
from effnet_edge.outputs import OutputKind  # noqa: TC001 - as above
from effnet_edge.pictures.image import Preprocessing  # noqa: TC001 - as above

SCHEMA_VERSION = 2
MANIFEST_FILE = "manifest.json"

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class InputSpec:
    """What the engine itself takes: uint8 NHWC pixels or float32 NCHW normalized values."""

    name: str
    dtype: str
    layout: str
    height: int
    width: int
    channels: int


@dataclass(frozen=True)
class BatchRange:
    """The batch sizes one engine call takes, images; static where minimum == maximum."""

    minimum: int
    optimum: int
    maximum: int

    def __str__(self) -> str:
        """In words, for people."""
        if self.minimum == self.maximum:
            return f"{self.maximum} image{'s' if self.maximum > 1 else ''}"
        return f"{self.minimum} to {self.maximum} images, best {self.optimum}"


@dataclass(frozen=True)
class OutputSpec:
    """What the engine gives, float32 (N, classes): logits, or the features of a picture.

    `classes` is how many numbers there are a picture, also where these are no classes.
    """

    name: str
    classes: int
    kind: OutputKind = "single-label"


@dataclass(frozen=True)
class StageParity:
    """How one stage of the export compared with the model before it.

    `sqnr_db` is `math.inf` for equal outputs (null in JSON, which has no infinity); `kl` is in
    nats; `top1_agreement` is a share, 0..1; `tolerance` is the gate's rule in words. Where the
    output is multi-label, `kl` is the mean over the labels, and `label_set_agreement` takes the
    place of `top1_agreement`: the share of the pictures with the same labels at or above a
    probability of 0.5. What an output does not have is None.
    """

    stage: str
    reference: str
    candidate: str
    execution_precision: str
    images: int
    max_abs_error: float
    relative_error: float
    sqnr_db: float
    kl: float | None
    top1_agreement: float | None
    passed: bool
    tolerance: str
    label_set_agreement: float | None = None


@dataclass(frozen=True)
class Calibration:
    """What an INT8 model was calibrated on.

    `table` is the bundle's file of ranges and factors, `scheme` the integers of the activations;
    `source`, `size` and `sha256` tell the pictures (the hash is of their prepared pixels); `kept`
    are the names of the layers that were left in 16-bit floating point.
    """

    table: str
    scheme: str
    source: str
    size: int
    sha256: str
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineRecord:
    """An engine that was compiled from the bundle's portable graph, and what it runs on.

    `file` is the bundle's; `library` is the name of the target whose library built it;
    `compute_capability` names every GPU generation that it was built for ("8.7"). `gpu`, `cuda`
    and `jetpack` describe the machine that built it, None where it has none.
    """

    file: str
    library: str
    library_version: str
    compute_capability: tuple[str, ...]
    gpu: str | None
    cuda: str | None
    jetpack: str | None
    batch: BatchRange
    version_compatible: bool
    hardware_compatible: bool
    dla_core: int | None


@dataclass(frozen=True)
class FileRecord:
    """What a file of the bundle must be: lower-case hexadecimal SHA-256 and size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """Everything known about a bundle. `files` and `labels` are filled in by `BundleWriter`."""

    created: str
    variant: str
    target: str
    precision: str
    model: str
    input: InputSpec
    batch: BatchRange
    output: OutputSpec
    preprocessing: Preprocessing
    tools: dict[str, str]
    machine: Machine
    weights: Weights
    padding: Padding = "same"
    parity: tuple[StageParity, ...] = ()
    parity_images: str | None = None
    calibration: Calibration | None = None
    labels: str | None = None
    engines: tuple[EngineRecord, ...] = ()
    files: dict[str, FileRecord] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """The text of `manifest.json`.

        Raises:
            BundleError: a number that JSON cannot hold (NaN, or an infinity other than SQNR's).

        """
        document = asdict(self)
        for stage in document["parity"]:
            if stage["sqnr_db"] == math.inf:
                stage["sqnr_db"] = None
        try:
            return json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
        except ValueError:
            raise BundleError(
                f"{MANIFEST_FILE}: parity: a result is not a finite number: "
                "a model that gives NaN or infinity cannot be bundled"
            ) from None

    @classmethod
    def from_json(cls, text: str | bytes, source: str | os.PathLike[str]) -> Manifest:
        """Parse and check the text of a `manifest.json`; `source` names it in errors.

        Raises:
            BundleError: not JSON, made by a newer effnet-edge, or against the schema.

        """
        document = parse_json(text, source)
        _refuse_newer(document, source)
        check_manifest(document, source)
        for stage in document["parity"]:
            if stage["sqnr_db"] is None:
                stage["sqnr_db"] = math.inf
        manifest = _structure(document, cls, source)
        _check_consistency(manifest, source)
        return manifest


def utc_now() -> str:
    """The time for `Manifest.created`: ISO 8601, UTC, whole seconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _refuse_newer(document: Any, source: str | os.PathLike[str]) -> None:
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{os.fspath(source)}: made by a newer effnet-edge (schema version {version}, "
            f"this one reads {SCHEMA_VERSION}): upgrade with pip install -U effnet-edge"
        )


def _structure(
    document: dict[str, Any], kind: type[Manifest], source: str | os.PathLike[str]
) -> Manifest:
    import cattrs

    try:
        return cattrs.Converter(detailed_validation=False).structure(document, kind)
    except UsageError as error:  # a value that `Preprocessing` refuses
        raise BundleError(f"{os.fspath(source)}: {error}: export the bundle again") from error


def _check_consistency(manifest: Manifest, source: str | os.PathLike[str]) -> None:
    """What a schema cannot say."""
    side, batch = manifest.input, manifest.batch
    problems = [
        f"files: {name!r} is not a plain file name"
        for name in manifest.files
        if not _PLAIN_NAME.fullmatch(name) or name == MANIFEST_FILE
    ]
    if manifest.model not in manifest.files:
        problems.append(f"model: {manifest.model!r} is not among the files")
    if manifest.labels is not None and manifest.output.kind == "features":
        problems.append("labels: features have none")
    if manifest.labels is not None and manifest.labels not in manifest.files:
        problems.append(f"labels: {manifest.labels!r} is not among the files")
    problems += [
        f"engines: {engine.file!r} is not among the files"
        for engine in manifest.engines
        if engine.file not in manifest.files
    ]
    if not batch.minimum <= batch.optimum <= batch.maximum:
        problems.append("batch: needs minimum <= optimum <= maximum")
    if (side.dtype, side.layout) not in (("uint8", "NHWC"), ("float32", "NCHW")):
        problems.append("input: must be uint8 NHWC or float32 NCHW")
    if side.channels != manifest.preprocessing.channels:
        problems.append("input: channels must be as many as of the preprocessing's mean")
    if not side.height == side.width == manifest.preprocessing.resolution:
        problems.append("input: height and width must be the preprocessing's resolution")
    if problems:
        raise BundleError(f"{os.fspath(source)}: {problems[0]}: export the bundle again")
