"""`effnet-edge doctor`: what works on this machine, and how to install the rest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import metadata

import click

from effnet_edge.cli.common import common_options, console, print_json, settings

# What `effnet-edge export` needs besides a backend.
EXPORT_LIBRARIES = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxsim",
    "onnxruntime",
    "safetensors",
    "scikit-image",
    "scikit-learn",
)
EXPORT_HINT = "pip install 'effnet-edge[export]'"


@dataclass(frozen=True)
class ExportStatus:
    """Whether this machine can export; `missing` are the libraries that it lacks."""

    works: bool
    versions: dict[str, str]
    missing: list[str]
    install_hint: str = EXPORT_HINT


@click.command("doctor", short_help="Say what works on this machine.")
@common_options
@click.pass_context
def command(context: click.Context) -> None:
    """Try every backend on a tiny model and say how to install what is missing.

    The exit code is 1 if no backend works.
    """
    from effnet_edge.machine import Machine
    from effnet_edge.runtime.doctor import available_backends

    machine, backends, export = Machine.here(), available_backends(), _export_status()
    if settings().json:
        print_json(
            {
                "machine": asdict(machine),
                "backends": [asdict(backend) for backend in backends],
                "export": asdict(export),
            }
        )
    else:
        from rich.table import Table

        out = console()
        out.print(f"{machine.processor}, {machine.platform}, Python {machine.python}", markup=False)
        table = Table()
        for heading in ("", "version", "works", "detail", "to install"):
            table.add_column(heading)
        for backend in backends:
            hint = backend.install_hint if backend.version is None else ""
            table.add_row(
                backend.title, backend.version or "", _yes(backend.works), backend.detail, hint
            )
        detail = f"missing: {', '.join(export.missing)}" if export.missing else "export b0 …"
        torch_version = export.versions.get("torch")
        table.add_row(
            "export",
            f"torch {torch_version}" if torch_version else "",
            _yes(export.works),
            detail,
            "" if export.works else export.install_hint,
        )
        out.print(table, markup=False)
    context.exit(0 if any(backend.works for backend in backends) else 1)


def _yes(works: bool) -> str:
    return "yes" if works else "no"


def _export_status() -> ExportStatus:
    versions, missing = {}, []
    for library in EXPORT_LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            missing.append(library)
    return ExportStatus(not missing, versions, missing)
