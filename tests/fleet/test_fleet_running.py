"""Every job is answered once, whatever nodes do; retries are bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fake_clusters import FakeCluster
from hypothesis import given
from hypothesis import strategies as st

from effnet_edge.errors import BundleError
from effnet_edge.fleet.orders import Job
from effnet_edge.fleet.package import Package
from effnet_edge.fleet.running import Failure, Lost, Run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from effnet_edge.fleet.running import Answer

KINDS = ("nuc", "orin")


def job_of(index: int, kind: str = "nuc") -> Job:
    key = f"job {index}"
    return Job(key, "check", f"bundle {index}", kind, {"key": key}, dict)


def run(cluster: FakeCluster, jobs: list[Job], retries: int = 2) -> list[tuple[str, Answer]]:
    answers: list[tuple[str, Answer]] = []

    def done(job: Job, answer: Answer) -> Iterable[Job]:
        answers.append((job.key, answer))
        return ()

    Run(cluster, retries, done, lambda _done, _all: None).run(jobs)
    return answers


def good(order: Package) -> bytes:
    return Package({"key": order.document["key"], "right": True}).pack()


OUTCOMES = {
    "good": good,
    "lost": lambda _: Lost("the node died"),
    "too slow": lambda _: Lost("too slow", final=True),
    "garbage": lambda _: b"Welcome to Ubuntu",
    "empty": lambda _: b"",
    "another job": lambda _: Package({"key": "job 99"}).pack(),
    "error": lambda order: Package(
        {"key": order.document["key"], "error": "no", "node": "n"}
    ).pack(),
}


@given(
    st.lists(st.sampled_from(KINDS), max_size=12),
    st.lists(st.sampled_from([*OUTCOMES, "node gone"]), max_size=40),
    st.integers(0, 3),
    st.integers(1, 3),
)
def test_every_job_is_answered_once(
    kinds: list[str], outcomes: list[str], retries: int, nodes: int
) -> None:
    script = iter(outcomes)

    def answer(order: Package) -> bytes | Lost:
        outcome = next(script, "good")
        if outcome == "node gone":
            cluster.kinds["nuc"] = max(cluster.kinds["nuc"] - 1, 0)
            return Lost("the node died")
        return OUTCOMES[outcome](order)

    cluster = FakeCluster(dict.fromkeys(KINDS, nodes), answer)
    jobs = [job_of(index, kind) for index, kind in enumerate(kinds)]
    answers = run(cluster, jobs, retries)
    assert sorted(key for key, _ in answers) == sorted(job.key for job in jobs)
    tries = [bundle for bundle, _ in cluster.started]
    assert all(tries.count(bundle) <= retries + 1 for bundle in tries)
    for _, each in answers:
        assert isinstance(each, Failure) or each.document["right"]


def test_what_is_lost_too_often_is_told_with_the_last_reason() -> None:
    cluster = FakeCluster({"nuc": 1}, lambda _: Lost("orin-3: Connection timed out"))
    said: list[str] = []
    answers: list[Answer] = []

    def done(_job: Job, answer: Answer) -> Iterable[Job]:
        answers.append(answer)
        return ()

    Run(cluster, 2, done, lambda *_: None, said.append).run([job_of(0)])
    assert len(said) == 2
    assert all("on nuc: lost, tried again: orin-3" in line for line in said)
    (answer,) = answers
    assert answer == Failure("lost 3 times, at last: orin-3: Connection timed out")


def test_a_node_that_is_not_reached_is_none_of_the_tries() -> None:
    said: list[str] = []
    answers: list[Answer] = []

    def answer(order: Package) -> bytes | Lost:
        cluster.kinds["nuc"] -= 1
        if cluster.kinds["nuc"] == 0:
            return good(order)
        return Lost(f"nuc-{cluster.kinds['nuc']}: No route to host", unreached=True)

    def done(_job: Job, answer: Answer) -> Iterable[Job]:
        answers.append(answer)
        return ()

    cluster = FakeCluster({"nuc": 5}, answer)
    Run(cluster, 0, done, lambda *_: None, said.append).run([job_of(0)])
    assert [isinstance(each, Package) for each in answers] == [True]
    assert len(said) == 4
    assert all("lost, tried again: nuc-" in line for line in said)


def test_what_is_not_tried_again_is_not_said_to_be_and_the_reasons_are_told() -> None:
    said: list[str] = []
    answers: list[Answer] = []

    def gone(_: Package) -> Lost:
        cluster.kinds["nuc"] -= 1
        return Lost(f"nuc-{cluster.kinds['nuc']}: No route to host", unreached=True)

    def done(_job: Job, answer: Answer) -> Iterable[Job]:
        answers.append(answer)
        return ()

    cluster = FakeCluster({"nuc": 5}, gone)
    Run(cluster, 2, done, lambda *_: None, said.append).run([job_of(0), job_of(1)])
    assert [line.count("tried again") for line in said] == [1, 1, 1, 1, 0]
    reason = (
        "no node of kind nuc is left (nuc-4: No route to host; nuc-3: No route to host; "
        "nuc-2: No route to host; and 2 more): the same command goes on once there is one"
    )
    assert answers == [Failure(reason)] * 2


def test_a_job_that_takes_too_long_is_not_tried_again() -> None:
    cluster = FakeCluster({"nuc": 1}, OUTCOMES["too slow"])
    ((_, answer),) = run(cluster, [job_of(0)])
    assert answer == Failure("too slow")
    assert len(cluster.started) == 1


def test_an_error_that_a_node_tells_is_not_tried_again() -> None:
    cluster = FakeCluster({"nuc": 1}, OUTCOMES["error"])
    ((_, answer),) = run(cluster, [job_of(0)])
    assert answer == Failure("no", "n")
    assert len(cluster.started) == 1


def test_the_jobs_of_a_kind_without_nodes_are_given_up_and_the_others_done() -> None:
    cluster = FakeCluster({"nuc": 1}, good)
    answers = dict(run(cluster, [job_of(0, "orin"), job_of(1), job_of(2, "orin")]))
    assert isinstance(answers["job 1"], Package)
    for key in ("job 0", "job 2"):
        failure = answers[key]
        assert isinstance(failure, Failure)
        assert "no node of kind orin is left" in failure.reason


def test_a_node_that_comes_back_in_time_does_its_jobs() -> None:
    class Patient(FakeCluster):
        patience = 10.0

        def wait(self, seconds: float) -> tuple[str, bytes | Lost] | None:
            self.kinds["nuc"] = 1
            return super().wait(seconds)

    ((_, answer),) = run(Patient({"nuc": 0}, good), [job_of(0)])
    assert isinstance(answer, Package)


def test_a_bundle_that_cannot_be_read_when_its_turn_comes_is_one_failure() -> None:
    def gone() -> dict[str, bytes]:
        raise BundleError("b0: cannot be read any more")

    broken = Job("broken", "check", "b0", "nuc", {"key": "broken"}, gone)
    answers = dict(run(FakeCluster({"nuc": 1}, good), [broken, job_of(1)]))
    assert answers["broken"] == Failure("b0: cannot be read any more")
    assert isinstance(answers["job 1"], Package)


def test_what_follows_from_a_job_is_done_too() -> None:
    seen: list[str] = []

    def done(job: Job, _answer: Answer) -> Iterable[Job]:
        seen.append(job.key)
        return [job_of(1), job_of(2)] if job.key == "job 0" else []

    told: list[tuple[int, int]] = []
    Run(FakeCluster({"nuc": 1}, good), 0, done, lambda *each: told.append(each)).run([job_of(0)])
    assert seen == ["job 0", "job 1", "job 2"]
    assert told[-1] == (3, 3)
