"""The options that check signatures, and that make them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from effnet_edge.bundle.signing import SigningKey, TrustedKey

Command = TypeVar("Command", bound=Callable[..., object])


def trusted_option(command: Command) -> Command:
    """Add --trusted."""
    return click.option(
        "--trusted",
        type=click.Path(path_type=Path),
        metavar="KEY.pem",
        help="Refuse what this public Ed25519 key has not signed.",
    )(command)


def signing_option(command: Command) -> Command:
    """Add --sign, as `signing_key`."""
    return click.option(
        "--sign",
        "signing_key",
        type=click.Path(path_type=Path),
        metavar="KEY.pem",
        help="Sign the bundle with this private Ed25519 key.",
    )(command)


def trusted_key(path: Path | None) -> TrustedKey | None:
    """The key in a file, if one was asked for; raises UsageError for what is none."""
    from effnet_edge.bundle.signing import TrustedKey

    return None if path is None else TrustedKey(path)


def signing_key_of(path: Path | None) -> SigningKey | None:
    """The key in a file, if one was asked for; raises UsageError for what is none."""
    from effnet_edge.bundle.signing import SigningKey

    return None if path is None else SigningKey(path)
