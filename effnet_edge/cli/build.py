"""`effnet-edge build`: compile a bundle's engine on the machine that will run it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from effnet_edge.cli.choice_table import choice_table
from effnet_edge.cli.common import common_options, console, print_json, settings, stage_display
from effnet_edge.cli.engine_options import BatchType, capabilities
from effnet_edge.cli.numbers import Count, Number
from effnet_edge.cli.signatures import (
    signing_key_of,
    signing_option,
    trusted_key,
    trusted_option,
)
from effnet_edge.errors import UsageError
from effnet_edge.text import plain

if TYPE_CHECKING:
    from effnet_edge.bundle import Bundle, EngineRecord, Manifest
    from effnet_edge.bundle.signing import SigningKey
    from effnet_edge.runtime.tensorrt.plan import BuildOptions

# The library takes a number of bytes, in 64 bits.
_MOST_WORKSPACE_MIB = 1 << 40

_STAGES = {
    "build": "building the engine of {name}",
    "time": "timing the engines in turns",
}


@click.command("build", short_help="Compile a TensorRT bundle's engine on this machine.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--batch", type=BatchType(), help="Images a call, within the bundle's range.")
@click.option(
    "--workspace",
    type=click.IntRange(1, _MOST_WORKSPACE_MIB),
    metavar="MIB",
    help="Memory for a layer.",
)
@click.option(
    "--optimization-level",
    type=click.IntRange(0, 5),
    help="0 builds fastest, 5 runs fastest. [default: the library's]",
)
@click.option("--dla", type=Count(0), metavar="CORE", help="Run on this DLA core of an Orin.")
@click.option("--version-compatible", is_flag=True, help="Runs on newer TensorRT versions, too.")
@click.option("--hardware-compatible", is_flag=True, help="Runs on every GPU from Ampere on.")
@click.option(
    "--compute-capability",
    metavar="X.Y,…",
    help="TensorRT-RTX: the GPU generations to build for. [default: 8.6,8.9,12.0]",
)
@click.option(
    "--max-latency",
    type=Number(min=0, min_open=True),
    metavar="MS",
    help="Of a bundle with several graphs: the most that a call may take here, in the median.",
)
@trusted_option
@signing_option
@common_options
def command(
    bundle: Path,
    batch: tuple[int, int, int] | None,
    workspace: int | None,
    optimization_level: int | None,
    dla: int | None,
    version_compatible: bool,
    hardware_compatible: bool,
    compute_capability: str | None,
    max_latency: float | None,
    trusted: Path | None,
    signing_key: Path | None,
) -> None:
    """Compile the engine of BUNDLE into it: engines belong to one GPU and TensorRT version.

    A device has one engine in a bundle: another --batch replaces it. The engine becomes part of the
    manifest: a signed bundle needs --sign, with a key of this device.

    Of a bundle with several graphs, as effnet-edge tune makes it for TensorRT, each is built and
    timed, and the fastest is kept, alone.
    """
    from effnet_edge.bundle import BatchRange, Bundle
    from effnet_edge.runtime.tensorrt.plan import BuildOptions

    options = BuildOptions(
        batch=BatchRange(*batch) if batch else None,
        workspace_mib=workspace,
        optimization_level=optimization_level,
        dla_core=dla,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        compute_capabilities=capabilities(compute_capability),
    )
    started = time.perf_counter()
    public, key = trusted_key(trusted), signing_key_of(signing_key)
    loaded = Bundle.load(bundle, trusted=public)
    built = _built(loaded, options, max_latency, key)
    seconds = time.perf_counter() - started
    record = built.manifest.engines[-1]
    size = built.manifest.files[record.file].bytes
    if settings().json:
        engine = json.loads(built.manifest.to_json())["engines"][-1]
        print_json(
            {
                **engine,
                **({"choice": _choice(built)} if loaded.manifest.is_open else {}),
                "bundle": str(built.path),
                "bytes": size,
                "seconds": seconds,
                "signed_by": key and key.fingerprint,
            }
        )
        return
    if loaded.manifest.is_open:
        console().print(choice_table(built.manifest))
        click.echo(plain(f"{_told_choice(built)}"))
    click.echo(plain(_checked(built.manifest, record)))
    click.echo(
        f"{plain(bundle / record.file)}: {size / 1e6:.1f} MB, {seconds:.1f} s, "
        f"for {record.batch} and compute capability "
        f"{', '.join(record.compute_capability)}, {record.library} "
        f"{record.library_version}{_replaced(loaded, record)}"
    )


def _built(
    bundle: Bundle, options: BuildOptions, max_latency: float | None, key: SigningKey | None
) -> Bundle:
    from effnet_edge.runtime.tensorrt.build import build_engine

    with stage_display() as display:
        if bundle.manifest.is_open:
            from effnet_edge.choosing.on_device import build_fastest

            return build_fastest(
                bundle,
                options,
                None if max_latency is None else max_latency / 1e3,
                lambda stage, name: display.stage(_STAGES[stage].format(name=name)),
                display.progress,
                key,
            )
        if max_latency is not None:
            raise UsageError(
                "--max-latency goes with a bundle of several graphs, as effnet-edge tune makes it "
                "for TensorRT: leave it out, and see what effnet-edge bench says"
            )
        display.stage("building the engine")
        return build_engine(bundle, options, display.progress, key)


def _choice(built: Bundle) -> object:
    return json.loads(built.manifest.to_json())["choice"]


def _told_choice(built: Bundle) -> str:
    choice = built.manifest.choice
    assert choice is not None
    return f"{choice.chosen}: none is faster here but for chance; it is the bundle's one graph now"


def _checked(manifest: Manifest, record: EngineRecord) -> str:
    if record.check is not None:
        return str(record.check)
    why = (
        "this machine cannot run it: each load where it runs does"
        if manifest.answers is not None
        else "the bundle has no known answers: export it again"
    )
    return f"not compared with its graph, as {why}"


def _replaced(before: Bundle, record: EngineRecord) -> str:
    """The device's engine until now, if it was for other batches or another version."""
    for old in before.manifest.engines:
        if old.file == record.file and old.batch != record.batch:
            return f" (instead of the engine for {old.batch})"
        if old.file == record.file and old.library_version != record.library_version:
            return f" (instead of the engine of {old.library} {old.library_version})"
    return ""
