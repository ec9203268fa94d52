"""The manifest of a bundle: what the model takes and gives, how it was proven, what its files are.

It is data: reading one executes nothing and unpickles nothing. `docs/bundle.md` is the format.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import cache
from typing import TYPE_CHECKING, Any

from effnet_edge import nonfinite
from effnet_edge.bundle.schema import check_manifest, parse_json
from effnet_edge.errors import BundleError, UsageError, first_line
from effnet_edge.machine import Machine  # noqa: TC001 - cattrs resolves it at run time
from effnet_edge.model.architecture import Activation, Pooling  # noqa: TC001 - as below
from effnet_edge.model.provenance import Weights  # noqa: TC001 - as above
from effnet_edge.model.variants import VARIANTS, Padding
from effnet_edge.outputs import ONE_OUTPUT, OutputKind
from effnet_edge.pictures.image import Preprocessing  # noqa: TC001 - as above
from effnet_edge.size import Size

if TYPE_CHECKING:
    import cattrs

SCHEMA_VERSION = 3
_SQUARE_VERSION = 2
MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.sig"

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

    def nearest(self, size: int) -> int:
        """The size among them that is nearest to the one given."""
        return min(max(size, self.minimum), self.maximum)

    def __str__(self) -> str:
        """In words, for people."""
        if self.minimum == self.maximum:
            return f"{self.maximum} image{'s' if self.maximum > 1 else ''}"
        return f"{self.minimum} to {self.maximum} images, best {self.optimum}"


@dataclass(frozen=True)
class OutputSpec:
    """What the engine gives, float32 (N, classes): logits, or the values or features of a picture.

    `classes` is how many numbers there are a picture, also where these are no classes.
    """

    name: str
    classes: int
    kind: OutputKind = "single-label"


@dataclass(frozen=True)
class Measured:
    """A measure of a stage, and the limit that the stage was held to, if any.

    `value` is `math.inf` for the SQNR of equal outputs; at most one of the two limits is set.
    """

    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the value keeps to its limit, itself included; None without one."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most


@dataclass(frozen=True)
class StageParity:
    """How one stage of the export compared with the model before it.

    `measures` has those that were measured, by the keys of `effnet_edge.parity.measures.table` and
    in its stored units: shares 0..1, decibels, nats. `batch_sizes` are those at each of which the
    gate held; empty where only one was run.
    """

    stage: str
    reference: str
    candidate: str
    execution_precision: str
    images: int
    measures: dict[str, Measured]
    batch_sizes: tuple[int, ...] = ()

    def value(self, key: str) -> float | None:
        """A measure by its key; None where it was not measured."""
        measured = self.measures.get(key)
        return None if measured is None else measured.value

    @property
    def holds(self) -> bool | None:
        """Whether every measure keeps to its limit; None where none has one."""
        held = [measured.holds for measured in self.measures.values()]
        return False if False in held else True if True in held else None


@dataclass(frozen=True)
class Calibration:
    """What an INT8 model was calibrated on.

    `table` is the bundle's file of ranges and factors, `scheme` the integers of the activations;
    `source`, `size` and `sha256` tell the pictures (the hash is of their prepared pixels); `kept`
    are the names of the layers that were left in 16-bit floating point; `fast_activations` those of
    the layers behind which a fitted hard-swish stands in for the SiLU.
    """

    table: str
    scheme: str
    source: str
    size: int
    sha256: str
    kept: tuple[str, ...] = ()
    fast_activations: tuple[str, ...] = ()


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
    batch_norm_eps: float = 1e-3
    pooling: Pooling = "avg"
    activation: Activation = "silu"
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
            BundleError: a measure is NaN.

        """
        document = asdict(self)
        for stage in document["parity"]:
            for key, measured in stage["measures"].items():
                if math.isnan(measured["value"]):
                    raise BundleError(
                        f"{MANIFEST_FILE}: parity: {key} is NaN, not a finite number: "
                        "a model that gives NaN cannot be bundled"
                    )
                stage["measures"][key] = {
                    name: number for name, number in measured.items() if number is not None
                }
        return nonfinite.dumps(document, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str | os.PathLike[str]) -> Manifest:
        """Parse and check the text of a `manifest.json`; `source` names it in errors.

        Raises:
            BundleError: not JSON, made by a newer effnet-edge, or against the schema.

        """
        document = parse_json(text, source)
        _refuse_newer(document, source)
        document = _upgraded(document)
        check_manifest(document, source)
        for stage in document["parity"]:
            for measured in stage["measures"].values():
                measured.update({key: nonfinite.decode(each) for key, each in measured.items()})
        manifest = _structure(document, cls, source)
        _check_consistency(manifest, source)
        return manifest


def utc_now() -> str:
    """The time for `Manifest.created`: ISO 8601, UTC, whole seconds.

    It is that of SOURCE_DATE_EPOCH, where the environment has it
    (https://reproducible-builds.org/specs/source-date-epoch/).

    Raises:
        UsageError: that is no number of seconds.
    """
    return _time(os.environ.get("SOURCE_DATE_EPOCH")).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(epoch: str | None) -> datetime:
    if epoch is None:
        return datetime.now(timezone.utc)
    try:
        return datetime.fromtimestamp(int(epoch), timezone.utc)
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"SOURCE_DATE_EPOCH={epoch}: is no number of seconds since 1970: correct or unset it"
        ) from None


def _refuse_newer(document: Any, source: str | os.PathLike[str]) -> None:
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{os.fspath(source)}: made by a newer effnet-edge (schema version {version}, "
            f"this one reads {SCHEMA_VERSION}): upgrade with pip install -U effnet-edge"
        )


def _upgraded(document: Any) -> Any:
    """One of schema version 2, all square and cropped, as it would be written now.

    What is wrong in it is left for the schema to find.
    """
    if not isinstance(document, dict) or document.get("schema_version") != _SQUARE_VERSION:
        return document
    preprocessing = document.get("preprocessing")
    if isinstance(preprocessing, dict):
        side = preprocessing.get("resolution")
        square = {"height": side, "width": side}
        preprocessing = {**preprocessing, "resolution": square, "fit": "crop"}
    variant = VARIANTS.get(str(document.get("variant")))
    untold = {
        "batch_norm_eps": 1e-5 if document.get("padding") == "symmetric" else 1e-3,
        "pooling": "avg",
        "activation": variant.family.activation if variant else "silu",
    }
    new = {"preprocessing": preprocessing, "schema_version": SCHEMA_VERSION}
    return {**untold, **document, **new}


@cache
def _converter() -> cattrs.Converter:
    """The one converter of the process: cattrs writes code for each class that it meets.

    An interrupt in the midst of that makes it refuse the class in this thread ever after.
    """
    import cattrs

    return cattrs.Converter(detailed_validation=False)


def _structure(
    document: dict[str, Any], kind: type[Manifest], source: str | os.PathLike[str]
) -> Manifest:
    try:
        return _converter().structure(document, kind)
    except UsageError as error:  # a value that `Preprocessing` refuses
        raise BundleError(f"{os.fspath(source)}: {error}: export the bundle again") from error
    except Exception as error:  # cattrs lets out whatever the conversion of a value raises
        raise BundleError(
            f"{os.fspath(source)}: is damaged ({first_line(error)}): export the bundle again"
        ) from error


def _named_files(manifest: Manifest) -> list[tuple[str, str]]:
    """Every file that a reader opens by its name in the manifest, with the field that names it."""
    named = [("model", manifest.model)]
    if manifest.labels is not None:
        named.append(("labels", manifest.labels))
    if manifest.calibration is not None:
        named.append(("calibration.table", manifest.calibration.table))
    return named + [("engines", engine.file) for engine in manifest.engines]


def _batches(manifest: Manifest) -> list[tuple[str, BatchRange]]:
    """The batches that the bundle, and each of its engines, takes."""
    of_engines = [("engines: batch", engine.batch) for engine in manifest.engines]
    return [("batch", manifest.batch), *of_engines]


def _check_consistency(manifest: Manifest, source: str | os.PathLike[str]) -> None:
    """What a schema cannot say."""
    side = manifest.input
    problems = [
        f"files: {name!r} is not a plain file name"
        for name in manifest.files
        if not _PLAIN_NAME.fullmatch(name) or name in (MANIFEST_FILE, SIGNATURE_FILE)
    ]
    problems += [
        f"{role}: {name!r} is not among the files"
        for role, name in _named_files(manifest)
        if name not in manifest.files
    ]
    if manifest.labels is not None and manifest.output.kind == "features":
        problems.append("labels: features have none")
    if manifest.output.kind == "single-label" and manifest.output.classes == 1:
        problems.append(f"output: {ONE_OUTPUT}")
    problems += [
        f"{role}: needs minimum <= optimum <= maximum"
        for role, batch in _batches(manifest)
        if not batch.minimum <= batch.optimum <= batch.maximum
    ]
    if (side.dtype, side.layout) not in (("uint8", "NHWC"), ("float32", "NCHW")):
        problems.append("input: must be uint8 NHWC or float32 NCHW")
    if side.channels != manifest.preprocessing.channels:
        problems.append("input: channels must be as many as of the preprocessing's mean")
    if Size(side.height, side.width) != manifest.preprocessing.resolution:
        problems.append("input: height and width must be the preprocessing's resolution")
    if problems:
        raise BundleError(f"{os.fspath(source)}: {problems[0]}: export the bundle again")
