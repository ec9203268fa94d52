"""`effnet-edge fleet`: build, compare and time bundles on all kinds of device."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from effnet_edge.cli.common import (
    UntilInterrupted,
    common_options,
    complain,
    console,
    print_json,
    progress_bar,
    say,
    settings,
)
from effnet_edge.cli.destinations import refuse_inside_bundle
from effnet_edge.cli.ending import INTERRUPTED
from effnet_edge.cli.parity_pictures import comparison_pictures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from effnet_edge.bundle import Bundle
    from effnet_edge.fleet.campaign import Campaign
    from effnet_edge.fleet.orders import Job
    from effnet_edge.fleet.plan import Plan
    from effnet_edge.fleet.results import Row
    from effnet_edge.fleet.running import Answer, Cluster
    from effnet_edge.labels import Label
    from effnet_edge.outputs import OutputKind
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Pictures


@click.command("fleet", short_help="Build, compare and time bundles on all kinds of device.")
@click.argument(
    "plan",
    metavar="PLAN.toml",
    required=False,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keeps what is done, so that a later run goes on there. [default: PLAN-fleet]",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Write a page of all bundles on all kinds.",
)
@click.option(
    "--node",
    is_flag=True,
    help="Be a node: do the one job that standard input brings. Fleets start this themselves.",
)
@common_options
@click.pass_context
def command(
    context: click.Context, plan: Path | None, output: Path | None, report: Path | None, node: bool
) -> None:
    """Check the bundles of PLAN.toml on every kind of device, and export what its sweeps name.

    On each kind one node builds the engine, compares it with the recorded answers of the original
    and times it. The exit code is 1 if a limit is broken or a job cannot be done; the same command
    goes on where it ended.
    """
    if node:
        if plan or output or report:
            raise click.UsageError("--node takes its job from standard input, and nothing else")
        _be_node()
        return
    if plan is None:
        raise click.UsageError("Missing argument 'PLAN.toml'")
    from effnet_edge.fleet.page import check_page, headline, write_page
    from effnet_edge.fleet.plan import read_plan

    checked = read_plan(plan)
    if report is not None:
        refuse_inside_bundle(report, "--report")
        check_page(report)
    folder = output or plan.with_name(f"{plan.stem}-fleet")
    refuse_inside_bundle(folder, "-o", is_folder=True)
    campaign = _campaign(checked, folder)
    interrupted = _carry_out(campaign)
    document, rows = campaign.document(), campaign.rows()
    if settings().json:
        print_json(document)
    else:
        _tell(rows, headline(rows))
    if report is not None:
        write_page(document, rows, report)
        say(f"wrote {report}")
    if interrupted:
        complain(f"interrupted: what is done is kept in {folder}, and the same command goes on")
        context.exit(INTERRUPTED)
    context.exit(1 if document["passed"] is False else 0)


def _be_node() -> None:
    """Do one job: nothing but its result goes to standard output, whatever libraries print."""
    from effnet_edge.fleet.node import do, end_with_reader

    content = sys.stdin.buffer.read()
    with os.fdopen(os.dup(1), "wb") as results:
        os.dup2(2, 1)
        end_with_reader(results.fileno())
        results.write(do(content))


def _campaign(plan: Plan, folder: Path) -> Campaign:
    from effnet_edge.fleet.campaign import Campaign
    from effnet_edge.fleet.journal import Journal
    from effnet_export.references import Questions

    asked = plan.pictures

    def pictures(bundle: Bundle) -> Pictures:
        return comparison_pictures(asked.images, asked.labels, asked.limit, _Shown(bundle))

    journal = Journal(folder)
    return Campaign(plan, journal, Questions(pictures, asked.answers or folder / "answers").of)


@dataclass(frozen=True)
class _Shown:
    """What is to be known of a bundle to choose its pictures."""

    bundle: Bundle

    @property
    def preprocessing(self) -> Preprocessing:
        return self.bundle.manifest.preprocessing

    @property
    def output_kind(self) -> OutputKind:
        return self.bundle.manifest.output.kind

    @property
    def labels(self) -> tuple[Label, ...]:
        return self.bundle.labels or ()

    @property
    def classes(self) -> dict[str, int]:
        from effnet_edge.labels import ClassIndices

        return ClassIndices(self.labels)

    @property
    def is_binary(self) -> bool:
        output = self.bundle.manifest.output
        return output.kind == "multi-label" and output.classes == 1


def _carry_out(campaign: Campaign) -> bool:
    """Do what is left of the plan; whether a person interrupted it."""
    from effnet_edge.fleet.running import Run

    def done(job: Job, answer: Answer) -> list[Job]:
        following = campaign.done(job, answer)
        say(f"{job.task} {job.bundle} on {job.kind}: {_outcome(answer)}")
        return following

    with UntilInterrupted() as work, _cluster(campaign.plan) as cluster:
        jobs = campaign.jobs()
        if campaign.kept:
            say(f"{campaign.kept} jobs are done already")
        if jobs:
            with progress_bar("jobs") as progress:
                Run(cluster, campaign.plan.jobs.retries, done, progress, say).run(jobs)
    return work.interrupted


def _outcome(answer: Answer) -> str:
    from effnet_edge.fleet.running import Failure

    return answer.reason if isinstance(answer, Failure) else "done"


@contextmanager
def _cluster(plan: Plan) -> Iterator[Cluster]:
    """The plan's nodes, all of whose kinds are there; what still runs at the end is ended."""
    cluster = _opened(plan)
    try:
        for kind in plan.kinds:
            if not cluster.nodes(kind):
                from effnet_edge.errors import UsageError

                raise UsageError(f"{plan.path}: kinds: no node is of kind {kind!r}: start one")
        yield cluster
    finally:
        cluster.close()


def _opened(plan: Plan) -> Cluster:
    if plan.ray is not None:
        from effnet_edge.fleet.on_ray import RayCluster

        return RayCluster(plan.ray, plan.jobs.time_limit)
    from effnet_edge.fleet.commands import CommandNodes

    return CommandNodes(plan.nodes, plan.jobs.time_limit)


def _tell(rows: Sequence[Row], told: str) -> None:
    from rich.table import Table

    from effnet_edge.fleet.results import STATES

    table = Table()
    for heading in ("bundle", "kind", "node", "ran in"):
        table.add_column(heading)
    for heading in ("same answer", "SQNR", "median", "images/s"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in rows:
        table.add_row(
            row.bundle,
            row.column,
            row.node,
            row.ran_in,
            row.agreement,
            row.sqnr,
            row.median,
            row.rate,
            STATES[row.state],
        )
    out = console()
    out.print(table)
    for row in rows:
        for line in row.remarks:
            out.print(f"{STATES[row.state]}: {row.bundle} {row.place} ({row.node}): {line}")
    out.print(told)
