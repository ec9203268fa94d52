"""`effnet-edge sign`: sign a bundle's manifest, and with it every file."""

from __future__ import annotations

from pathlib import Path

import click

from effnet_edge.cli.common import common_options, print_json, settings
from effnet_edge.text import plain


@click.command("sign", short_help="Sign a bundle with an Ed25519 key.")
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    metavar="KEY.pem",
    required=True,
    help="The private key: openssl genpkey -algorithm ed25519 -out KEY.pem makes one.",
)
@common_options
def command(bundle: Path, key: Path) -> None:
    """Check the files of BUNDLE and sign its manifest, which has the SHA-256 of each.

    The signature becomes manifest.sig in BUNDLE, in place of the one that is there.
    """
    from effnet_edge.bundle.manifest import SIGNATURE_FILE
    from effnet_edge.bundle.signing import SigningKey, is_signed
    from effnet_edge.bundle.writing import sign_bundle

    signer = SigningKey(key)
    replaced = is_signed(bundle)
    sign_bundle(bundle, signer)
    path = bundle / SIGNATURE_FILE
    if settings().json:
        document = {"path": str(bundle), "signature": str(path), "replaced": replaced}
        print_json({**document, "key": signer.fingerprint})
        return
    instead = ", in place of another signature" if replaced else ""
    click.echo(f"{plain(path)}: by the key {signer.fingerprint}{instead}")
