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
from effnet_edge.bundle.choice import Choice, Graph
from effnet_edge.bundle.proof import (  # noqa: TC001 - cattrs resolves them
    Calibration,
    EngineCheck,
    StageParity,
)
from effnet_edge.bundle.schema import check_manifest, parse_json
from effnet_edge.errors import BundleError, UsageError, first_line
from effnet_edge.machine import Machine  # noqa: TC001 - as above
from effnet_edge.model.architecture import Activation, Pooling  # noqa: TC001 - as below
from effnet_edge.model.provenance import Weights  # noqa: TC001 - as above
from effnet_edge.model.variants import VARIANTS, Padding
from effnet_edge.outputs import ONE_OUTPUT, OutputKind
from effnet_edge.pictures.image import Preprocessing  # noqa: TC001 - as above
from effnet_edge.size import Size

if TYPE_CHECKING:
    from collections.abc import Iterator

    import cattrs

SCHEMA_VERSION = 4
_UNCHECKED_VERSION, _SQUARE_VERSION = 3, 2
MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.sig"

_ODD_SIZES = (3, 5, 7)
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

    @property
    def sizes_to_check(self) -> tuple[int, ...]:
        """One image, the minimum, optimum and maximum, odd sizes in it, and one image beyond.

        `EngineRunner` pads what is below the range and splits what is beyond it, so these are sizes
        that people call it with, too.
        """
        odd = (*_ODD_SIZES, self.maximum - 1 + self.maximum % 2)
        inside = {size for size in odd if self.minimum <= size <= self.maximum}
        ends = {1, self.minimum, self.optimum, self.maximum, self.maximum + 1}
        return tuple(sorted(inside | ends))

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
class EngineRecord:
    """An engine that was compiled from the bundle's portable graph, and what it runs on.

    `file` is the bundle's; `library` is the name of the target whose library built it;
    `compute_capability` names every GPU generation that it was built for ("8.7"). `gpu`, `cuda`
    and `jetpack` describe the machine that built it, None where it has none. `check` is None where
    that machine could not run it, or had no answers to compare.
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
    check: EngineCheck | None = None


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
    answers: str | None = None
    choice: Choice | None = None
    files: dict[str, FileRecord] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def is_open(self) -> bool:
        """Whether it carries several graphs, of which the device keeps one when it builds."""
        return self.choice is not None and self.choice.is_open

    @property
    def precisions(self) -> list[str]:
        """Its own, or those of all the graphs that it carries."""
        if self.choice is None or not self.choice.is_open:
            return [self.precision]
        return list(dict.fromkeys(each.precision for each in self.choice.contenders))

    def to_json(self) -> str:
        """The text of `manifest.json`.

        Raises:
            BundleError: a measure is NaN.

        """
        document = asdict(self)
        for stage in _stages(document):
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
        for stage in _stages(document):
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


def _stages(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All that was compared: of the bundle's own graph, and of those among which it chooses."""
    yield from document["parity"]
    for each in (document.get("choice") or {"contenders": ()})["contenders"]:
        yield each["loss"]
        yield from (each["graph"] or {"parity": ()})["parity"]


def _refuse_newer(document: Any, source: str | os.PathLike[str]) -> None:
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{os.fspath(source)}: made by a newer effnet-edge (schema version {version}, "
            f"this one reads {SCHEMA_VERSION}): upgrade with pip install -U effnet-edge"
        )


def _upgraded(document: Any) -> Any:
    """One of an older schema version as it would be written now.

    What is wrong in it is left for the schema to find.
    """
    if not isinstance(document, dict):
        return document
    if document.get("schema_version") == _SQUARE_VERSION:
        document = _of_any_shape(document)
    if document.get("schema_version") == _UNCHECKED_VERSION:
        document = _with_checks(document)
    return document


def _with_checks(document: dict[str, Any]) -> dict[str, Any]:
    """One of version 3: no engine was compared, and a choice had the answers to itself."""
    new: dict[str, Any] = {"answers": None, "schema_version": SCHEMA_VERSION}
    if isinstance(document.get("engines"), list):
        engines = document["engines"]
        new["engines"] = [
            {**each, "check": None} if isinstance(each, dict) else each for each in engines
        ]
    if isinstance(document.get("choice"), dict):
        new["choice"] = dict(document["choice"])
        new["answers"] = new["choice"].pop("answers", None)
    return {**document, **new}


def _of_any_shape(document: dict[str, Any]) -> dict[str, Any]:
    """One of version 2, whose pictures were all square and cropped."""
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
    new = {"preprocessing": preprocessing, "schema_version": _UNCHECKED_VERSION}
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
    if manifest.choice is not None:
        graphs = manifest.choice.graphs
        named += [("choice: graph", name) for graph in graphs for name in graph.files]
    if manifest.answers is not None:
        named.append(("answers", manifest.answers))
    return named + [("engines", engine.file) for engine in manifest.engines]


def _batches(manifest: Manifest) -> list[tuple[str, BatchRange]]:
    """The batches that the bundle, and each of its engines, takes."""
    of_engines = [("engines: batch", engine.batch) for engine in manifest.engines]
    return [("batch", manifest.batch), *of_engines]


def _proofs(manifest: Manifest) -> Iterator[StageParity]:
    """The same as `_stages` of its document."""
    yield from manifest.parity
    for each in manifest.choice.contenders if manifest.choice else ():
        yield each.loss
        yield from each.graph.parity if each.graph else ()


def _check_consistency(manifest: Manifest, source: str | os.PathLike[str]) -> None:
    """What a schema cannot say."""
    side, choice = manifest.input, manifest.choice
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
    problems += [problem for proof in _proofs(manifest) for problem in proof.problems()]
    checks = [engine.check for engine in manifest.engines if engine.check is not None]
    problems += [problem for check in checks for problem in check.problems()]
    if choice is not None:
        problems += choice.problems()
        if choice.is_open and manifest.answers is None:
            problems.append("choice: an open one needs answers")
        if not problems and manifest.is_open and not _tells_the_first(manifest, choice):
            problems.append("choice: an open one has no engine, and the first graph is the model")
    if (side.dtype, side.layout) not in (("uint8", "NHWC"), ("float32", "NCHW")):
        problems.append("input: must be uint8 NHWC or float32 NCHW")
    if side.channels != manifest.preprocessing.channels:
        problems.append("input: channels must be as many as of the preprocessing's mean")
    if Size(side.height, side.width) != manifest.preprocessing.resolution:
        problems.append("input: height and width must be the preprocessing's resolution")
    if problems:
        raise BundleError(f"{os.fspath(source)}: {problems[0]}: export the bundle again")


def _tells_the_first(manifest: Manifest, choice: Choice) -> bool:
    first = choice.contenders[0]
    own = Graph(manifest.model, manifest.calibration, manifest.parity)
    return (own, manifest.precision) == (first.graph, first.precision) and not manifest.engines
