from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import assume, given
from hypothesis import strategies as st

from effnet_edge.errors import UsageError
from effnet_edge.parity.measures.accuracy import (
    AccuracyDrop,
    Drop,
    accuracy_drop,
    correct_in_top_k,
    images_to_stay_within,
    paired_drop_interval,
)


@st.composite
def drops(draw: st.DrawFn) -> Drop:
    counts = [draw(st.integers(0, 2000)) for _ in range(4)]
    counts[draw(st.integers(0, 3))] += 1
    return Drop(*counts)


def labelled_logits(seed: int, images: int = 400, classes: int = 20, noise: float = 1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    reference = rng.normal(size=(images, classes))
    reference[np.arange(images), labels] += 2.5
    return reference, reference + rng.normal(0, noise, reference.shape), labels


# Published values; both tools count lost − gained with the opposite sign of the table's corner.
@pytest.mark.parametrize(
    ("lost", "gained", "images", "interval"),
    [
        # R package statpsych, reference page of ci.prop.ps(.05, 12, 4, 26, 6).
        (26, 4, 48, (0.2548067, 0.6251933)),
        # R package contingencytables, Wald_CI_BonettPrice_paired_2x2(cavo_2012), to 4 digits.
        (6, 16, 161, (-0.1195, -0.0032)),
    ],
)
def test_the_interval_is_the_one_that_r_packages_publish(lost, gained, images, interval):
    assert paired_drop_interval(lost, gained, images) == pytest.approx(interval, abs=5.1e-5)


def exact_coverage(p_lost: float, p_gained: float, images: int) -> float:
    """Chance that the interval holds the true drop, summed over every possible outcome."""
    lost, gained = np.meshgrid(np.arange(images + 1), np.arange(images + 1), indexing="ij")
    possible = lost + gained <= images
    lost, gained = lost[possible], gained[possible]
    outcomes = np.stack([lost, gained, images - lost - gained], axis=1)
    chance = scipy.stats.multinomial(images, [p_lost, p_gained, 1 - p_lost - p_gained])
    covered = [
        low <= p_lost - p_gained <= high
        for low, high in (
            paired_drop_interval(int(b), int(c), images) for b, c in zip(lost, gained, strict=True)
        )
    ]
    return float(chance.pmf(outcomes)[covered].sum())


@pytest.mark.parametrize("images", [20, 60])
@pytest.mark.parametrize(
    ("p_lost", "p_gained"), [(0.02, 0.02), (0.05, 0.01), (0.1, 0.1), (0.2, 0.05), (0.4, 0.3)]
)
def test_the_interval_covers_the_true_drop_about_95_times_in_100_even_on_few_images(
    p_lost, p_gained, images
):
    assert 0.93 <= exact_coverage(p_lost, p_gained, images) <= 1.0


def test_the_interval_covers_the_true_drop_95_times_in_100_in_simulation():
    rng = np.random.default_rng(20120801)
    p_lost, p_gained, images, runs = 0.035, 0.02, 700, 4000
    draws = rng.multinomial(images, [p_lost, p_gained, 1 - p_lost - p_gained], runs)
    intervals = [paired_drop_interval(int(b), int(c), images) for b, c, _ in draws]
    covered = np.mean([low <= p_lost - p_gained <= high for low, high in intervals])
    # ±1.4 points is four standard errors of a 95 % rate over 4000 runs.
    assert covered == pytest.approx(0.95, abs=0.014)


def test_the_interval_is_about_the_bootstraps_on_many_images():
    lost, gained, images = 60, 35, 1500
    signs = np.zeros(images)
    signs[:lost], signs[lost : lost + gained] = 1, -1
    bootstrap = scipy.stats.bootstrap(
        (signs,),
        np.mean,
        n_resamples=4000,
        method="percentile",
        random_state=np.random.default_rng(8),
    ).confidence_interval
    assert paired_drop_interval(lost, gained, images) == pytest.approx(
        (bootstrap.low, bootstrap.high), abs=0.0015
    )


@given(drops())
def test_the_interval_holds_the_point_estimate_and_stays_in_range(drop):
    low, high = drop.interval
    assert -100 <= low <= drop.points <= high <= 100
    assert low < high


@given(drops())
def test_swapping_the_models_mirrors_the_interval(drop):
    low, high = drop.interval
    swapped = Drop(drop.both_right, drop.gained, drop.lost, drop.both_wrong)
    assert swapped.points == -drop.points
    assert swapped.interval == pytest.approx((-high, -low), abs=1e-9)


@given(drops())
def test_more_images_of_the_same_kind_make_the_interval_narrower(drop):
    twice = drop + drop
    assert twice.points == pytest.approx(drop.points)
    assert np.diff(twice.interval) < np.diff(drop.interval)


@given(drops())
def test_the_drop_is_the_difference_of_the_two_accuracies(drop):
    assert drop.points == pytest.approx(drop.reference - drop.candidate, abs=1e-9)


def test_agreement_on_every_image_still_leaves_doubt():
    low, high = paired_drop_interval(0, 0, 100)
    assert low == pytest.approx(-high)
    assert 0.01 < high < 0.05


def test_accuracies_are_sklearns():
    reference, candidate, labels = labelled_logits(0)
    drop = accuracy_drop(reference, candidate, labels)
    for k, measured in ((1, drop.top1), (5, drop.top5)):
        expected = [
            100 * sklearn.metrics.top_k_accuracy_score(labels, logits, k=k, labels=np.arange(20))
            for logits in (reference, candidate)
        ]
        assert [measured.reference, measured.candidate] == pytest.approx(expected)
        assert measured.points > 0
        assert measured.images == 400


def test_the_four_counts_are_sklearns_confusion_matrix():
    reference, candidate, labels = labelled_logits(1)
    right = [logits.argmax(1) == labels for logits in (reference, candidate)]
    (both_wrong, gained), (lost, both_right) = sklearn.metrics.confusion_matrix(*right)
    assert min(both_wrong, gained, lost, both_right) > 0
    drop = accuracy_drop(reference, candidate, labels).top1
    assert drop == Drop(both_right, lost, gained, both_wrong)


def test_drops_add_up_over_batches():
    reference, candidate, labels = labelled_logits(2)
    first, second = slice(0, 130), slice(130, None)
    whole = accuracy_drop(reference, candidate, labels)
    assert whole == accuracy_drop(
        reference[first], candidate[first], labels[first]
    ) + accuracy_drop(reference[second], candidate[second], labels[second])


def test_of_equal_logits_the_lower_class_is_the_answer():
    ties = np.zeros((2, 8))
    assert correct_in_top_k(ties, [0, 1], 1).tolist() == [True, False]
    assert correct_in_top_k(ties, [4, 5], 5).tolist() == [True, False]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_image_with_a_logit_that_is_not_finite_is_wrong(bad):
    logits = np.array([[9.0, 1.0, bad], [9.0, 1.0, 0.0]])
    assert correct_in_top_k(logits, [0, 0], 1).tolist() == [False, True]
    drop = accuracy_drop(np.nan_to_num(logits, posinf=0), logits, [0, 0])
    assert drop.top1.lost == 1


@pytest.mark.parametrize("label", [-1, 20, 999])
def test_a_label_that_is_no_class_is_named(label):
    reference, candidate, labels = labelled_logits(3)
    labels[5] = label
    with pytest.raises(UsageError, match=rf"label {label} is outside the model's 20 classes"):
        accuracy_drop(reference, candidate, labels)


def test_as_many_labels_as_images():
    with pytest.raises(ValueError, match="3 images need as many labels"):
        accuracy_drop(np.zeros((3, 4)), np.zeros((3, 4)), [0, 1])


def test_the_dictionary_tells_counts_percent_and_points():
    drop = Drop(both_right=80, lost=6, gained=2, both_wrong=12)
    told = AccuracyDrop(drop, drop).to_dict()["top1"]
    assert told == {
        "both_right": 80,
        "lost": 6,
        "gained": 2,
        "both_wrong": 12,
        "images": 100,
        "reference_percent": pytest.approx(86),
        "candidate_percent": pytest.approx(82),
        "drop_points": pytest.approx(4),
        "drop_interval_95_points": list(drop.interval),
    }


@given(st.integers(0, 20), st.integers(0, 20), st.integers(40, 500), st.floats(0.001, 0.2))
def test_so_many_images_bring_the_whole_interval_within_a_limit_and_no_fewer(
    lost: int, gained: int, images: int, limit: float
) -> None:
    enough = images_to_stay_within(lost, gained, images, limit)
    if (lost - gained) / images >= limit:
        assert enough is None
        return
    assume((lost - gained) / images < 0.9 * limit)
    enough = images_to_stay_within(lost, gained, images, limit)
    assert enough is not None
    for count, holds in ((enough, True), (enough - 1, False)):
        if count:
            scale = count / images
            high = paired_drop_interval(lost * scale, gained * scale, count)[1]
            assert (high <= limit) is holds
