"""How far values are apart that are no classes: of a regression, each output by itself.

The outputs may have units of their own (degrees, metres), so each error is a share of how much the
reference's own output varies from picture to picture. An offset then counts as much beside large
values as beside small ones, which it does not in the SQNR.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import UsageError
from effnet_edge.parity.measures.formula import Z95, Formula, Loss, Partial

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Sums over pictures for each output, arrays (outputs,).

    Attributes:
        images: how many pictures.
        means: of the reference and of the candidate, (2, outputs).
        products: of the deviations from these means: reference², candidate², and one by the other,
            (3, outputs).
        noise: Σ (ref − cand)².
    """

    images: int
    means: Floats
    products: Floats
    noise: Floats

    @classmethod
    def of(cls, reference: ArrayLike, candidate: ArrayLike) -> Moments:
        """From two arrays (N, outputs), N ≥ 1."""
        both = np.stack([np.asarray(reference, np.float64), np.asarray(candidate, np.float64)])
        with np.errstate(invalid="ignore"):
            # From the first picture on, so that the deviations of a constant are exactly zero.
            means = both[:, 0] + (both - both[:, :1]).mean(1)
            ref, cand = both - means[:, None]
            noise = np.square(both[0] - both[1]).sum(0)
            products = np.stack([(ref * ref).sum(0), (cand * cand).sum(0), (ref * cand).sum(0)])
        return cls(both.shape[1], means, products, noise)

    def __add__(self, other: Moments) -> Moments:
        """Of both sets of pictures (T. F. Chan, G. H. Golub, R. J. LeVeque, 1979)."""
        images = self.images + other.images
        with np.errstate(invalid="ignore"):
            ref, cand = apart = other.means - self.means
            between = np.stack([ref * ref, cand * cand, ref * cand])
            return Moments(
                images,
                self.means + apart * (other.images / images),
                self.products + other.products + between * (self.images * other.images / images),
                self.noise + other.noise,
            )

    @property
    def spread(self) -> Floats:
        """The standard deviation of the reference's outputs over the pictures."""
        spread: Floats = np.sqrt(self.products[0] / self.images)
        return spread

    @property
    def nrmse(self) -> Floats:
        """√(Σ (ref − cand)² / Σ (ref − mean)²); NaN for a constant that is met exactly."""
        with np.errstate(invalid="ignore", divide="ignore"):
            shares: Floats = np.sqrt(self.noise / self.products[0])
        return shares

    @property
    def correlation(self) -> Floats:
        """Pearson's, −1 to 1; 0 for a constant candidate, NaN for a constant reference."""
        ref, cand, both = self.products
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.where(cand == 0, 0.0, both / (np.sqrt(ref) * np.sqrt(cand)))
        clipped: Floats = np.clip(np.where(ref == 0, np.nan, found), -1, 1)
        return clipped

    @property
    def varies(self) -> NDArray[np.bool_]:
        """The outputs that are to be judged: all but constants that are met exactly."""
        judged: NDArray[np.bool_] = (self.products[0] != 0) | (self.noise != 0)
        return judged

    def flat(self) -> Partial:
        """As one tuple; see `unflat`."""
        return (float(self.images), *np.stack([*self.means, *self.products, self.noise]).flat)

    @classmethod
    def unflat(cls, images: float, *rest: float) -> Moments:
        """The inverse of `flat`."""
        rows = np.asarray(rest).reshape(6, -1)
        return cls(int(images), rows[:2], rows[2:5], rows[5])


def _partial(reference: ArrayLike, candidate: ArrayLike) -> Partial:
    ref, cand = np.asarray(reference), np.asarray(candidate)
    if ref.shape != cand.shape or ref.ndim != 2:
        raise ValueError(f"values must be two (N, outputs), not {ref.shape} and {cand.shape}")
    return Moments.of(ref, cand).flat()


def _join(one: Partial, other: Partial) -> Partial:
    return (Moments.unflat(*one) + Moments.unflat(*other)).flat()


def _worst_nrmse(*partial: float) -> float:
    moments = Moments.unflat(*partial)
    judged = moments.nrmse[moments.varies]
    return float(np.max(judged)) if judged.size else math.nan


def _least_correlation(*partial: float) -> float:
    moments = Moments.unflat(*partial)
    judged = moments.correlation[moments.varies]
    return float(np.min(judged)) if judged.size and moments.images > 2 else math.nan


def _mean_error_per_variance(*partial: float) -> float:
    moments = Moments.unflat(*partial)
    judged = moments.nrmse[moments.varies]
    return float(np.mean(np.square(judged))) if judged.size else 0.0


nrmse = Formula(_partial, _join, _worst_nrmse)
"""Root mean square error as a share of the reference's spread, of the output where it is largest.

√(Σ (ref − cand)² / Σ (ref − mean ref)²), the sums over the pictures; √(1 − R²), if one takes the
reference for the truth. An output that is the same constant in both says nothing and is left out:
NaN where that is so of all of them, as with a single picture; infinite where a constant is missed.
"""

correlation = Formula(_partial, _join, _least_correlation)
"""Pearson's correlation over the pictures, of the output where it is least, −1 to 1.

−1 for the opposite sign, 0 for a constant candidate; NaN for less than three pictures.
"""

error_per_variance = Formula(_partial, _join, _mean_error_per_variance)
"""Mean over the outputs of Σ (ref − cand)² / Σ (ref − mean ref)²; 0 for equal values."""


def spread_db(share: float) -> float:
    """Decibels of an error that is this share of the spread: 60 of a thousandth."""
    return -20 * math.log10(share) if share > 0 else math.inf if share == 0 else math.nan


class ConstantOutputs:
    """Finds the outputs that are the same for all pictures, up to what makes no difference.

    Args:
        of_magnitude: what makes none, as a share of the output's own largest magnitude.
        of_range: the same as a share of the range of all outputs, which have one unit then.
    """

    def __init__(self, of_magnitude: float = 0.0, of_range: float = 0.0) -> None:
        self._of_magnitude = of_magnitude
        self._of_range = of_range
        self._images = 0
        self._least: Floats | None = None
        self._most: Floats | None = None

    def add(self, values: ArrayLike) -> None:
        """A batch (N, outputs), N ≥ 1."""
        rows = np.asarray(values, np.float64)
        least, most = rows.min(0), rows.max(0)
        self._least = least if self._least is None else np.minimum(self._least, least)
        self._most = most if self._most is None else np.maximum(self._most, most)
        self._images += len(rows)

    def found(self) -> tuple[int, ...]:
        """Their indices; none of less than two pictures, and none that is not finite."""
        if self._least is None or self._most is None or self._images < 2:
            return ()
        magnitude = np.maximum(np.abs(self._least), np.abs(self._most))
        with np.errstate(invalid="ignore"):  # of infinities
            allowed = self._of_magnitude * magnitude
            allowed += self._of_range * (self._most.max() - self._least.min())
            constant = self._most - self._least <= allowed
        return tuple(np.flatnonzero(constant).tolist())


@dataclass(frozen=True)
class TruthErrors:
    """How far reference and candidate are from the true values, arrays (outputs,).

    Attributes:
        images: how many pictures.
        reference, candidate: Σ |value − truth|.
        squares: Σ (|candidate − truth| − |reference − truth|)².
    """

    images: int
    reference: Floats
    candidate: Floats
    squares: Floats

    @classmethod
    def of(cls, reference: ArrayLike, candidate: ArrayLike, truth: ArrayLike) -> TruthErrors:
        """From two arrays (N, outputs), and the true values, (N, outputs) or, of one, (N,).

        Raises:
            UsageError: there are not as many true values as outputs.
        """
        ref, cand = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
        true = np.asarray(truth, np.float64)
        true = true[:, None] if true.ndim == 1 else true
        if true.shape != ref.shape:
            raise UsageError(
                f"{true.shape[1]} true values a picture for {ref.shape[1]} of the model: "
                "give one for each of its outputs"
            )
        before, after = np.abs(ref - true), np.abs(cand - true)
        return cls(len(ref), before.sum(0), after.sum(0), np.square(after - before).sum(0))

    def __add__(self, other: TruthErrors) -> TruthErrors:
        return TruthErrors(
            self.images + other.images,
            self.reference + other.reference,
            self.candidate + other.candidate,
            self.squares + other.squares,
        )

    def losses(self) -> dict[str, Loss]:
        """By the key of the measure: how much the mean absolute error grew, where most."""
        grown = (self.candidate - self.reference) / self.images
        worst = int(np.argmax(grown))  # a NaN, if there is one
        mean = float(grown[worst])
        variance = max(float(self.squares[worst]) / self.images - mean**2, 0.0)
        margin = Z95 * math.sqrt(variance / self.images) if math.isfinite(variance) else math.nan
        return {"mae_increase": Loss(mean, (mean - margin, mean + margin))}

    def to_dict(self) -> dict[str, object]:
        """JSON values: both mean absolute errors, a list of one number an output."""
        return {
            "images": self.images,
            "reference_mae": (self.reference / self.images).tolist(),
            "candidate_mae": (self.candidate / self.images).tolist(),
        }
