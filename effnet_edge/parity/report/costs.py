"""What a model takes, apart from how right it is: its size and, if it was timed, its speed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """One model's.

    Attributes:
        model_bytes: of the model's own files, without labels and calibration; None if unknown.
        times_as_fast: as the baseline; the median over rounds in which all models took turns.
            None if it was not timed.
        middle_half: the quartiles of the same ratio over the rounds.
        median_seconds: of one call with one picture.
    """

    model_bytes: int | None = None
    times_as_fast: float | None = None
    middle_half: tuple[float, float] | None = None
    median_seconds: float | None = None


@dataclass(frozen=True)
class Baseline:
    """The model that sizes and speeds are told against.

    Attributes:
        name: the reference's, or a candidate's.
        cost: its own.
        rounds: how often each model was timed; 0 if none was.
    """

    name: str
    cost: Cost
    rounds: int = 0
