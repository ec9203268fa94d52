"""The sweeps of a plan: every combination of what one names is a bundle to be exported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError
from effnet_edge.model.variants import get_variant
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from effnet_edge.fleet.plan_kinds import Kinds
    from effnet_edge.fleet.plan_table import PlanTable

_PRECISIONS = ("fp32", "fp16", "int8")
_BUDGETS = ("max-drop", "max-kl", "max-nrmse")
_QUANTIZED = "int8"
# What an export of a sweep sets itself.
_TAKEN = frozenset(
    {"-o", "--output", "--force", "--json", "--quiet", "--target", "--sign"}
    | {f"--{each}" for each in (*_PRECISIONS, *_BUDGETS)}
)


@dataclass(frozen=True)
class Export:
    """One bundle that a sweep exports, and the kinds that check it then.

    Attributes:
        name: of the bundle.
        arguments: those of `effnet-edge export`, but for where to write it.
        options: those of them that the plan has as they are.
        on: the kind of node that exports it.
    """

    name: str
    arguments: tuple[str, ...]
    options: tuple[str, ...]
    kinds: tuple[str, ...]
    on: str


SWEEP_KEYS = ("variants", "targets", "precisions", "budgets", "options", "kinds", "on")


def exports_of(each: PlanTable, kinds: Kinds, here: str | None) -> list[Export]:
    """One for each combination of a sweep.

    Args:
        here: the kind of this machine, which exports where nothing is said; None with Ray.

    Raises:
        UsageError: a key is wrong or missing.
    """
    exports: list[Export] = []
    variants, targets = each.texts("variants"), each.chosen("targets", TARGETS)
    if variants is None or targets is None:
        raise each.wrong("variants" if variants is None else "targets", "is missing")
    for variant in variants:
        _check_variant(each, variant)
    on = kinds.one(each, "on") if "on" in each else here
    if on is None:
        raise each.wrong("on", "is missing: with Ray, name the kind of node that exports")
    asked_of = kinds.named(each)
    options = _options(each)
    precisions = each.chosen("precisions", _PRECISIONS)
    if "budgets" in each and _QUANTIZED not in (precisions or ()):
        raise each.wrong("budgets", f'are of INT8 alone: add precisions = ["{_QUANTIZED}"]')
    for variant, target in product(variants, targets):
        for precision in precisions or TARGETS[target].precisions[:1]:
            budgets = _budgets(each) if precision == _QUANTIZED else [()]
            for budget in budgets:
                name = "-".join([variant.lower(), target, precision, *budget])
                limit = (f"--{budget[0]}", budget[1]) if budget else ()
                arguments = (variant, "--target", target, f"--{precision}", *limit, *options)
                exports.append(Export(name, arguments, options, asked_of, on))
    return exports


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
            told = isinstance(number, int | float) and not isinstance(number, bool)
            if not (told and 0 <= number < math.inf):
                raise table.wrong("budgets", f"{number!r} is no number from 0 on")
        budgets.append(next(((key, f"{number:g}") for key, number in each.items()), ()))
    return budgets


def _options(table: PlanTable) -> tuple[str, ...]:
    value = table.get("options")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise table.wrong("options", f"is {value!r}; it must be a list of texts")
    for each in value:
        if each.split("=")[0] in _TAKEN:
            raise table.wrong("options", f"{each} is set by the sweep itself: leave it out")
    return tuple(value)
