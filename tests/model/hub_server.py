"""A server of our own that plays the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

from huggingface_hub import constants
from reference_models import geffnet_model
from safetensors.torch import save

from effnet_edge.model.network import EfficientNet
from effnet_edge.model.variants import VARIANTS
from effnet_edge.model.weights import WeightsOrigin, load_weights

if TYPE_CHECKING:
    import pytest

REPOSITORY = "someone/flowers"
COMMIT = "1234567890abcdef1234567890abcdef12345678"
CARD = b"---\nlicense: apache-2.0\ntags:\n- timm\n---\nFlowers.\n"
CONTENT = bytes(range(256)) * 4096


@dataclass
class Hub:
    """What the server has, and what it was asked for.

    Attributes:
        store: the same server under another name, as large files are elsewhere on the real hub.
        files: of the repository's only commit, by name; the weights are in LFS, the rest in git.
        refusal: the status and X-Error-Code of every answer, if it refuses.
        sends: instead of the content of files in LFS, one after the other.
        stops_after: bytes of the next file in LFS after which the connection is closed.
    """

    url: str
    store: str
    files: dict[str, bytes] = field(default_factory=dict)
    refusal: tuple[int, str] | None = None
    sends: list[bytes] = field(default_factory=list)
    stops_after: int | None = None
    ranges: list[str | None] = field(default_factory=list)
    requests: int = 0

    def in_lfs(self, digest: str) -> bytes:
        return next(
            data for data in self.files.values() if hashlib.sha256(data).hexdigest() == digest
        )


def lfs_name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_name(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """`/OWNER/REPO/resolve/REVISION/FILE` and the server of large files behind it."""

    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.hub.requests += 1
        if self.path.startswith("/lfs/"):
            self._send_large(self.path.removeprefix("/lfs/"))
            return
        repository, _, rest = self.path.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if self.hub.refusal is not None:
            self._refuse(*self.hub.refusal)
        elif repository != REPOSITORY:
            self._refuse(404, "RepoNotFound")
        elif revision not in {"main", "v1", COMMIT}:
            self._refuse(404, "RevisionNotFound")
        elif name not in self.hub.files:
            self._refuse(404, "EntryNotFound", {"X-Repo-Commit": COMMIT})
        else:
            self._send_file(name, self.hub.files[name])

    def _send_file(self, name: str, data: bytes) -> None:
        if name.endswith((".json", ".md")):
            headers = {"ETag": f'"{git_name(data)}"', "X-Repo-Commit": COMMIT}
            self._send(200, data, headers)
            return
        digest = lfs_name(data)
        headers = {
            "Location": f"{self.hub.store}/lfs/{digest}",
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(data)),
            "X-Repo-Commit": COMMIT,
        }
        self._send(302, b"", headers)

    def _send_large(self, digest: str) -> None:
        data = self.hub.sends.pop(0) if self.hub.sends else self.hub.in_lfs(digest)
        asked = self.headers.get("Range")
        self.hub.ranges.append(asked)
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self._send(206 if begin else 200, data[begin:], {}, self.hub.stops_after)
        self.hub.stops_after = None

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, b"", {"X-Error-Code": code, **(headers or {})})

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], stops_after: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:stops_after])

    def log_message(self, *_: object) -> None:
        pass


def answer_from(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """What HF_ENDPOINT does where it is set before the library is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def take_away_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_from(monkeypatch, "http://127.0.0.1:9")


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_HUB_OFFLINE=1 does."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def publish_flowers(hub: Hub, architecture: str = "efficientnet_b0") -> bytes:
    """A classifier of three classes as timm publishes it; the checkpoint's bytes."""
    data = save(geffnet_model("b0", num_classes=3).state_dict())
    config = {"architecture": architecture, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.4] * 3}}
    hub.files |= {"model.safetensors": data, "config.json": json.dumps(config).encode()}
    return data


def load_flowers(weights: str) -> tuple[EfficientNet, WeightsOrigin]:
    network = EfficientNet(VARIANTS["b0"], num_classes=3, resolution=32)
    return network, load_weights(network, weights)
