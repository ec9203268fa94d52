"""The calibration table: everything that turns a network into its quantized form, as JSON.

With the network's weights it gives the same quantized model bit for bit, without a picture.
`docs/quantization.md` explains the fields.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import cattrs

from effnet_calibration.errors import CalibrationError
from effnet_calibration.quantization import (
    DEPTHWISE,
    PROJECTION,
    STREAM,
    PixelNormalization,
    Quantization,
    from_columns,
    to_columns,
)
from effnet_edge.files import write_whole
from effnet_edge.size import Size  # noqa: TC001 - cattrs resolves it at run time

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from effnet_edge.bundle import Bundle
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.pictures.image import Preprocessing

SCHEMA_VERSION = 5
_SQUARE_VERSION = 2
_NORMALIZATION_UNTOLD = 3
_CONVENTIONS_UNTOLD = 4
_READ = (_SQUARE_VERSION, _NORMALIZATION_UNTOLD, _CONVENTIONS_UNTOLD)
LONGEST_TEXT = 80
"""That a difference tells in full, in characters."""

# Of float32, in which a network computes: the largest number, and the least normal one.
_LARGEST, _LEAST = (2 - 2.0**-23) * 2.0**127, 2.0**-126


@dataclass(frozen=True)
class ModelIdentity:
    """Which network a table belongs to. `sha256` is of its folded weights.

    `pooling` and `activation`, which weights do not tell, are None in tables of schema version 4.
    """

    variant: str
    resolution: Size
    padding: str
    classes: int
    sha256: str
    pooling: str | None = None
    activation: str | None = None


@dataclass(frozen=True)
class CalibrationSet:
    """What was calibrated on. `sha256` is of the prepared pixels; `skipped` are the errors.

    `normalization` is what the network read of them, None in tables of schema version 3.
    """

    source: str
    size: int
    sha256: str
    skipped: tuple[str, ...] = ()
    normalization: PixelNormalization | None = None


@dataclass(frozen=True)
class TensorRange:
    """What a tensor's channels reached before anything was changed, in the tensor's own unit."""

    minimum: tuple[float, ...]
    maximum: tuple[float, ...]


@dataclass(frozen=True)
class CalibrationTable:
    """What one calibration found. `tools` are versions by name; `quantizations` by scheme name."""

    model: ModelIdentity
    images: CalibrationSet
    tools: dict[str, str]
    ranges: dict[str, TensorRange]
    quantizations: dict[str, Quantization]
    schema_version: int = SCHEMA_VERSION

    def quantization(self, scheme: str) -> Quantization:
        """The part for one scheme; raises `CalibrationError` where the table has none."""
        try:
            return self.quantizations[scheme]
        except KeyError:
            raise CalibrationError(
                f"the calibration table holds {', '.join(self.quantizations) or 'no scheme'}, "
                f"not {scheme}: calibrate again for this target and precision"
            ) from None

    def check_model(self, network: EfficientNet) -> None:
        """Refuse a network other than the folded one that the table was made from.

        Raises:
            CalibrationError: naming what differs.
        """
        theirs, own = vars(identify(network)), vars(self.model)
        wrong = [name for name in own if own[name] not in (None, theirs[name])]
        if wrong == ["sha256"]:
            raise CalibrationError(
                "the calibration table was made from other weights of this network: "
                "calibrate again, or give the table's own checkpoint"
            )
        if wrong:
            name = wrong[0]
            raise CalibrationError(
                f"the calibration table belongs to another model: its {name} is {own[name]}, "
                f"the network's is {theirs[name]}"
            )

    def check_normalization(self, preprocessing: Preprocessing) -> None:
        """Refuse a network that reads other numbers of the same pixels.

        Raises:
            CalibrationError: with both.
        """
        pixels = (each.pixels for each in self.quantizations.values())
        theirs = PixelNormalization.of(preprocessing)
        for own in filter(None, (self.images.normalization, *pixels)):
            if own == theirs:
                continue
            raise CalibrationError(
                "the calibration table is for pixels normalized otherwise: its mean and deviation "
                f"are {own.mean} and {own.std}, the network's {theirs.mean} and {theirs.std}: "
                "calibrate again, or give the table's as --mean and --std"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON; the file is whole or not there.

        Raises:
            CalibrationError: the file cannot be written.
        """
        target = Path(path)
        try:
            write_whole(target, self.to_json())
        except OSError as error:
            raise CalibrationError(f"{target} cannot be written: {error.strerror}") from error

    def to_json(self) -> str:
        """The file's text: the same for the same table, numbers exact to the last bit."""
        return json.dumps(
            self._tree(), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False
        )

    def _tree(self) -> dict[str, Any]:
        """What the file holds."""
        columns = {name: to_columns(each) for name, each in self.quantizations.items()}
        return asdict(replace(self, quantizations={})) | {"quantizations": columns}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CalibrationTable:
        """Read a table back.

        Raises:
            CalibrationError: no such file, not a table, damaged, or of another schema version.
        """
        source = Path(path)
        try:
            content = source.read_bytes()
        except OSError as error:
            raise CalibrationError(
                f"the calibration table {source} cannot be read: {error.strerror}"
            ) from error
        return cls.from_json(content, str(source))

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> CalibrationTable:
        """Read the table of a bundle, and nothing but the file that its manifest records.

        Raises:
            CalibrationError: the bundle has none, or as `load`.
            BundleError: the file is not the recorded one.
        """
        calibration = bundle.manifest.calibration
        if calibration is None:
            raise CalibrationError(f"{bundle.path} is no INT8 bundle: it has no calibration table")
        return cls.from_json(bundle.read(calibration.table), str(bundle.path / calibration.table))

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "the calibration table") -> CalibrationTable:
        """Read a table from its text; `name` is what errors call it. Raises as `load` does."""
        tree = _upgraded(_parse(text, name))
        version = tree.get("schema_version")
        if version != SCHEMA_VERSION:
            raise CalibrationError(
                f"{name} has schema version {version}; this effnet-edge reads {SCHEMA_VERSION}: "
                "update effnet-edge, or calibrate again"
            )
        try:
            table = _converter().structure(tree, cls)
        except Exception as error:
            # cattrs lets out whatever the conversion of a wrong value raises.
            raise CalibrationError(f"{name} is damaged: {error!r}") from error
        _check_values(table, name)
        return table


def difference(before: CalibrationTable, after: CalibrationTable) -> list[str]:
    """What differs between two tables, a line a value: "path: before → after".

    A list of numbers is one value: its line gives the largest change.
    """
    return list(_differences("", before._tree(), after._tree()))


def identify(network: EfficientNet) -> ModelIdentity:
    """The identity of a folded network."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.tensors().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return ModelIdentity(
        network.variant.name,
        network.resolution,
        network.padding,
        network.output_size,
        digest.hexdigest(),
        network.pooling,
        network.activation,
    )


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=False)
    converter.register_structure_hook(Quantization, lambda columns, _: from_columns(columns))
    return converter


def _parse(text: str | bytes, name: str) -> dict[str, Any]:
    def refuse(number: str) -> NoReturn:
        raise ValueError(f"{number} is not a number that a table can hold")

    def held(read: Callable[[str], float]) -> Callable[[str], float]:
        return lambda text: read(text) if abs(float(text)) <= _LARGEST else refuse(text)

    try:
        tree = json.loads(text, parse_constant=refuse, parse_float=held(float), parse_int=held(int))
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"{name} is not JSON, or damaged: {error}") from error
    if not isinstance(tree, dict):
        raise CalibrationError(f"{name} is not a calibration table: it holds no JSON object")
    return tree


def _upgraded(tree: dict[str, Any]) -> dict[str, Any]:
    """A table of schema version 2, whose networks were all square, 3 or 4, as it is written now."""
    version, model = tree.get("schema_version"), tree.get("model")
    if version not in _READ:
        return tree
    if version == _SQUARE_VERSION and isinstance(model, dict):
        side = model.get("resolution")
        model = {**model, "resolution": {"height": side, "width": side}}
    return {**tree, "model": model, "schema_version": SCHEMA_VERSION}


def _check_values(table: CalibrationTable, name: str) -> None:
    if table.images.size < 1:
        raise CalibrationError(f"{name} is damaged: it is of {table.images.size} pictures")
    for key, quantization in table.quantizations.items():
        if quantization.scheme != key:
            raise CalibrationError(f"{name} is damaged: {key} holds {quantization.scheme}")
        for layer, grid in (*quantization.grids.items(), *quantization.outputs.items()):
            if grid.scale < _LEAST:
                raise CalibrationError(f"{name} is damaged: the scale of {layer} is {grid.scale}")
        for change in (DEPTHWISE, PROJECTION, STREAM):
            for factors in quantization.changes(change).values():
                if not isinstance(factors, tuple) or any(value < _LEAST for value in factors):
                    raise CalibrationError(f"{name} is damaged: a factor is not above 0")
        pixels = quantization.pixels
        if pixels is not None and any(not value > 0 for value in pixels.std):
            raise CalibrationError(f"{name} is damaged: a deviation of the pixels is not above 0")
        if not quantization.logit_gain > 0:
            raise CalibrationError(f"{name} is damaged: logit_gain is {quantization.logit_gain}")


def _differences(path: str, before: object, after: object) -> list[str]:
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in sorted({*before, *after})
            for line in _differences(
                f"{path}.{key}" if path else str(key), before.get(key), after.get(key)
            )
        ]
    if _numbers(before) and _numbers(after) and len(before) == len(after):  # type: ignore[arg-type]
        change = max(abs(a - b) for a, b in zip(before, after, strict=True))  # type: ignore[call-overload]
        return [f"{path}: changed by up to {change:g}"]
    return [f"{path}: {_short(before)} → {_short(after)}"]


def _numbers(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, (int, float)) for each in value)


def _short(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, tuple) and value and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    if isinstance(value, (tuple, dict)):
        return f"{len(value)} values"
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"{len(value)} characters"
    return str(value)
