"""`effnet-edge doctor`: what works on this machine, and how to install the rest."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from effnet_edge.cli.common import common_options, console, print_json, settings

if TYPE_CHECKING:
    from rich.table import Table

    from effnet_edge.runtime.doctor import BackendStatus
    from effnet_export.doctor import ExportStatus


@click.command("doctor", short_help="Say what works on this machine.")
@common_options
@click.pass_context
def command(context: click.Context) -> None:
    """Try every backend on a tiny model and say how to install what is missing.

    The libraries that an export needs are looked for, and those that load quickly tried.

    The exit code is 1 if no backend works.
    """
    from effnet_edge.machine import Machine
    from effnet_edge.runtime.doctor import available_backends
    from effnet_export.doctor import export_status

    machine, backends, export = Machine.here(), available_backends(), export_status()
    if settings().json:
        print_json(
            {
                "machine": asdict(machine),
                "backends": [asdict(backend) for backend in backends],
                "export": asdict(export),
            }
        )
    else:
        out = console()
        out.print(f"{machine.processor}, {machine.platform}, Python {machine.python}", markup=False)
        out.print(_table(backends, export), markup=False)
    context.exit(0 if any(backend.works for backend in backends) else 1)


def _table(backends: list[BackendStatus], export: ExportStatus) -> Table:
    from rich.table import Table

    table = Table()
    for heading in ("", "version", "works", "detail", "to install"):
        table.add_column(heading)
    for backend in backends:
        hint = backend.install_hint if backend.version is None else ""
        _add(table, backend.title, backend.version, backend.works, backend.detail, hint)
    torch_version = export.versions.get("torch")
    _add(
        table,
        "export",
        f"torch {torch_version}" if torch_version else None,
        export.works,
        export.detail or "export b0 …",
        "" if export.works else export.install_hint,
    )
    return table


def _add(
    table: Table, title: str, version: str | None, works: bool, detail: str, hint: str
) -> None:
    table.add_row(title, version or "", "yes" if works else "no", detail, hint)
