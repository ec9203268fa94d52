"""The kinds of device that a plan names, and whether there are nodes of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnet_edge.fleet.plan_table import PlanTable

_KIND = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
# Ray's own resources.
_RESERVED = frozenset({"memory", "object_store_memory"})


def kind_of(table: PlanTable, key: str) -> str:
    """The kind under a key, which must be there; raises UsageError for what is no name of one."""
    kind = table.text(key)
    if kind is None:
        raise table.wrong(key, "is missing: name the kind of device, such as jetson-orin")
    _check_name(table, key, kind)
    return kind


def _check_name(table: PlanTable, key: str, kind: str) -> None:
    if not _KIND.fullmatch(kind) or kind in _RESERVED:
        raise table.wrong(
            key, f"{kind!r} is no name of a kind: lower-case letters, digits, dots and hyphens"
        )


@dataclass(frozen=True)
class Kinds:
    """Those that there are.

    Attributes:
        known: of the plan's nodes; None where Ray knows them.
        default: those of a table that names none; None if it must.
    """

    known: tuple[str, ...] | None
    default: tuple[str, ...] | None

    @classmethod
    def of_plan(cls, table: PlanTable, known: tuple[str, ...] | None) -> Kinds:
        """Those of a whole plan, which may name its default; raises UsageError as `named`."""
        return cls(known, cls(known, known).asked(table) or known)

    def named(self, table: PlanTable) -> tuple[str, ...]:
        """Those that a table asks for, or the default.

        Raises:
            UsageError: there are none, one is no name, or no node is of it.
        """
        kinds = self.asked(table) or self.default
        if kinds is None:
            raise table.wrong(
                "kinds", "is missing: with Ray, name the kinds of device here or above"
            )
        return kinds

    def asked(self, table: PlanTable) -> tuple[str, ...] | None:
        """Those that a table names; raises UsageError as `named`."""
        asked = table.texts("kinds")
        for kind in asked or ():
            _check_name(table, "kinds", kind)
            self._refuse_unknown(table, "kinds", kind)
        return asked

    def one(self, table: PlanTable, key: str) -> str:
        """The one that is named under a key; raises UsageError as `named`."""
        kind = kind_of(table, key)
        self._refuse_unknown(table, key, kind)
        return kind

    def _refuse_unknown(self, table: PlanTable, key: str, kind: str) -> None:
        if self.known is not None and kind not in self.known:
            raise table.wrong(
                key, f"no node is of kind {kind!r}: there are {', '.join(self.known)}"
            )
