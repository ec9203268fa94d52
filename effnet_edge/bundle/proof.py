"""What proves a model of a bundle: what it was calibrated on, and how its stages compared."""

from __future__ import annotations

from dataclasses import dataclass


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

    def problems(self) -> list[str]:
        """What no stage of a bundle has, as one that fails is never bundled: a line for each."""
        named = f"parity: {self.stage!r}"
        twice = [
            f"{named} holds {key} to two limits, where each measure has one"
            for key, each in self.measures.items()
            if None not in (each.at_least, each.at_most)
        ]
        return twice + [
            f"{named} has passed, and its {key} of {each.value:g} breaks its own limit"
            for key, each in self.measures.items()
            if each.holds is False
        ]


@dataclass(frozen=True)
class EngineCheck:
    """How an engine answered pictures whose answers the bundle tells, on the machine that runs it.

    `rms_error` is the root mean square error of the outputs, in their unit, at `worst_size`, the
    batch size of `batch_sizes` where it was largest beside what was allowed, `at_most`; of a
    regression it is that of one output.
    """

    rms_error: float
    at_most: float
    batch_sizes: tuple[int, ...]
    worst_size: int

    @property
    def holds(self) -> bool:
        """Whether the error keeps to its limit, itself included; not so for NaN."""
        return self.rms_error <= self.at_most

    def share(self) -> float:
        """Of what is allowed: 0 to 1 where it holds."""
        return self.rms_error / self.at_most if self.rms_error else 0.0

    def __str__(self) -> str:
        """In words, for people."""
        return (
            f"the engine answers {'as' if self.holds else 'otherwise than'} exported: "
            f"{self.rms_error:.3g} off at a batch of {self.worst_size} (root mean square), at most "
            f"{self.at_most:.3g}"
        )

    def problems(self) -> list[str]:
        """A line where it does not hold, as such an engine is never put into a bundle."""
        return [] if self.holds else [f"engines: {self}"]


SEVEN_BIT_SCHEME = "asymmetric-uint8-w7"
"""The one whose INT8 weights have 7 bits, for x86 processors without VNNI."""


@dataclass(frozen=True)
class Calibration:
    """What a model was calibrated on: every INT8 one, and others with fitted activations.

    `table` is the bundle's file of ranges and factors; `scheme` the integers of the activations, or
    "floating-point"; `source`, `size` and `sha256` tell the pictures (the hash is of their prepared
    pixels); `kept` are the names of the layers that INT8 left in 16-bit floating point;
    `fast_activations` those of the layers behind which a fitted hard-swish stands in for the SiLU.
    """

    table: str
    scheme: str
    source: str
    size: int
    sha256: str
    kept: tuple[str, ...] = ()
    fast_activations: tuple[str, ...] = ()

    @property
    def weight_bits(self) -> int:
        """Of its INT8 weights: 8, or 7."""
        return 7 if self.scheme == SEVEN_BIT_SCHEME else 8
