"""What was decided about each layer of a network, for one scheme. It imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import cattrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from effnet_edge.pictures.image import Preprocessing

Numbers = float | tuple[float, ...] | str
"""A text where a step packs them, as they are many: see `PACKED`."""

STREAM = "stream"
DEPTHWISE = "depthwise"
PROJECTION = "projection"
CENTRES = "centres"
BIASES = "biases"
ACTIVATIONS = "activations"
SLOPES = "slopes"
INTEGER_WEIGHTS = "integer_weights"
REFITTED = "refitted"

PACKED = frozenset({REFITTED})

# What a table's file takes from a layer's name in these columns: it calls a block's two tensors by
# the block, and a stream by its stage.
_FILE_KEYS = {
    STREAM: ("stages.", ".0.project.conv"),
    DEPTHWISE: ("", ".depthwise.conv"),
    PROJECTION: ("", ".project.conv"),
    CENTRES: ("", ".project.conv"),
    BIASES: ("", ""),
}


@dataclass(frozen=True)
class TensorEntry:
    """How one tensor is quantized, and why: the rule, and the signal to noise that it promised."""

    scale: float
    zero_point: int
    rule: str
    snr_db: float


@dataclass(frozen=True)
class PixelNormalization:
    """What the network's input is made by: (pixel / 255 − mean) / std, one of each a channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> PixelNormalization:
        """Take it from what is done to a picture."""
        return cls(preprocessing.mean, preprocessing.std)


@dataclass(frozen=True)
class LayerQuantization:
    """What was decided about one layer.

    Attributes:
        grid: of its input.
        kept: whether it is left in 16-bit floating point, its weights and its input.
        changes: what the steps change in the network at this layer: numbers by the change's name,
            which its step in `steps.STEPS` knows how to read.
    """

    grid: TensorEntry | None = None
    kept: bool = False
    changes: Mapping[str, Numbers] = field(default_factory=dict)


NOTHING = LayerQuantization()


@dataclass(frozen=True)
class Quantization:
    """One scheme's part of a table. Its methods give changed copies.

    Attributes:
        layers: by name; those that nothing was decided about are missing.
        logit_gain: what quantization left of the logits' spread; the classifier is divided by it.
        pixels: how the stem's pixels are normalized, where it reads them as integers.
        outputs: how the tensors are quantized that modules give, by the module's name, for schemes
            that round outputs.
    """

    scheme: str
    layers: Mapping[str, LayerQuantization] = field(default_factory=dict)
    logit_gain: float = 1.0
    pixels: PixelNormalization | None = None
    outputs: Mapping[str, TensorEntry] = field(default_factory=dict)

    def layer(self, name: str) -> LayerQuantization:
        """What was decided about one layer."""
        return self.layers.get(name, NOTHING)

    @property
    def grids(self) -> dict[str, TensorEntry]:
        """Of every layer that has one, by name."""
        return {name: each.grid for name, each in self.layers.items() if each.grid is not None}

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the layers left in 16 bit, sorted."""
        return tuple(sorted(name for name, each in self.layers.items() if each.kept))

    def changes(self, change: str) -> dict[str, Numbers]:
        """One change's numbers by layer."""
        return {
            name: each.changes[change]
            for name, each in self.layers.items()
            if change in each.changes
        }

    def changing(self, change: str, numbers: Mapping[str, Numbers]) -> Quantization:
        """The same with one change made at just these layers."""
        layers = {}
        for name in {**self.layers, **numbers}:
            own = self.layer(name)
            others = {key: each for key, each in own.changes.items() if key != change}
            if name in numbers:
                others[change] = numbers[name]
            layers[name] = replace(own, changes=others)
        return self._holding(layers)

    def gridded(self, grids: Mapping[str, TensorEntry]) -> Quantization:
        """The same with the grids of these layers' inputs, and of no others."""
        names = {**self.layers, **grids}
        layers = {name: replace(self.layer(name), grid=grids.get(name)) for name in names}
        return self._holding(layers)

    def rounding(self, outputs: Mapping[str, TensorEntry]) -> Quantization:
        """The same with these grids of modules' outputs."""
        return replace(self, outputs=dict(outputs))

    def keeping(self, names: Iterable[str]) -> Quantization:
        """The same with just these layers in 16 bit."""
        kept = dict.fromkeys(names)
        layers = {
            name: replace(self.layer(name), kept=name in kept) for name in {**self.layers, **kept}
        }
        return self._holding(layers)

    def uncorrected(self) -> Quantization:
        """The same before the biases and the gain were corrected: as after a change of grids."""
        return replace(self.changing(BIASES, {}), logit_gain=1.0)

    def _holding(self, layers: Mapping[str, LayerQuantization]) -> Quantization:
        """With these layers, but for those that nothing was decided about: equal is equal."""
        decided = {name: each for name, each in layers.items() if each != NOTHING}
        return replace(self, layers=decided)


def shortest(values: Tensor) -> tuple[float, ...]:
    """The shortest decimals that are these numbers in float32: half the table's size."""
    return tuple(float(str(value)) for value in values.float().numpy())


def to_columns(quantization: Quantization) -> dict[str, Any]:
    """As a table's file holds it: a column a decision, each by layer, block or stage."""
    columns: dict[str, Any] = {change: {} for change in _FILE_KEYS}
    for name, each in quantization.layers.items():
        for change, numbers in each.changes.items():
            columns.setdefault(change, {})[_file_key(change, name)] = numbers
    if quantization.outputs:
        columns["outputs"] = {name: asdict(grid) for name, grid in quantization.outputs.items()}
    return columns | {
        "scheme": quantization.scheme,
        "tensors": {name: asdict(grid) for name, grid in quantization.grids.items()},
        "kept": quantization.kept,
        "logit_gain": quantization.logit_gain,
        "pixels": None if quantization.pixels is None else asdict(quantization.pixels),
    }


def from_columns(columns: Mapping[str, Any]) -> Quantization:
    """Read what `to_columns` gives; raises whatever the conversion of a wrong value does."""
    changes = dict(columns)
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=False)
    pixels = changes.pop("pixels", None)
    read = Quantization(
        str(changes.pop("scheme")),
        logit_gain=float(changes.pop("logit_gain", 1.0)),
        pixels=None if pixels is None else converter.structure(pixels, PixelNormalization),
    )
    read = read.gridded(converter.structure(changes.pop("tensors"), dict[str, TensorEntry]))
    read = read.keeping(converter.structure(changes.pop("kept", ()), tuple[str, ...]))
    outputs = changes.pop("outputs", {})
    read = read.rounding(converter.structure(outputs, dict[str, TensorEntry]))
    for change, by_key in changes.items():
        numbers = {_layer_name(change, key): _numbers(change, each) for key, each in by_key.items()}
        read = read.changing(change, numbers)
    return read


def _numbers(change: str, value: object) -> Numbers:
    if change in PACKED:
        if not isinstance(value, str):
            raise TypeError(f"{change} is no text")
        return value
    if isinstance(value, (list, tuple)):
        return tuple(float(each) for each in value)
    return float(value)  # type: ignore[arg-type]


def _file_key(change: str, name: str) -> str:
    prefix, suffix = _FILE_KEYS.get(change, ("", ""))
    return name.removeprefix(prefix).removesuffix(suffix)


def _layer_name(change: str, key: str) -> str:
    prefix, suffix = _FILE_KEYS.get(change, ("", ""))
    return f"{prefix}{key}{suffix}"
