"""Weights from the Hugging Face hub, which is played by a server of our own."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from reference_models import geffnet_model
from safetensors.torch import save
from tiny_bundles import PREPROCESSING, manifest

from effnet_edge.bundle import OutputSpec
from effnet_edge.errors import CheckpointError, EffnetEdgeError, UsageError
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.provenance import Weights
from effnet_edge.model.remote.hub import HubAddress, fetch_from_hub, parse_hub_address
from effnet_edge.model.source import load_source_of
from effnet_edge.model.variants import VARIANTS
from effnet_edge.model.weights import WeightsOrigin, load_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    port = server.server_port
    Handler.hub = Hub(f"http://127.0.0.1:{port}", f"http://localhost:{port}")
    Handler.hub.files = {"model.safetensors": CONTENT, "README.md": CARD}
    answer_from(monkeypatch, Handler.hub.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield Handler.hub
    server.shutdown()
    server.server_close()


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


@pytest.mark.parametrize(
    ("architecture", "padding"), [("efficientnet_b0", "symmetric"), ("tf_efficientnet_b0", "same")]
)
def test_a_finetuned_model_comes_with_its_commit_config_and_licence(
    hub: Hub, architecture: str, padding: str
) -> None:
    data = publish_flowers(hub, architecture)

    network, origin = load_flowers(f"hf://{REPOSITORY}")

    assert origin.name == REPOSITORY
    assert origin.source == f"hf://{REPOSITORY}@{COMMIT}/model.safetensors"
    assert origin.sha256 == hashlib.sha256(data).hexdigest()
    assert origin.licence == "apache-2.0"
    assert network.padding == padding
    assert (origin.pixels.mean, origin.pixels.std) == ((0.5,) * 3, (0.4,) * 3)


def test_what_the_manifest_records_needs_no_network_and_is_the_same(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_flowers(hub)
    network, origin = load_flowers(f"hf-hub:{REPOSITORY}@v1")
    asked = hub.requests

    again, same = load_flowers(origin.source)

    assert hub.requests == asked
    assert same == origin
    assert again.padding == network.padding == "symmetric"
    assert torch.equal(again.state_dict()["stem.conv.weight"], network.stem.conv.weight)
    go_offline(monkeypatch)
    assert load_flowers(f"hf-hub:{REPOSITORY}@v1")[1] == origin


def test_the_network_of_a_bundle_is_found_again_by_what_its_manifest_says(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_flowers(hub)
    network, origin = load_flowers(f"hf://{REPOSITORY}")
    go_offline(monkeypatch)

    source = load_source_of(
        manifest(
            weights=Weights(origin.name, origin.source, origin.sha256, origin.licence),
            output=OutputSpec("logits", 3),
            preprocessing=replace(PREPROCESSING, resolution=32),
            padding=network.padding,
        )
    )

    assert source.weights.source == origin.source
    assert torch.equal(source.network.stem.conv.weight, network.stem.conv.weight)


@pytest.mark.usefixtures("hub")
def test_progress_is_told_and_the_library_draws_no_bar_of_its_own(
    capfd: pytest.CaptureFixture[str],
) -> None:
    told: list[tuple[str, int, int]] = []

    fetched = fetch_from_hub(HubAddress(REPOSITORY), lambda *step: told.append(step))

    assert fetched.path.read_bytes() == CONTENT
    assert told[-1] == (f"downloading {REPOSITORY}", len(CONTENT), len(CONTENT))
    assert capfd.readouterr() == ("", "")


def test_a_broken_connection_is_taken_up_where_it_stopped(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)  # not of ten megabytes
    hub.stops_after = 300_000
    told: list[int] = []

    fetched = fetch_from_hub(HubAddress(REPOSITORY), lambda _, done, __: told.append(done))

    assert fetched.path.read_bytes() == CONTENT
    assert hub.ranges == [None, "bytes=300000-"]
    assert told == sorted(told)
    assert told[-1] == len(CONTENT)
    assert capfd.readouterr() == ("", "")


def test_a_download_with_another_hash_is_fetched_once_more(hub: Hub) -> None:
    hub.sends = [CONTENT[:-1] + b"\0"]

    assert fetch_from_hub(HubAddress(REPOSITORY)).path.read_bytes() == CONTENT


def test_another_content_is_refused_and_not_kept(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.sends = [CONTENT[:-1] + b"\0"] * 2

    with pytest.raises(CheckpointError, match=f"not the file.*{lfs_name(CONTENT)}"):
        fetch_from_hub(HubAddress(REPOSITORY))
    go_offline(monkeypatch)
    with pytest.raises(CheckpointError, match="cannot be reached"):
        fetch_from_hub(HubAddress(REPOSITORY))


@pytest.mark.usefixtures("hub")
def test_a_file_that_is_damaged_in_the_cache_is_fetched_anew_or_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = fetch_from_hub(HubAddress(REPOSITORY)).path
    path.resolve().write_bytes(CONTENT[:-1] + b"\0")
    assert fetch_from_hub(HubAddress(REPOSITORY)).path.read_bytes() == CONTENT

    path.resolve().write_bytes(CONTENT[:-1] + b"\0")
    go_offline(monkeypatch)
    for revision in ("main", COMMIT):
        with pytest.raises(CheckpointError, match=f"{path} is damaged"):
            fetch_from_hub(HubAddress(REPOSITORY, revision))


def test_a_config_in_git_is_checked_too(hub: Hub) -> None:
    publish_flowers(hub)
    config = fetch_from_hub(HubAddress(REPOSITORY)).path.with_name("config.json")
    written = config.read_bytes()
    config.resolve().write_bytes(b"{}")

    fetch_from_hub(HubAddress(REPOSITORY, "v1"))
    assert (
        fetch_from_hub(HubAddress(REPOSITORY, "v1")).path.with_name("config.json").read_bytes()
        == written
    )


def test_pytorch_files_are_taken_where_there_are_no_safetensors(hub: Hub) -> None:
    hub.files = {"pytorch_model.bin": CONTENT, "old/model.pth": b"old" * 99}

    assert fetch_from_hub(HubAddress(REPOSITORY)).address.file == "pytorch_model.bin"

    named = fetch_from_hub(parse_hub_address(f"hf://{REPOSITORY}@v1/old/model.pth"))
    assert str(named.address) == f"hf://{REPOSITORY}@{COMMIT}/old/model.pth"
    assert named.path.read_bytes() == b"old" * 99
    assert named.licence is None


@pytest.mark.parametrize(
    ("address", "refusal", "error", "says"),
    [
        (
            "hf://nobody/nothing",
            None,
            UsageError,
            "no repository nobody/nothing.*private.*HF_TOKEN",
        ),
        (f"hf://{REPOSITORY}@v9", None, UsageError, "no revision v9: see http.*/commits"),
        (f"hf://{REPOSITORY}/b.pth", None, UsageError, "no file b.pth: see http.*/tree/main"),
        (
            f"hf://{REPOSITORY}",
            (401, "GatedRepo"),
            CheckpointError,
            "gated: ask for access.*log in",
        ),
        (f"hf://{REPOSITORY}", (401, ""), CheckpointError, "says 401 Unauthorized: log in"),
        (f"hf://{REPOSITORY}", (403, ""), CheckpointError, "says 403 Forbidden: log in"),
        (f"hf://{REPOSITORY}", (429, ""), CheckpointError, "says 429.*try again later"),
        (
            f"hf://{REPOSITORY}",
            (503, ""),
            CheckpointError,
            "cannot be reached.*503.*--weights FILE",
        ),
        ("hf://flowers", None, UsageError, "no place on the Hugging Face hub: hf://OWNER/REPO"),
        (f"hf://{REPOSITORY}@", None, UsageError, "no place on the Hugging Face hub"),
        (f"hf://{REPOSITORY}/../x", None, UsageError, "no place on the Hugging Face hub"),
    ],
)
def test_what_cannot_be_had_is_one_line_that_says_what_to_do(
    hub: Hub,
    capfd: pytest.CaptureFixture[str],
    address: str,
    refusal: tuple[int, str] | None,
    error: type[EffnetEdgeError],
    says: str,
) -> None:
    hub.refusal = refusal

    with pytest.raises(error, match=says) as caught:
        load_flowers(address)

    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("lose_the_network", [take_away_the_network, go_offline])
def test_without_a_network_the_cache_serves_what_it_has(
    monkeypatch: pytest.MonkeyPatch, lose_the_network: Callable[[pytest.MonkeyPatch], None]
) -> None:
    fetched = fetch_from_hub(HubAddress(REPOSITORY))
    lose_the_network(monkeypatch)

    assert fetch_from_hub(HubAddress(REPOSITORY)) == fetched
    with pytest.raises(CheckpointError, match=r"cannot be reached \(.*cache.*--weights FILE") as no:
        fetch_from_hub(HubAddress("someone/else"))
    assert "\n" not in str(no.value)


def test_without_a_network_a_config_that_was_never_fetched_is_not_taken_for_absent(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_flowers(hub)
    fetch_from_hub(HubAddress(REPOSITORY)).path.with_name("config.json").unlink()
    take_away_the_network(monkeypatch)

    with pytest.raises(CheckpointError, match="cannot be reached"):
        fetch_from_hub(HubAddress(REPOSITORY, COMMIT))


@pytest.mark.usefixtures("hub")
def test_a_cache_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))

    with pytest.raises(CheckpointError, match="file: the downloaded weights.*set HF_HOME"):
        fetch_from_hub(HubAddress(REPOSITORY))


@pytest.mark.usefixtures("hub")
def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)

    with pytest.raises(CheckpointError, match="No space left.*free some space, or set HF_HOME"):
        fetch_from_hub(HubAddress(REPOSITORY))


def test_a_missing_library_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(UsageError, match=r"huggingface_hub.*pip install 'effnet-edge\[export\]'"):
        fetch_from_hub(HubAddress(REPOSITORY))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("hf://timm/b0.in1k", ("timm/b0.in1k", "main", None)),
        ("hf://models/timm/b0@v1", ("timm/b0", "v1", None)),
        ("hf-hub:timm/b0@a%2Fb", ("timm/b0", "a/b", None)),
        ("hf://timm/b0@refs/pr/3/a/b.pth", ("timm/b0", "refs/pr/3", "a/b.pth")),
        (f"hf://timm/b0@{COMMIT}/model.safetensors", ("timm/b0", COMMIT, "model.safetensors")),
    ],
)
def test_addresses_are_read_and_written(written: str, meant: tuple[str, str, str | None]) -> None:
    address = parse_hub_address(written)

    assert (address.repository, address.revision, address.file) == meant
    assert parse_hub_address(str(address)) == address
