"""What came of a job, as it is kept and as a person looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from effnet_edge import nonfinite
from effnet_edge.errors import BackendError, first_line
from effnet_edge.parity.measures.table import limited_measure
from effnet_edge.parity.report import wording
from effnet_edge.parity.report.loss import loss_kind, loss_of

if TYPE_CHECKING:
    from effnet_edge.parity.report.loss import Loss, LossKind

Result = dict[str, Any]
State = Literal["failed", "passed", "unsure", "unlimited", "error"]

STATES = {**{str(state): told for state, told in wording.STATES.items()}, "error": "NOT DONE"}
"""What a person is told of each."""

NOT_THERE = "–"


@dataclass(frozen=True)
class Row:
    """One job in words; numbers that are not there are a dash.

    Attributes:
        task: "check" or "export".
        node: what the node calls itself.
        ran_in: precision and device.
        unlike: layers of an INT8 model that are not as the others, in words.
        answer: the comparison in a sentence; empty where there was none.
        agreement: or what is told for this kind of output.
        remarks: why it failed or was not done, a line each.
        engine: the one that was compiled on the node, in words.
        loss, loss_kind: None where nothing was compared.
        parity: the document of the comparison.
    """

    bundle: str
    kind: str
    task: str
    state: State
    node: str = NOT_THERE
    ran_in: str = NOT_THERE
    unlike: tuple[str, ...] = ()
    answer: str = ""
    agreement: str = NOT_THERE
    sqnr: str = NOT_THERE
    median: str = NOT_THERE
    p99: str = NOT_THERE
    rate: str = NOT_THERE
    machine: str = NOT_THERE
    engine: str = ""
    remarks: tuple[str, ...] = ()
    loss: Loss | None = None
    loss_kind: LossKind | None = None
    parity: dict[str, Any] | None = None

    @property
    def column(self) -> str:
        """Which column of a table of bundles by kinds it is in."""
        return self.kind if self.task == "check" else "export"

    @property
    def place(self) -> str:
        """What was done where, in words."""
        return f"on {self.kind}" if self.task == "check" else f"export on {self.kind}"


def row_of(bundle: str, kind: str, result: Result) -> Row:
    """A check that a node did.

    Raises:
        BackendError: the result is not as a check's is.
    """
    try:
        return _row(bundle, kind, result)
    except Exception as error:  # whatever an access to a wrong value raises
        raise BackendError(
            f"the result of {bundle} on {kind} cannot be read: {first_line(error)}"
        ) from error


def failed_row(bundle: str, kind: str, task: str, reason: str, node: str | None) -> Row:
    """A job that could not be done."""
    return Row(bundle, kind, task, "error", node=node or NOT_THERE, remarks=(reason,))


def _row(bundle: str, kind: str, result: Result) -> Row:
    parity, timing, node = result["parity"], result["timing"], result["node"]
    (candidate,) = parity["candidates"]
    measure = limited_measure("min_agreement", parity["output"])
    doubt = wording.too_few_pictures(candidate)
    return Row(
        bundle=bundle,
        kind=kind,
        task="check",
        state=wording.state_of(candidate),
        node=str(node["name"]),
        ran_in=f"{candidate['candidate_precision']}, {timing['device']}",
        unlike=tuple(each.told for each in wording.unlike_others(candidate)),
        answer=wording.answer(parity, {**candidate, "candidate": bundle}),
        agreement=measure.tell(candidate[measure.key]) if measure else NOT_THERE,
        sqnr=nonfinite.tell(candidate["sqnr_db"], ".1f", " dB"),
        median=_milliseconds(timing["timing"]["median"]),
        p99=_milliseconds(timing["timing"]["p99"]),
        rate=nonfinite.tell(timing["images_per_second"]),
        machine=", ".join(str(node[key]) for key in ("processor", "platform") if node[key]),
        engine=_engine(result["manifest"]),
        remarks=(*map(str, candidate["failures"]), *([doubt] if doubt else [])),
        loss=loss_of(parity, candidate),
        loss_kind=loss_kind(parity),
        parity=parity,
    )


def _milliseconds(seconds: nonfinite.JsonNumber) -> str:
    number = nonfinite.decode(seconds)
    return nonfinite.tell(None if number is None else 1e3 * number, ".2f", " ms")


def _engine(manifest: dict[str, Any]) -> str:
    engines = manifest["engines"]
    if not engines:
        return ""
    last = engines[-1]
    on = last["gpu"] or f"compute capability {', '.join(last['compute_capability'])}"
    return f"{last['library']} {last['library_version']} for {on}"
