"""One candidate's loss and its interval on a line, against nothing lost and against the limit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from effnet_edge.parity.report.charts.svg import (
    Scale,
    chart,
    element,
    percent,
    text,
    ticks_across,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from effnet_edge.parity.report.loss import Loss, LossKind

_HEIGHT = 58.0
_TOP, _MIDDLE, _BOTTOM = 16.0, 28.0, 40.0


def common_scale(losses: Sequence[Loss]) -> Scale:
    """One scale for all rows: it holds zero, every interval and every limit."""
    values = [0.0]
    for loss in losses:
        values += [*loss.ends, *(() if loss.limit is None else (loss.limit,))]
    return Scale.around([value for value in values if math.isfinite(value)])


def loss_strip(loss: Loss, kind: LossKind, scale: Scale, name: str) -> Markup | None:
    """None where the loss is no finite number."""
    if not math.isfinite(loss.value):
        return None
    parts = [*_allowed(loss, scale)]
    for tick in ticks_across(scale, 7):
        at = percent(scale.at(tick))
        parts.append(element("line", x1=at, x2=at, y1=_TOP, y2=_BOTTOM, classes="grid"))
        parts.append(text(scale.at(tick), _HEIGHT - 4, told(tick), "tick"))
    zero = percent(scale.at(0))
    parts.append(element("line", x1=zero, x2=zero, y1=_TOP, y2=_BOTTOM, classes="zero"))
    parts += _limit_line(loss, kind, scale)
    tone = "bad" if loss.limit is not None and loss.value > loss.limit else "mark"
    if loss.interval:
        low, high = (percent(scale.at(end)) for end in loss.interval)
        parts.append(
            element("line", x1=low, x2=high, y1=_MIDDLE, y2=_MIDDLE, classes=f"interval {tone}")
        )
    parts.append(
        element("circle", cx=percent(scale.at(loss.value)), cy=_MIDDLE, r=6, classes=f"dot {tone}")
    )
    return chart(parts, _HEIGHT, f"{name}: {kind.title} {told_loss(loss, kind)}{_told_limit(loss)}")


def told_loss(loss: Loss, kind: LossKind) -> str:
    """The number in words, with its interval."""
    if math.isnan(loss.value):
        return "NaN"
    if math.isinf(loss.value):
        return "∞"
    if loss.interval is None:
        return f"{loss.value:.3g} {kind.unit}"
    low, high = (f"{end:+.1f}" for end in loss.interval)
    return f"{loss.value:.2f} {kind.unit} ({low} to {high})".replace("-", "−")


def _told_limit(loss: Loss) -> str:
    return ", no limit set" if loss.limit is None else f", limit {loss.limit:g}"


def _allowed(loss: Loss, scale: Scale) -> list[Markup]:
    if loss.limit is None:
        return []
    room = _BOTTOM - _TOP
    return [
        element(
            "rect", x=0, y=_TOP, width=percent(scale.at(loss.limit)), height=room, classes="allowed"
        )
    ]


def _limit_line(loss: Loss, kind: LossKind, scale: Scale) -> list[Markup]:
    if loss.limit is None:
        return []
    at = scale.at(loss.limit)
    label = f"limit: {loss.limit:g} {kind.unit_of(loss.limit)}"
    return [
        element("line", x1=percent(at), x2=percent(at), y1=_TOP, y2=_BOTTOM, classes="limit"),
        text(at, _TOP - 4, label, "limit-label"),
    ]
