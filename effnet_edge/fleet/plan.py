"""The plan of a fleet: a TOML file of bundles, sweeps, kinds of device, limits and nodes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.errors import BackendError, EffnetEdgeError, UsageError
from effnet_edge.fleet.plan_kinds import Kinds, kind_of
from effnet_edge.fleet.plan_sweeps import SWEEP_KEYS, Export, exports_of
from effnet_edge.fleet.plan_table import PlanTable
from effnet_edge.parity.measures.gate_file import checked_limits, gate_of, read_toml
from effnet_edge.pictures.sources import holds_several

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

HERE = "here"
"""The kind of this machine, where the plan names no node."""

_ADDRESS = re.compile(r"[^\s/]+:[0-9]{1,5}")
_KEYS = ("kinds", "trusted", "pictures", "gate", "bench", "jobs", "bundle", "sweep", "node", "ray")


@dataclass(frozen=True)
class PictureSettings:
    """What models are compared on; without a folder and a CSV file it is the embedded photos.

    Attributes:
        images, labels: as of `effnet-edge parity`.
        answers: recorded answers of the reference; None to have them computed on this machine.
    """

    images: Path | None
    labels: Path | None
    answers: Path | None
    limit: int
    batch_size: int


@dataclass(frozen=True)
class BenchSettings:
    """As of `effnet-edge bench`."""

    runs: int
    batch: int


@dataclass(frozen=True)
class JobSettings:
    """How often a job that was lost is tried again, and the seconds that one may take."""

    retries: int
    time_limit: int


@dataclass(frozen=True)
class PlannedBundle:
    """A bundle that is there, and the kinds of device that check it."""

    path: Path
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class CommandNode:
    """A machine where `program` is effnet-edge, reached by ssh; this one where `ssh` is None."""

    name: str
    kind: str
    ssh: str | None
    program: str


_THIS_MACHINE = CommandNode("this machine", HERE, None, "")


@dataclass(frozen=True)
class Plan:
    """A plan whose keys and values are right, and whose files are there.

    `ray` is the address of a Ray cluster; None where `nodes` do the work.
    """

    path: Path
    pictures: PictureSettings
    limits: Mapping[str, float]
    bench: BenchSettings
    jobs: JobSettings
    bundles: tuple[PlannedBundle, ...]
    exports: tuple[Export, ...]
    nodes: tuple[CommandNode, ...]
    ray: str | None
    trusted: Path | None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every kind of device that something is to run on."""
        asked = [each.kinds for each in self.bundles]
        asked += [(each.on, *each.kinds) for each in self.exports]
        return tuple(dict.fromkeys(kind for kinds in asked for kind in kinds))


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read and check a plan; the paths in it are relative to its folder.

    Raises:
        UsageError: an unknown key, a wrong value, a kind that no node is of, or a file or bundle
            that is not there: one line with the file and the key.
    """
    file = Path(path)
    table = PlanTable(file, "", read_toml(file), _KEYS)
    folder = file.parent
    nodes, ray = _nodes(table), _ray(table)
    if nodes and ray:
        raise table.wrong("ray", "there are nodes, too: either Ray runs the jobs, or [[node]]")
    if not (nodes or ray):
        nodes = (_THIS_MACHINE,)
    known = None if ray else tuple(dict.fromkeys(node.kind for node in nodes))
    kinds = Kinds.of_plan(table, known)
    bundles = _bundles(table, folder, kinds)
    here = None if ray else next((node for node in nodes if node.ssh is None), _THIS_MACHINE)
    exports = tuple(
        export
        for each in table.tables("sweep", SWEEP_KEYS)
        for export in exports_of(each, kinds, here.kind if here else None)
    )
    if here and here not in nodes and any(each.on == here.kind for each in exports):
        nodes = (*nodes, here)
    if not (bundles or exports):
        raise table.wrong("bundle", "there is nothing to do: name a [[bundle]] or a [[sweep]]")
    _refuse_twice(table, [each.path.name for each in bundles] + [each.name for each in exports])
    limits = checked_limits(table.table("gate").content, file)
    gate_of(limits)
    return Plan(
        path=file,
        pictures=_pictures(table, folder),
        limits=limits,
        bench=_bench(table),
        jobs=_jobs(table),
        bundles=bundles,
        exports=exports,
        nodes=nodes,
        ray=ray,
        trusted=_trusted(table, folder),
    )


def _nodes(table: PlanTable) -> tuple[CommandNode, ...]:
    nodes: list[CommandNode] = []
    for each in table.tables("node", ("kind", "ssh", "program")):
        kind, ssh = kind_of(each, "kind"), each.text("ssh")
        if ssh is not None and (ssh.startswith("-") or not ssh.isprintable() or " " in ssh):
            raise each.wrong("ssh", f"is {ssh!r}; it must be a host as ssh takes it: USER@HOST")
        if ssh is None and any(node.ssh is None for node in nodes):
            raise each.wrong("ssh", "is missing, and another node is this machine already")
        if ssh is not None and kind == HERE:
            raise each.wrong("kind", f"{HERE!r} is this machine: name the device behind ssh")
        if ssh is None and "program" in each:
            raise each.wrong("program", "only a node with ssh has one: this machine runs this one")
        program = each.text("program") or "effnet-edge"
        nodes.append(CommandNode(ssh or "this machine", kind, ssh, program))
    return tuple(nodes)


def _ray(table: PlanTable) -> str | None:
    if "ray" not in table:
        return None
    each = table.table("ray", ("address",))
    address = each.text("address") or "auto"
    if address != "auto" and not _ADDRESS.fullmatch(address):
        raise each.wrong("address", f"is {address!r}; it must be HOST:PORT, or auto")
    return address


def _bundles(table: PlanTable, folder: Path, kinds: Kinds) -> tuple[PlannedBundle, ...]:
    from effnet_edge.bundle import Bundle

    bundles = []
    for each in table.tables("bundle", ("path", "kinds")):
        named = each.text("path")
        if named is None:
            raise each.wrong("path", "is missing: name the bundle's folder")
        path = folder / named
        try:
            Bundle.load(path, verify=False).of_one_graph()
        except EffnetEdgeError as error:
            raise each.wrong("path", str(error)) from error
        bundles.append(PlannedBundle(path, kinds.named(each)))
    return tuple(bundles)


def _refuse_twice(table: PlanTable, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise table.wrong("bundle", f"two bundles are called {name!r}: results go by name")


def _pictures(table: PlanTable, folder: Path) -> PictureSettings:
    keys = ("images", "labels", "answers", "limit", "batch-size")
    each = table.table("pictures", keys)
    return PictureSettings(
        images=_existing(each, "images", folder, several=True),
        labels=_existing(each, "labels", folder),
        answers=_existing(each, "answers", folder),
        limit=each.number("limit", 1, 64),
        batch_size=each.number("batch-size", 1, 8),
    )


def _trusted(table: PlanTable, folder: Path) -> Path | None:
    from effnet_edge.bundle.signing import TrustedKey

    path = _existing(table, "trusted", folder)
    try:
        if path is not None:
            TrustedKey(path)
    except UsageError as error:
        raise table.wrong("trusted", str(error)) from error
    except BackendError:  # cryptography may be on the nodes alone, which refuse what is no key
        pass
    return path


def _existing(table: PlanTable, key: str, folder: Path, *, several: bool = False) -> Path | None:
    """A path that exists; where `several`, also a pattern that some do."""
    named = table.text(key)
    if named is None:
        return None
    path = folder / named
    try:
        is_there = path.exists() or (several and holds_several(path))
    except OSError as error:
        raise table.wrong(key, f"{path} cannot be looked at: {error.strerror}") from error
    if not is_there:
        raise table.wrong(key, f"{path} does not exist")
    return path


def _bench(table: PlanTable) -> BenchSettings:
    each = table.table("bench", ("runs", "batch"))
    return BenchSettings(each.number("runs", 1, 100), each.number("batch", 1, 1))


def _jobs(table: PlanTable) -> JobSettings:
    each = table.table("jobs", ("retries", "time-limit"))
    return JobSettings(each.number("retries", 0, 2), each.number("time-limit", 1, 3600))
