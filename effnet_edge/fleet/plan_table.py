"""Reading a table of the plan: every fault is told in one line, with the file and the key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_MOST = 1_000_000


class PlanTable:
    """One table of a plan.

    Args:
        plan: the file.
        name: where the table is in it: "bundle[2]", empty for the file's own keys.
        content: as TOML has it.
        keys: those that it may have; None where others look at them.

    Raises:
        UsageError: it is no table, or has another key.
    """

    def __init__(self, plan: Path, name: str, content: object, keys: Sequence[str] | None) -> None:
        self._plan, self._name = plan, name
        if not isinstance(content, dict):
            raise UsageError(f"{plan}: {name} must be a table, not {content!r}")
        self._content: dict[str, Any] = content
        for key in content:
            if keys is not None and key not in keys:
                choices = ", ".join(keys)
                raise self.wrong(key, f"there is no such key: choose among {choices}")

    def wrong(self, key: str, what: str) -> UsageError:
        """The error for a key."""
        place = f"{self._name}.{key}" if self._name else key
        return UsageError(f"{self._plan}: {place}: {what}")

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def table(self, name: str, keys: Sequence[str] | None = None) -> PlanTable:
        """One of its tables, empty where it has none; raises UsageError as this class does."""
        return PlanTable(self._plan, name, self._content.get(name, {}), keys)

    def tables(self, name: str, keys: Sequence[str]) -> list[PlanTable]:
        """Those of an array of tables, `[[name]]`, which messages count from 1 on."""
        content = self._content.get(name)
        if content is None:
            return []
        if not isinstance(content, list):
            raise self.wrong(name, f"is one table: write [[{name}]], of which there may be several")
        return [
            PlanTable(self._plan, f"{name}[{index}]", each, keys)
            for index, each in enumerate(content, 1)
        ]

    @property
    def content(self) -> Mapping[str, object]:
        """All of it, as it is."""
        return self._content

    def get(self, key: str) -> object:
        """The value as it is; None where there is none."""
        return self._content.get(key)

    def text(self, key: str) -> str | None:
        """A string that is not empty; None where there is none."""
        value = self._content.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise self.wrong(key, f"is {value!r}; it must be a text")
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of at least one string, each once; None where there is none."""
        value = self._content.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.wrong(key, f"is {value!r}; it must be a list of texts")
        if not value:
            raise self.wrong(key, "is empty: name at least one, or leave it out")
        return tuple(dict.fromkeys(value))

    def chosen(self, key: str, choices: Iterable[str]) -> tuple[str, ...] | None:
        """The same, each among `choices`."""
        values, known = self.texts(key), list(choices)
        for each in values or ():
            if each not in known:
                raise self.wrong(key, f"there is no {each!r}: choose among {', '.join(known)}")
        return values

    def number(self, key: str, least: int, default: int) -> int:
        """A whole number from `least` on."""
        value = self._content.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
            raise self.wrong(key, f"is {value!r}; it must be a whole number from {least} on")
        return value
