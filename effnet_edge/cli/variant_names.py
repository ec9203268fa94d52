"""Names of variants as arguments: checked before anything is loaded, and completed by the shell."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from effnet_edge.model.variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Iterable

_LEAST_LIKENESS = 0.5
_SUGGESTIONS = 3
_PREFIX = re.compile(r"^(tf_|timm/)*efficientnet[-_]?(edgetpu[-_]?)?")


class VariantName(click.ParamType[str]):
    """The name of a variant."""

    name = "VARIANT"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Give it back as it is; fails with the names that are most like it."""
        if value.lower() not in VARIANTS:
            hint = did_you_mean(_simplified(value), VARIANTS)
            self.fail(f"unknown variant '{value}'{hint or _all_of_them()}", param, ctx)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The variants that begin so."""
        del ctx, param
        return [CompletionItem(name) for name in VARIANTS if name.startswith(incomplete.lower())]


class VariantOrBundle(VariantName):
    """The name of a variant, or a bundle's directory."""

    name = "VARIANT|BUNDLE"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Give it back as it is; fails for what is neither."""
        if value.lower() not in VARIANTS and not Path(value).exists():
            hint = did_you_mean(_simplified(value), VARIANTS)
            self.fail(
                f"'{value}' is neither a variant nor a bundle's directory{hint or _all_of_them()}",
                param,
                ctx,
            )
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The variants that begin so, and folders."""
        folders = [CompletionItem(incomplete, type="dir")]
        return super().shell_complete(ctx, param, incomplete) or folders


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Ask for the names that are like the word, after a colon; nothing where none is."""
    word = word.lower()
    rated = [(SequenceMatcher(None, word, name).ratio(), name) for name in names]
    like = sorted(
        (pair for pair in rated if pair[0] >= _LEAST_LIKENESS), key=lambda p: (-p[0], p[1])
    )
    best = [name for rate, name in like if rate == like[0][0]][:_SUGGESTIONS]
    *others, last = best or [""]
    told = f"{', '.join(others)} or {last}" if others else last
    return f": did you mean {told}?" if told else ""


def _simplified(name: str) -> str:
    """As other libraries call it, without what all of them share: `tf_efficientnetv2_s` → v2-s."""
    return _PREFIX.sub("", name.lower()).replace("_", "-")


def _all_of_them() -> str:
    return f": choose one of {', '.join(VARIANTS)}"
