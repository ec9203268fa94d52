"""`effnet-edge deploy`: write bundles into a model repository that a server loads as it is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from effnet_edge.cli.common import common_options, print_json, say, settings
from effnet_edge.cli.destinations import refuse_inside_bundle
from effnet_edge.cli.engine import engine_options
from effnet_edge.cli.signatures import trusted_key, trusted_option
from effnet_edge.deploy import SERVERS
from effnet_edge.errors import WriteError
from effnet_edge.extras import install_hint
from effnet_edge.text import plain


@click.command("deploy", short_help="Write bundles into a server's model repository.")
@click.argument(
    "bundles", metavar="BUNDLE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--for",
    "server",
    type=click.Choice(SERVERS),
    required=True,
    help="Triton or OpenVINO Model Server; deepstream tells why it cannot be.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="The model repository; what is in it stays.",
)
@click.option("--name", help="What the model is called. [default: as the bundle's folder]")
@click.option(
    "--wrapped",
    is_flag=True,
    help="Triton: run it with EngineRunner in the Python backend, not in Triton's own one.",
)
@engine_options
@trusted_option
@common_options
def command(
    bundles: tuple[Path, ...],
    server: str,
    output: Path,
    name: str | None,
    wrapped: bool,
    device: str | None,
    threads: int | None,
    precision: str | None,
    trusted: Path | None,
) -> None:
    """Write each BUNDLE as a model into the repository DIR of a server.

    A model that is there already gets a new version, 2, 3, …, beside its old ones. A bundle that
    the server would not answer as it was proven is refused.
    """
    from effnet_edge.deploy.repository import deploy
    from effnet_edge.deploy.servers import EngineOptions
    from effnet_edge.deploy.servers import server as server_of

    chosen = server_of(server, wrapped=wrapped, options=EngineOptions(device, threads, precision))
    refuse_inside_bundle(output, "-o", is_folder=True)
    key = trusted_key(trusted)
    try:
        models = deploy(bundles, output, chosen, name=name, trusted=key)
    except OSError as error:
        raise WriteError(f"-o {output}: cannot be written: {error.strerror}") from error
    if settings().json:
        serve = chosen.start(output)
        print_json({"repository": str(output), "serve": serve, "models": [*map(asdict, models)]})
        return
    for model in models:
        click.echo(plain(f"{model.path}: version {model.version} of {model.name}, {model.backend}"))
    say(f"Serve it: {chosen.start(output)}")
    if wrapped:
        say(f"The server's Python needs the models' engines: {install_hint('openvino')} or another")
