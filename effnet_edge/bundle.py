"""A bundle: one exported model as a directory of model files, `labels.json` and `manifest.json`.

The manifest says what the model takes and gives, how it was proven, and the SHA-256 of every file.
It is data: reading a bundle executes nothing and unpickles nothing. `docs/bundle.md` is the format.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
import re
import secrets
import shutil
import stat
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import BundleError, UsageError
from effnet_edge.image import Preprocessing  # noqa: TC001 - cattrs resolves it at run time
from effnet_edge.model.variants import Padding  # noqa: TC001 - as above
from effnet_edge.outputs import OutputKind  # noqa: TC001 - as above

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

SCHEMA_VERSION = 3
MANIFEST_FILE = "manifest.json"
LABELS_FILE = "labels.json"

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_HASH_CHUNK_BYTES = 1 << 20
_DISK_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
)


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
    probability of 0.5. What an output does not have is None. `batch_sizes` are those at each of
    which the gate held; empty where only one was run.
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
    batch_sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Machine:
    """The machine that built the bundle."""

    platform: str
    processor: str
    python: str

    @classmethod
    def here(cls) -> Machine:
        """Describe the machine that runs this."""
        return cls(platform.platform(), _processor(), platform.python_version())


@dataclass(frozen=True)
class Weights:
    """Where the weights came from; `sha256` is that of the checkpoint file."""

    name: str
    source: str
    sha256: str
    licence: str | None


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

    `file` is the bundle's; `library` is "tensorrt" or "tensorrt-rtx"; `compute_capability` names
    every GPU generation that it was built for ("8.7"). `gpu`, `cuda` and `jetpack` describe the
    machine that built it, None where it has none.
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
class Label:
    """A class for people: its name and, for ImageNet classes, its WordNet id."""

    name: str
    wnid: str | None


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
        document = _parse_json(text, source)
        _refuse_newer(document, source)
        _check_schema(document, _manifest_validator(), source)
        for stage in document["parity"]:
            if stage["sqnr_db"] is None:
                stage["sqnr_db"] = math.inf
        manifest = _structure(document, cls, source)
        _check_consistency(manifest, source)
        return manifest


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest has been read and whose files have been checked."""

    path: Path
    manifest: Manifest
    labels: tuple[Label, ...] | None

    @property
    def model_path(self) -> Path:
        """The file that the engine loads."""
        return self.path / self.manifest.model

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = True) -> Bundle:
        """Read a bundle and check it; `verify=False` skips the hashing (sizes are still checked).

        Raises:
            UsageError: nothing exists at `path`.
            BundleError: not a bundle, damaged, with files that are not its own, or too new.

        """
        folder = Path(path)
        if not folder.exists():
            raise UsageError(f"{folder}: no such bundle: check the path")
        manifest = _read_manifest(folder)
        _refuse_foreign_files(folder, manifest)
        for name, record in manifest.files.items():
            _check_file(folder / name, record, verify)
        return cls(folder, manifest, _read_labels(folder, manifest))


class BundleWriter:
    """Writes a bundle whole or not at all.

    Files go into `staging`, a hidden sibling of the destination. `commit` seals them and renames
    the directory into place; leaving the context without it removes the staging directory.

        with BundleWriter("b0-openvino-fp32") as writer:
            openvino.save_model(model, writer.staging / "model.xml")
            bundle = writer.commit(manifest, labels)

    A destination that holds a bundle is replaced; anything else but an empty directory is refused
    at once, before any work is done. Missing parent directories are made.
    """

    def __init__(self, destination: str | os.PathLike[str]) -> None:
        """Check the destination.

        Raises:
            UsageError: the destination exists and is not a bundle.

        """
        self.destination = Path(os.path.abspath(destination))  # noqa: PTH100 - folds ".." too
        _refuse_unless_replaceable(self.destination)
        self.staging = self._sibling("partial")

    def __enter__(self) -> BundleWriter:
        """Make the staging directory.

        Raises:
            BundleError: the place cannot be written to.

        """
        try:
            self.destination.parent.mkdir(parents=True, exist_ok=True)
            self.staging.mkdir()
        except OSError as error:
            raise _disk_error(self.destination, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove what was not committed; a full or read-only disk becomes a `BundleError`."""
        shutil.rmtree(self.staging, ignore_errors=True)
        if isinstance(error, OSError) and self._is_ours(error):
            raise _disk_error(self.destination, error) from error

    def commit(self, manifest: Manifest, labels: Sequence[Label] | None) -> Bundle:
        """Seal the staged files with their hashes and rename the bundle into place.

        `manifest.files` and `manifest.labels` are set here; `labels[i]` names class `i`.

        Raises:
            BundleError: the manifest is inconsistent, or the disk refuses.
            UsageError: the destination has meanwhile become something else.

        """
        try:
            if labels is not None:
                self._write_labels(labels)
            sealed = replace(
                manifest,
                labels=None if labels is None else LABELS_FILE,
                files={file.name: _record(file) for file in sorted(self.staging.iterdir())},
            )
            text = sealed.to_json()
            manifest_path = self.staging / MANIFEST_FILE
            checked = Manifest.from_json(text, manifest_path)
            manifest_path.write_text(text, encoding="utf-8")
            checked_labels = _read_labels(self.staging, checked)
            self._sync()
            _refuse_unless_replaceable(self.destination)
            self._put_in_place()
        except OSError as error:
            raise _disk_error(self.destination, error) from error
        return Bundle(self.destination, checked, checked_labels)

    def _write_labels(self, labels: Sequence[Label]) -> None:
        text = json.dumps([asdict(label) for label in labels], indent=1, ensure_ascii=False)
        (self.staging / LABELS_FILE).write_text(text + "\n", encoding="utf-8")

    def _sync(self) -> None:
        for file in self.staging.iterdir():
            _fsync(file)
        _fsync(self.staging)

    def _put_in_place(self) -> None:
        if (self.destination / MANIFEST_FILE).exists():
            self._swap()
        else:
            self.staging.rename(self.destination)
        _fsync(self.destination.parent)

    def _swap(self) -> None:
        aside = self._sibling("old")
        try:
            self.destination.rename(aside)
            self.staging.rename(self.destination)
        finally:
            # Also on Ctrl-C between the two renames: one of the two bundles is always in place.
            if self.destination.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.rename(self.destination)

    def _sibling(self, suffix: str) -> Path:
        return self.destination.with_name(
            f".{self.destination.name}.{secrets.token_hex(4)}.{suffix}"
        )

    def _is_ours(self, error: OSError) -> bool:
        """Whether the disk under the staging directory refused, and not some other file's."""
        if error.filename is None:
            return error.errno in _DISK_ERRNOS
        return Path(os.fsdecode(error.filename)).is_relative_to(self.staging)


def utc_now() -> str:
    """The time for `Manifest.created`: ISO 8601, UTC, whole seconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _processor() -> str:
    """The processor's model name, which `platform` does not know on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_FILE
    if not path.is_file() or path.is_symlink():
        raise BundleError(f"{folder}: is not a bundle: it has no {MANIFEST_FILE}")
    return Manifest.from_json(_read_bytes(path), path)


def _read_labels(folder: Path, manifest: Manifest) -> tuple[Label, ...] | None:
    if manifest.labels is None:
        return None
    path = folder / manifest.labels
    document = _parse_json(_read_bytes(path), path)
    _check_schema(document, _labels_validator(), path)
    if len(document) != manifest.output.classes:
        raise BundleError(
            f"{path}: has {len(document)} labels for a model of {manifest.output.classes} classes: "
            "export again with the labels of this model"
        )
    return tuple(Label(entry["name"], entry["wnid"]) for entry in document)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error


def _parse_json(text: str | bytes, source: str | os.PathLike[str]) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ValueError(f"the key {twice!r} appears twice")
        return dict(pairs)

    def refuse_constant(name: str) -> None:
        raise ValueError(f"{name} is not a JSON number")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{os.fspath(source)}: is not valid JSON ({error}): export the bundle again"
        ) from error


def _refuse_newer(document: Any, source: str | os.PathLike[str]) -> None:
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{os.fspath(source)}: made by a newer effnet-edge (schema version {version}, "
            f"this one reads {SCHEMA_VERSION}): upgrade with pip install -U effnet-edge"
        )


def _schema() -> dict[str, Any]:
    text = resources.files("effnet_edge").joinpath("data", "bundle.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _manifest_validator() -> Callable[[Any], Any]:
    import fastjsonschema

    validator: Callable[[Any], Any] = fastjsonschema.compile(_schema())
    return validator


@cache
def _labels_validator() -> Callable[[Any], Any]:
    import fastjsonschema

    definitions = _schema()["definitions"]
    validator: Callable[[Any], Any] = fastjsonschema.compile(
        {"$ref": "#/definitions/labels", "definitions": definitions}
    )
    return validator


def _check_schema(
    document: Any, validator: Callable[[Any], Any], source: str | os.PathLike[str]
) -> None:
    import fastjsonschema

    try:
        validator(document)
    except fastjsonschema.JsonSchemaValueException as error:
        what = " ".join(re.sub(r"^data\.?", "", error.message).split())
        raise BundleError(f"{os.fspath(source)}: {what}: export the bundle again") from error


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


def _refuse_foreign_files(folder: Path, manifest: Manifest) -> None:
    own = {MANIFEST_FILE, *manifest.files}
    try:
        foreign = sorted(entry.name for entry in os.scandir(folder) if entry.name not in own)
    except OSError as error:
        raise BundleError(f"{folder}: cannot be read: {error.strerror}") from error
    if foreign:
        raise BundleError(f"{folder}: {foreign[0]!r} is not part of this bundle: remove it")


def _check_file(path: Path, record: FileRecord, verify: bool) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise BundleError(f"{path}: is missing: copy or export the bundle again") from None
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path}: is not a regular file: copy the bundle without links")
    altered = status.st_size != record.bytes or (verify and _sha256(path) != record.sha256)
    if altered:
        raise BundleError(
            f"{path}: is not the file that was exported (size or SHA-256 differs from the "
            "manifest's): copy or export the bundle again"
        )


def _record(path: Path) -> FileRecord:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise BundleError(f"{path}: a bundle holds regular files only: remove it")
    return FileRecord(_sha256(path), path.stat().st_size)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _refuse_unless_replaceable(destination: Path) -> None:
    """Only an empty directory or a bundle with nothing else in it may be replaced."""
    if not os.path.lexists(destination):
        return
    try:
        replaceable = not destination.is_symlink() and destination.is_dir()
        if replaceable and any(destination.iterdir()):
            _refuse_foreign_files(destination, _read_manifest(destination))
    except (BundleError, OSError):
        replaceable = False
    if not replaceable:
        raise UsageError(f"{destination}: exists and is not a bundle: choose another -o")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_error(destination: Path, error: OSError) -> BundleError:
    where = f" ({os.fsdecode(error.filename)})" if error.filename is not None else ""
    return BundleError(f"{destination}: cannot write the bundle: {error.strerror or error}{where}")
