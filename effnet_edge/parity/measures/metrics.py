"""How far a candidate's numbers are from a reference's. Every measure, with its formula.

Two kinds of arrays come in. *Tensors* (errors, SQNR, cosine) may have any shape, as long as both
have the same one. *Logits* (KL, agreement) are shaped (N, classes), one row an image. Everything
is computed in float64.

A value that is not finite is never hidden: it makes the error measures NaN or infinite, and an
image with such a logit has no ranking, so it agrees with nothing.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from effnet_edge.outputs import DECISION_THRESHOLD
from effnet_edge.parity.measures.formula import Formula, Partial, largest, mean_of_images, total

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]
Indices: TypeAlias = NDArray[np.intp]


def softmax(logits: ArrayLike) -> Floats:
    """Class probabilities over the last axis: exp(x_i) / Σ_j exp(x_j).

    Rows that hold +inf or NaN come out as NaN.
    """
    probabilities: Floats = np.exp(log_softmax(logits))
    return probabilities


def log_softmax(logits: ArrayLike) -> Floats:
    """Logarithm of the softmax over the last axis: x_i − m − ln Σ_j exp(x_j − m), m = max_j x_j.

    Subtracting the maximum first keeps it finite for every finite input.
    """
    values = _as_floats(logits)
    with np.errstate(invalid="ignore"):
        shifted = values - values.max(axis=-1, keepdims=True)
    log_p: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_p


def kl_per_image(reference: ArrayLike, candidate: ArrayLike) -> Floats:
    """KL divergence of each image in nats, shaped (N,): Σ_i p_i·(ln p_i − ln q_i).

    p and q are the softmax of the reference's and the candidate's logits. Rounding below zero is
    cut off.
    """
    ref, cand = _as_logits(reference, candidate)
    log_p, log_q = log_softmax(ref), log_softmax(cand)
    with np.errstate(invalid="ignore"):
        divergence = np.sum(np.exp(log_p) * (log_p - log_q), axis=-1)
    clipped: Floats = np.maximum(divergence, 0.0)
    return clipped


def sigmoid(logits: ArrayLike) -> Floats:
    """Probability of each label by itself: 1 / (1 + exp(−x)); finite for every finite input."""
    probabilities: Floats = np.exp(_log_sigmoid(_as_floats(logits)))
    return probabilities


def sigmoid_kl_per_image(reference: ArrayLike, candidate: ArrayLike) -> Floats:
    """Mean over the labels of each image, nats, (N,): p·ln(p/q) + (1 − p)·ln((1 − p)/(1 − q)).

    p and q are the sigmoids of the reference's and the candidate's logits: the divergence of two
    Bernoulli distributions. Rounding below zero is cut off.
    """
    ref, cand = _as_logits(reference, candidate)
    with np.errstate(invalid="ignore"):
        given = sigmoid(ref) * (_log_sigmoid(ref) - _log_sigmoid(cand))
        absent = sigmoid(-ref) * (_log_sigmoid(-ref) - _log_sigmoid(-cand))
        divergence = np.mean(given + absent, axis=-1)
    clipped: Floats = np.maximum(divergence, 0.0)
    return clipped


def label_set_matches(reference: ArrayLike, candidate: ArrayLike) -> Bools:
    """Whether both give each image the same set of labels, shaped (N,)."""
    matches: Bools = label_overlap(reference, candidate) == 1
    return matches


def label_overlap(reference: ArrayLike, candidate: ArrayLike) -> Floats:
    """Share of the labels of each image on which both decide alike, shaped (N,)."""
    ref, cand = _as_logits(reference, candidate)
    alike = (given_labels(ref) == given_labels(cand)).mean(axis=1)
    return np.where(finite_images(ref) & finite_images(cand), alike, 0.0)


def given_labels(logits: ArrayLike) -> Bools:
    """Which labels have a probability of 0.5 or more: (N, labels) → (N, labels)."""
    given: Bools = sigmoid(logits) >= DECISION_THRESHOLD
    return given


def top1_matches(reference: ArrayLike, candidate: ArrayLike) -> Bools:
    """Whether both give each image the same best class, shaped (N,)."""
    ref, cand = _as_logits(reference, candidate)
    same: Bools = top_k(ref, 1)[:, 0] == top_k(cand, 1)[:, 0]
    return same & finite_images(ref) & finite_images(cand)


def top5_overlap(reference: ArrayLike, candidate: ArrayLike) -> Floats:
    """|top5(ref) ∩ top5(cand)| / 5 of each image, shaped (N,)."""
    ref, cand = _as_logits(reference, candidate)
    ref_best, cand_best = top_k(ref, 5), top_k(cand, 5)
    shared = (ref_best[:, :, None] == cand_best[:, None, :]).any(axis=2).mean(axis=1)
    return np.where(finite_images(ref) & finite_images(cand), shared, 0.0)


def top_k(logits: ArrayLike, k: int) -> Indices:
    """Class indices of the k largest logits, best first: (N, classes) → (N, min(k, classes)).

    Of equal logits the lower class index comes first; NaN comes last.
    """
    order: Indices = np.argsort(-_as_floats(logits), axis=-1, kind="stable")
    return order[..., :k]


def finite_images(logits: ArrayLike) -> Bools:
    """Whether all logits of each image are finite: (N, classes) → (N,)."""
    return np.asarray(np.isfinite(_as_floats(logits)).all(axis=-1))


def difference(reference: ArrayLike, candidate: ArrayLike) -> Floats:
    """Subtract, ref − cand, element by element; raises ValueError for different shapes."""
    ref, cand = _as_pair(reference, candidate)
    with np.errstate(invalid="ignore"):
        return ref - cand


def error_per_range(error: float, value_range: float) -> float:
    """Divide the two, where an error of 0 is 0 and a range of 0 makes any other infinite."""
    if error == 0:
        return 0.0
    return error / value_range if value_range != 0 else math.inf * error


def decibels(signal: float, noise: float) -> float:
    """10·log10(signal / noise) of two energies: +inf without noise, else −inf without signal."""
    if math.isnan(signal) or math.isnan(noise) or math.isinf(signal):
        return math.nan
    if noise == 0:
        return math.inf
    if signal == 0 or math.isinf(noise):
        return -math.inf
    return 10 * (math.log10(signal) - math.log10(noise))


def cosine_of_sums(product: float, reference_energy: float, candidate_energy: float) -> float:
    """Cosine from Σ ref·cand, Σ ref² and Σ cand²."""
    if not math.isfinite(reference_energy + candidate_energy):
        return math.nan
    if reference_energy == 0 or candidate_energy == 0:
        return 1.0 if reference_energy == candidate_energy else 0.0
    norm = math.sqrt(reference_energy) * math.sqrt(candidate_energy)
    return float(np.clip(product / norm, -1.0, 1.0))


def _log_sigmoid(values: Floats) -> Floats:
    # −ln(1 + exp(−x)), without an overflow.
    with np.errstate(invalid="ignore"):
        return np.asarray(-np.logaddexp(0.0, -values))


def _as_floats(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _as_pair(reference: ArrayLike, candidate: ArrayLike) -> tuple[Floats, Floats]:
    ref, cand = _as_floats(reference), _as_floats(candidate)
    if ref.shape != cand.shape:
        raise ValueError(f"reference is shaped {ref.shape}, candidate {cand.shape}")
    return ref, cand


def _as_logits(reference: ArrayLike, candidate: ArrayLike) -> tuple[Floats, Floats]:
    ref, cand = _as_pair(reference, candidate)
    if ref.ndim != 2:
        raise ValueError(f"logits must be shaped (N, classes), not {ref.shape}")
    return ref, cand


def _largest_error(reference: ArrayLike, candidate: ArrayLike) -> Partial:
    return (float(np.max(np.abs(difference(reference, candidate)))),)


def _summed_error(reference: ArrayLike, candidate: ArrayLike) -> Partial:
    error = np.abs(difference(reference, candidate))
    return float(np.sum(error)), float(error.size)


def _largest_error_and_ends(reference: ArrayLike, candidate: ArrayLike) -> Partial:
    values = _as_floats(reference)
    # The least value is the largest of the negated ones.
    return *_largest_error(reference, candidate), float(np.max(values)), float(np.max(-values))


def _signal_and_noise(reference: ArrayLike, candidate: ArrayLike) -> Partial:
    noise = float(np.sum(np.square(difference(reference, candidate))))
    return float(np.sum(np.square(_as_floats(reference)))), noise


def _product_and_energies(reference: ArrayLike, candidate: ArrayLike) -> Partial:
    ref, cand = _as_pair(reference, candidate)
    with np.errstate(invalid="ignore"):
        product = float(np.sum(ref * cand))
    return product, float(np.sum(ref * ref)), float(np.sum(cand * cand))


max_abs_error = Formula(_largest_error, largest, lambda error: error)
"""Largest |ref − cand|, in the tensors' own unit."""

mean_abs_error = Formula(_summed_error, total, lambda error, count: error / count)
"""Mean of |ref − cand| over all elements, in the tensors' own unit."""

relative_error = Formula(
    _largest_error_and_ends,
    largest,
    lambda error, high, minus_low: error_per_range(error, high + minus_low),
)
"""Worst error as a share of the reference's range: max |ref − cand| / (max ref − min ref).

0 for equal tensors, and infinite where a constant reference is missed.
"""

sqnr_db = Formula(_signal_and_noise, total, decibels)
"""Signal to quantization noise ratio: 10·log10(Σ ref² / Σ (ref − cand)²), in decibels.

Infinite for equal tensors; 6 dB more is about one bit more.
"""

normalized_error = Formula(
    _signal_and_noise, total, lambda signal, noise: error_per_range(noise, signal)
)
"""Σ (ref − cand)² / Σ ref²: the noise as a share of the signal, 10^(−SQNR/10)."""

cosine = Formula(_product_and_energies, total, cosine_of_sums)
"""Cosine of the angle between the two tensors as flat vectors, in [−1, 1].

Σ ref·cand / √(Σ ref² · Σ cand²); 1 where both are all zeros, 0 where only one is.
"""

kl_divergence = mean_of_images(kl_per_image)
"""Mean over the images of KL(softmax(ref) ‖ softmax(cand)), in nats; 0 or more."""

sigmoid_kl_divergence = mean_of_images(sigmoid_kl_per_image)
"""Mean over images and labels of the KL divergence of each label's two outcomes, in nats."""

top1_agreement = mean_of_images(top1_matches)
"""Share (0..1) of the images whose best class is the same for both."""

top5_agreement = mean_of_images(top5_overlap)
"""Mean share (0..1) of the reference's five best classes that are among the candidate's five.

The order within the five does not count. With k < 5 classes it is the k best, hence 1 for every
finite candidate.
"""

label_set_agreement = mean_of_images(label_set_matches)
"""Share (0..1) of the images to which both give the same set of labels."""

label_agreement = mean_of_images(label_overlap)
"""Share (0..1) of equal decisions, one a label of an image: 1 − Hamming loss."""
