"""Where a served model is, as a person writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import SplitResult, quote, unquote, urlsplit

from effnet_edge.errors import UsageError

Scheme = Literal["http", "grpc"]

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
FORM = "http://HOST:PORT/MODEL, http://HOST:PORT/MODEL/versions/N, or grpc:// instead of http://"
_PROTOCOL_PREFIX = ["v2", "models"]


def is_address(text: str) -> bool:
    """Whether it is to be an address, right or wrong, and not the name of a file."""
    return "://" in text and not text.startswith("hf://")


@dataclass(frozen=True)
class Address:
    """A model of a server; `version` is None for the one that the server chooses."""

    scheme: Scheme
    host: str
    port: int
    model: str
    version: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read "http://HOST:PORT/MODEL"; the protocol's own path, /v2/models/MODEL, is taken, too.

        Raises:
            UsageError: it is not written like that.
        """
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UsageError(f"{text}: it is no address: {error}") from error
        scheme = next((each for each in SCHEMES if each == parts.scheme), None)
        if scheme is None:
            raise UsageError(f"{text}: {parts.scheme}:// is not spoken here: give {FORM}")
        path = [unquote(part) for part in parts.path.strip("/").split("/")]
        if path[:2] == _PROTOCOL_PREFIX:
            path = path[2:]
        model, version = path[0] if path else "", None
        if len(path) == 3 and path[1] == "versions" and path[2]:
            version = path[2]
        elif len(path) != 1:
            model = ""
        if not (host and port and model) or _has_more(parts):
            raise UsageError(f"{text}: give {FORM}")
        return cls(scheme, host, port, model, version)

    @property
    def server(self) -> str:
        """HOST:PORT, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def path(self) -> str:
        """Of the model in the protocol by HTTP."""
        version = f"/versions/{quote(self.version, safe='')}" if self.version else ""
        return f"/v2/models/{quote(self.model, safe='')}{version}"

    def __str__(self) -> str:
        """As it is written."""
        version = f"/versions/{self.version}" if self.version else ""
        return f"{self.scheme}://{self.server}/{self.model}{version}"


def _has_more(parts: SplitResult) -> bool:
    return bool(parts.query or parts.fragment or parts.username or parts.password)
