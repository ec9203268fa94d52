"""The plan of a fleet: a TOML file of bundles, sweeps, kinds of device, limits and nodes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.errors import EffnetEdgeError, UsageError
from effnet_edge.fleet.plan_table import PlanTable
from effnet_edge.model.variants import get_variant
from effnet_edge.parity.measures.gate_file import checked_limits, gate_of, read_toml
from effnet_edge.pictures.sources import holds_several
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

HERE = "here"
"""The kind of this machine, where the plan names no node."""

_KIND = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_ADDRESS = re.compile(r"[^\s/]+:[0-9]{1,5}")
# Ray's own resources.
_RESERVED = frozenset({"memory", "object_store_memory"})
_PRECISIONS = ("fp32", "fp16", "int8")
_BUDGETS = ("max-drop", "max-kl", "max-nrmse")
_QUANTIZED = "int8"
# What an export of a sweep sets itself.
_TAKEN = frozenset(
    {"-o", "--output", "--force", "--json", "--quiet", "--target", "--sign"}
    | {f"--{each}" for each in (*_PRECISIONS, *_BUDGETS)}
)
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
class Export:
    """One bundle that a sweep exports, and the kinds that check it then.

    Attributes:
        name: of the bundle.
        arguments: those of `effnet-edge export`, but for where to write it.
        on: the kind of node that exports it.
    """

    name: str
    arguments: tuple[str, ...]
    kinds: tuple[str, ...]
    on: str


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
    nodes, ray = _nodes(file, table), _ray(file, table)
    if nodes and ray:
        raise table.wrong("ray", "there are nodes, too: either Ray runs the jobs, or [[node]]")
    if not (nodes or ray):
        nodes = (_THIS_MACHINE,)
    known = None if ray else tuple(dict.fromkeys(node.kind for node in nodes))
    kinds = _kinds(table, known, known)
    bundles = _bundles(file, table, folder, kinds, known)
    here = None if ray else next((node for node in nodes if node.ssh is None), _THIS_MACHINE)
    exports = _exports(file, table, kinds, known, here.kind if here else None)
    if here and here not in nodes and any(each.on == here.kind for each in exports):
        nodes = (*nodes, here)
    if not (bundles or exports):
        raise table.wrong("bundle", "there is nothing to do: name a [[bundle]] or a [[sweep]]")
    _refuse_twice(table, [each.path.name for each in bundles] + [each.name for each in exports])
    limits = table.get("gate") or {}
    PlanTable(file, "gate", limits, tuple(limits) if isinstance(limits, dict) else ())
    checked = checked_limits(limits, file)  # type: ignore[arg-type]  # a table, as was seen above
    gate_of(checked)
    return Plan(
        path=file,
        pictures=_pictures(file, table, folder),
        limits=checked,
        bench=_bench(file, table),
        jobs=_jobs(file, table),
        bundles=bundles,
        exports=exports,
        nodes=nodes,
        ray=ray,
        trusted=_existing(table, "trusted", folder),
    )


def _tables(file: Path, table: PlanTable, name: str, keys: tuple[str, ...]) -> list[PlanTable]:
    """Those of an array of tables, `[[name]]`, which messages count from 1 on."""
    content = table.get(name)
    if content is None:
        return []
    if not isinstance(content, list):
        raise table.wrong(name, f"is one table: write [[{name}]], of which there may be several")
    return [
        PlanTable(file, f"{name}[{index}]", each, keys) for index, each in enumerate(content, 1)
    ]


def _nodes(file: Path, table: PlanTable) -> tuple[CommandNode, ...]:
    nodes: list[CommandNode] = []
    for each in _tables(file, table, "node", ("kind", "ssh", "program")):
        kind, ssh = _kind(each, "kind", each.text("kind")), each.text("ssh")
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


def _ray(file: Path, table: PlanTable) -> str | None:
    if "ray" not in table:
        return None
    each = PlanTable(file, "ray", table.get("ray"), ("address",))
    address = each.text("address") or "auto"
    if address != "auto" and not _ADDRESS.fullmatch(address):
        raise each.wrong("address", f"is {address!r}; it must be HOST:PORT, or auto")
    return address


def _kind(table: PlanTable, key: str, kind: str | None) -> str:
    if kind is None:
        raise table.wrong(key, "is missing: name the kind of device, such as jetson-orin")
    if not _KIND.fullmatch(kind) or kind in _RESERVED:
        raise table.wrong(
            key, f"{kind!r} is no name of a kind: lower-case letters, digits, dots and hyphens"
        )
    return kind


def _kinds(
    table: PlanTable, default: tuple[str, ...] | None, known: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    """Those that are asked for, or the default.

    Args:
        known: the kinds of the plan's nodes; None where Ray knows them.
    """
    asked = table.texts("kinds")
    for kind in asked or ():
        _kind(table, "kinds", kind)
        _refuse_unknown(table, "kinds", kind, known)
    return asked or default


def _refuse_unknown(table: PlanTable, key: str, kind: str, known: tuple[str, ...] | None) -> None:
    if known is not None and kind not in known:
        raise table.wrong(key, f"no node is of kind {kind!r}: there are {', '.join(known)}")


def _needed(table: PlanTable, kinds: tuple[str, ...] | None) -> tuple[str, ...]:
    if kinds is None:
        raise table.wrong("kinds", "is missing: with Ray, name the kinds of device here or above")
    return kinds


def _bundles(
    file: Path,
    table: PlanTable,
    folder: Path,
    kinds: tuple[str, ...] | None,
    known: tuple[str, ...] | None,
) -> tuple[PlannedBundle, ...]:
    from effnet_edge.bundle import Bundle

    bundles = []
    for each in _tables(file, table, "bundle", ("path", "kinds")):
        named = each.text("path")
        if named is None:
            raise each.wrong("path", "is missing: name the bundle's folder")
        path = folder / named
        try:
            Bundle.load(path, verify=False)
        except EffnetEdgeError as error:
            raise each.wrong("path", str(error)) from error
        bundles.append(PlannedBundle(path, _needed(each, _kinds(each, kinds, known))))
    return tuple(bundles)


_SWEEP = ("variants", "targets", "precisions", "budgets", "options", "kinds", "on")


def _exports(
    file: Path,
    table: PlanTable,
    kinds: tuple[str, ...] | None,
    known: tuple[str, ...] | None,
    here: str | None,
) -> tuple[Export, ...]:
    """One for each combination of a sweep.

    Args:
        here: the kind of this machine, which exports where nothing is said.
    """
    exports: list[Export] = []
    for each in _tables(file, table, "sweep", _SWEEP):
        variants, targets = each.texts("variants"), each.chosen("targets", TARGETS)
        if variants is None or targets is None:
            raise each.wrong("variants" if variants is None else "targets", "is missing")
        for variant in variants:
            _check_variant(each, variant)
        on = each.text("on") or here
        if on is None:
            raise each.wrong("on", "is missing: with Ray, name the kind of node that exports")
        if "on" in each:
            _refuse_unknown(each, "on", _kind(each, "on", on), known)
        asked_of = _needed(each, _kinds(each, kinds, known))
        options = _options(each)
        precisions = each.chosen("precisions", _PRECISIONS)
        for variant, target in product(variants, targets):
            for precision in precisions or TARGETS[target].precisions[:1]:
                budgets = _budgets(each) if precision == _QUANTIZED else [()]
                for budget in budgets:
                    name = "-".join([variant.lower(), target, precision, *budget])
                    limit = (f"--{budget[0]}", budget[1]) if budget else ()
                    arguments = (variant, "--target", target, f"--{precision}", *limit, *options)
                    exports.append(Export(name, arguments, asked_of, on))
    return tuple(exports)


def _check_variant(table: PlanTable, variant: str) -> None:
    try:
        get_variant(variant)
    except UsageError as error:
        raise table.wrong("variants", str(error)) from error


def _budgets(table: PlanTable) -> list[tuple[str, ...]]:
    """Each as ("max-kl", "0.02"), and () for none."""
    value = table.get("budgets")
    if value is None:
        return [()]
    right = "it must be a list of tables such as {max-drop = 0.5}; {} is none"
    if not isinstance(value, list) or not value:
        raise table.wrong("budgets", f"is {value!r}; {right}")
    budgets: list[tuple[str, ...]] = []
    for each in value:
        if not isinstance(each, dict) or len(each) > 1 or not each.keys() <= set(_BUDGETS):
            raise table.wrong("budgets", f"{each!r} is none of {', '.join(_BUDGETS)}; {right}")
        for number in each.values():
            if not isinstance(number, int | float) or isinstance(number, bool) or not number >= 0:
                raise table.wrong("budgets", f"{number!r} is no number from 0 on")
        budgets.append(next(((key, f"{number:g}") for key, number in each.items()), ()))
    return budgets


def _options(table: PlanTable) -> tuple[str, ...]:
    value = table.get("options") or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise table.wrong("options", f"is {value!r}; it must be a list of texts")
    for each in value:
        if each.split("=")[0] in _TAKEN:
            raise table.wrong("options", f"{each} is set by the sweep itself: leave it out")
    return tuple(value)


def _refuse_twice(table: PlanTable, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise table.wrong("bundle", f"two bundles are called {name!r}: results go by name")


def _pictures(file: Path, table: PlanTable, folder: Path) -> PictureSettings:
    keys = ("images", "labels", "answers", "limit", "batch-size")
    each = PlanTable(file, "pictures", table.get("pictures") or {}, keys)
    return PictureSettings(
        images=_existing(each, "images", folder, several=True),
        labels=_existing(each, "labels", folder),
        answers=_existing(each, "answers", folder),
        limit=each.number("limit", 1, 64),
        batch_size=each.number("batch-size", 1, 8),
    )


def _existing(table: PlanTable, key: str, folder: Path, *, several: bool = False) -> Path | None:
    """A path that exists; where `several`, also a pattern that some do."""
    named = table.text(key)
    if named is None:
        return None
    path = folder / named
    if not (path.exists() or (several and holds_several(path))):
        raise table.wrong(key, f"{path} does not exist")
    return path


def _bench(file: Path, table: PlanTable) -> BenchSettings:
    each = PlanTable(file, "bench", table.get("bench") or {}, ("runs", "batch"))
    return BenchSettings(each.number("runs", 1, 100), each.number("batch", 1, 1))


def _jobs(file: Path, table: PlanTable) -> JobSettings:
    each = PlanTable(file, "jobs", table.get("jobs") or {}, ("retries", "time-limit"))
    return JobSettings(each.number("retries", 0, 2), each.number("time-limit", 1, 3600))
