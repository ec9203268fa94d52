"""What an engine really takes and gives, held to what its bundle's manifest says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.errors import BundleError

if TYPE_CHECKING:
    from effnet_edge.bundle import Manifest


@dataclass(frozen=True)
class Span:
    """The sizes that a dimension may have; `most` is None without an end."""

    least: int
    most: int | None

    @classmethod
    def of(cls, size: int | str | None) -> Span:
        """Of a dimension as libraries tell it: a number above 0 where it is fixed."""
        return cls(size, size) if isinstance(size, int) and size > 0 else cls(0, None)

    def has(self, other: Span) -> bool:
        """Whether every size of `other` is one of this."""
        return self.least <= other.least and (
            self.most is None or (other.most is not None and other.most <= self.most)
        )

    def __str__(self) -> str:
        """In words, for people."""
        if self.least == self.most:
            return str(self.least)
        if self.most is None:
            return "any" if self.least <= 1 else f"{self.least} or more"
        return f"{self.least} to {self.most}"


@dataclass(frozen=True)
class Tensor:
    """An input or an output: its names, its element type as NumPy calls it, and its shape."""

    names: frozenset[str]
    dtype: str
    shape: tuple[Span, ...]

    def __str__(self) -> str:
        """In words, for people."""
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"


@dataclass(frozen=True)
class Interface:
    """Everything that goes in and comes out."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def interface_of(manifest: Manifest) -> Interface:
    """What the manifest says: one input and one output."""
    spec, batch = manifest.input, Span(manifest.batch.minimum, manifest.batch.maximum)
    sides = (spec.height, spec.width)
    image = (*sides, spec.channels) if spec.layout == "NHWC" else (spec.channels, *sides)
    pixels = Tensor(frozenset({spec.name}), spec.dtype, (batch, *map(Span.of, image)))
    row = (batch, Span.of(manifest.output.classes))
    return Interface((pixels,), (Tensor(frozenset({manifest.output.name}), "float32", row),))


def refuse_other(told: Interface, real: Interface, file: object) -> None:
    """Refuse an engine that is not what its manifest says.

    Sizes that the engine leaves open pass, and the number of its answers, which follows from what
    it is given: what it answers is checked at every batch.

    Raises:
        BundleError: naming the file and what differs.
    """
    for what, said, found, first_axis in (
        ("input", told.inputs, real.inputs, 0),
        ("output", told.outputs, real.outputs, 1),
    ):
        if len(found) != 1:
            raise _lies(file, f"it has {len(found)} {what}s", "one")
        if not said[0].names <= found[0].names:
            name = ", ".join(sorted(said[0].names))
            raise _lies(file, f"no {what} of it is called {name!r}", "so")
        if not _fits(said[0], found[0], first_axis):
            raise _lies(file, f"its {what} is {found[0]}", str(said[0]))


def _fits(said: Tensor, found: Tensor, first_axis: int) -> bool:
    pairs = list(zip(said.shape, found.shape, strict=False))
    return (
        found.dtype == said.dtype
        and len(said.shape) == len(found.shape)
        and all(real.has(told) for told, real in pairs[first_axis:])
    )


def _lies(file: object, found: str, said: str) -> BundleError:
    return BundleError(f"{file}: {found}, and manifest.json says {said}: export the bundle again")
