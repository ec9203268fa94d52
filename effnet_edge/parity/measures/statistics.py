"""What can be said from a number of pictures: is the drop real, and how many would show it?"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

CALIBRATION_BINS = 15
RESAMPLES = 10_000


def mcnemar_exact(lost: int, gained: int) -> float:
    """Two-sided p-value of McNemar's exact test that two models are equally often right.

    Of lost + gained pictures on which exactly one is right, either is as likely under the
    hypothesis: p = min(1, 2·Σ_{k ≤ min(lost, gained)} C(n, k)·2⁻ⁿ), n = lost + gained; 1 for n = 0.
    Q. McNemar, Psychometrika 12 (1947) 153–157, with the binomial distribution itself.
    """
    n = lost + gained
    log_all = n * math.log(2)
    log_ways = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        for k in range(min(lost, gained) + 1)
    )
    return min(1.0, 2 * math.fsum(math.exp(each - log_all) for each in log_ways))


def at_least(count: int, images: int, share: float) -> float:
    """How likely `count` or more of so many pictures are, each with this probability by itself."""
    if count <= 0:
        return 1.0
    if share in (0.0, 1.0):
        return float(share == 1.0 and count <= images)
    yes, no, ways = math.log(share), math.log1p(-share), math.lgamma(images + 1)
    return min(
        1.0,
        math.fsum(
            math.exp(
                ways
                - math.lgamma(each + 1)
                - math.lgamma(images - each + 1)
                + each * yes
                + (images - each) * no
            )
            for each in range(count, images + 1)
        ),
    )


def bootstrap_drop_interval(
    lost: int, gained: int, images: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the drop (lost − gained) / images, as shares in [−1, 1].

    Drawing pictures with replacement (B. Efron, Annals of Statistics 7 (1979) 1–26) draws the
    counts of lost and gained ones from a multinomial distribution.
    """
    shares = [lost / images, gained / images, (images - lost - gained) / images]
    draws = np.random.default_rng(seed).multinomial(images, shares, resamples)
    low, high = np.percentile((draws[:, 0] - draws[:, 1]) / images, (2.5, 97.5))
    return float(low), float(high)


def images_to_tell(
    drop: float, discordant: float, *, significance: float = 0.05, power: float = 0.8
) -> int:
    """How many pictures McNemar's test needs to notice a true drop.

    n = (z₁·√ψ + z₂·√(ψ − δ²))² / δ² with the drop δ, the share ψ ≥ δ of pictures on which exactly
    one of the two is right, z₁ = Φ⁻¹(1 − significance/2) and z₂ = Φ⁻¹(power): R. J. Connor, "Sample
    Size for Testing Differences in Proportions for the Paired-Sample Design", Biometrics 43 (1987)
    207–211.

    Args:
        drop: as a share, above 0; 0.005 are half a point.
        discordant: ψ, 0..1; the drop itself where it is smaller.
    """
    share = max(discordant, drop)
    normal = NormalDist()
    z1, z2 = normal.inv_cdf(1 - significance / 2), normal.inv_cdf(power)
    return math.ceil((z1 * math.sqrt(share) + z2 * math.sqrt(share - drop**2)) ** 2 / drop**2)


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, bins: int = CALIBRATION_BINS
) -> float:
    """How far confidence is from accuracy, 0..1: Σ_b n_b/N · |accuracy_b − mean confidence_b|.

    Over bins of equal width on [0, 1]: C. Guo et al., "On Calibration of Modern Neural Networks",
    ICML 2017, equation 3.

    Args:
        confidence: probability of the best class, (N,), 0..1, N ≥ 1.
        correct: whether it is right, (N,).
    """
    sure = np.asarray(confidence, np.float64)
    right = np.asarray(correct, np.float64)
    index = np.minimum((sure * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(index, right - sure, minlength=bins)
    return float(np.abs(gaps).sum() / len(sure))
