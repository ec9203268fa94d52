"""Commands that look at which options were given before they do anything else."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from effnet_edge.serving.address import is_address


class CheckedCommand(click.Command):
    """Refuses options that contradict each other or do nothing.

    See `effnet_export.option_rules`.
    """

    def invoke(self, context: click.Context) -> object:
        """Check, then run.

        Raises:
            UsageError: as the table of rules says.
        """
        from effnet_export.option_rules import Asked, check_options

        models = [context.params.get(name) for name in ("model", "candidates", "reference")]
        asked = Asked(
            self.name or "",
            _given(context),
            any(map(_has_bundle, models)),
            any(map(_all_served, models)),
        )
        check_options(asked)
        return super().invoke(context)


def _given(context: click.Context) -> dict[str, object]:
    """The options on the command line, by their long name, with their values."""
    given: dict[str, object] = {}
    for parameter in context.command.get_params(context):
        source = context.get_parameter_source(parameter.name or "")
        if isinstance(parameter, click.Option) and source is ParameterSource.COMMANDLINE:
            value = context.params.get(parameter.name or "")
            off = value is False and parameter.secondary_opts
            given[(parameter.secondary_opts if off else parameter.opts)[-1]] = value
    return given


def _has_bundle(models: object) -> bool:
    if isinstance(models, (tuple, list)):
        return any(map(_has_bundle, models))
    return isinstance(models, str) and Path(models).is_dir()


def _all_served(models: object) -> bool:
    """Whether a model, or each of several, is one behind a server."""
    if isinstance(models, (tuple, list)):
        return bool(models) and all(map(_all_served, models))
    return isinstance(models, str) and is_address(models)
