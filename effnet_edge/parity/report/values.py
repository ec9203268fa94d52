"""What a report has of a regression, as JSON values: its outputs, and the largest differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effnet_edge.outputs import value_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effnet_edge.parity.measures.value_answers import Difference, ValueAnswers


def values_document(
    answers: ValueAnswers | None, differences: Sequence[Difference], labels: Sequence[str]
) -> dict[str, Any]:
    """Two lists, empty for another kind of output; `label` is the name of an output."""
    if answers is None:
        return {"by_output": [], "differences": []}
    names = value_names(answers.reference.shape[1], labels)
    rows = answers.by_output()
    return {
        "by_output": [{**row, "label": name} for row, name in zip(rows, names, strict=True)],
        "differences": [{**each.to_dict(), "label": names[each.output]} for each in differences],
    }
