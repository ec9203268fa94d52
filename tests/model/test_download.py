"""Named weights from a server of our own: whole, interrupted, damaged, absent."""

from __future__ import annotations

import hashlib
import io
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import torch
from reference_models import geffnet_model
from torchvision_source import torchvision_weights

from effnet_edge.errors import CheckpointError
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.preprocessing import CENTRED
from effnet_edge.model.remote.download import cache_directory, fetch
from effnet_edge.model.remote.registry import NAMED_WEIGHTS, Download, weight_names
from effnet_edge.model.variants import VARIANTS, Published
from effnet_edge.model.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = bytes(range(256)) * 4096
PREFIX = hashlib.sha256(CONTENT).hexdigest()[:8]


@dataclass
class Server:
    """What it sends, and what it was asked for.

    `stops_after`: bytes of a body after which the connection is closed, for the next answer.
    """

    url: str
    content: bytes = CONTENT
    stops_after: int | None = None
    knows_ranges: bool = True
    ranges: list[str | None] = field(default_factory=list)

    def download(self, name: str = f"weights-{PREFIX}.pth") -> Download:
        return Download(f"{self.url}/{name}", None, Published(1.0, "nowhere"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("EFFNET_EDGE_CACHE", str(tmp_path / "cache"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith("/weights"):
                self.send_error(404)
                return
            asked = self.headers.get("Range")
            state.ranges.append(asked)
            begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if not state.knows_ranges:
                begin = 0
            elif begin >= len(state.content):
                self.send_error(416)
                return
            body = state.content[begin:]
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if state.stops_after is not None:
                body, state.stops_after = body[: state.stops_after], None
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{httpd.server_port}")
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield state
    httpd.shutdown()
    httpd.server_close()


def kept() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache_directory().iterdir()}


def test_a_file_is_fetched_once_and_its_progress_told(server: Server) -> None:
    told: list[tuple[int, int]] = []

    path = fetch(server.download(), lambda _, done, total: told.append((done, total)))

    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert fetch(server.download()) == path
    assert server.ranges == [None]
    assert kept().keys() == {path.name, f"{path.name}.sha256"}


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_an_interrupted_download_goes_on(server: Server, knows_ranges: bool) -> None:
    server.stops_after, server.knows_ranges = 300_000, knows_ranges
    with pytest.raises(CheckpointError, match=r"stopped after 300000 of 1048576 bytes.*by hand"):
        fetch(server.download())
    assert kept() == {f"weights-{PREFIX}.pth.part": CONTENT[:300_000]}

    assert fetch(server.download()).read_bytes() == CONTENT

    assert server.ranges == [None, "bytes=300000-"]


def test_a_part_of_something_else_is_fetched_anew(server: Server) -> None:
    cache_directory().mkdir()
    (cache_directory() / f"weights-{PREFIX}.pth.part").write_bytes(b"something else")

    assert fetch(server.download()).read_bytes() == CONTENT
    assert server.ranges == ["bytes=14-", None]


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 5])
def test_a_part_that_has_all_bytes_is_completed(server: Server, size: int) -> None:
    cache_directory().mkdir()
    (cache_directory() / f"weights-{PREFIX}.pth.part").write_bytes((CONTENT + b"extra")[:size])

    assert fetch(server.download()).read_bytes() == CONTENT


def test_a_damaged_file_in_the_cache_is_fetched_anew(server: Server) -> None:
    path = fetch(server.download())
    path.write_bytes(CONTENT[:-1] + b"\0")

    assert fetch(server.download()).read_bytes() == CONTENT


def test_other_content_never_appears_under_the_name(server: Server) -> None:
    server.content = b"<html>please log in</html>"

    with pytest.raises(CheckpointError, match=rf"not the file that was published.*{PREFIX}"):
        fetch(server.download())
    assert kept() == {f"weights-{PREFIX}.pth.part": b""}


def test_an_absent_file_and_an_absent_server_are_one_line_with_the_url(server: Server) -> None:
    with pytest.raises(CheckpointError, match="the server says 404") as caught:
        fetch(server.download(f"absent-{PREFIX}.pth"))
    assert server.url in str(caught.value)

    nobody = Download(f"http://127.0.0.1:9/weights-{PREFIX}.pth", None, Published(1.0, ""))
    with pytest.raises(CheckpointError, match=r"(?i)refused.*--weights FILE") as caught:
        fetch(nobody)
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_named(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EFFNET_EDGE_CACHE", str(tmp_path / "file"))

    with pytest.raises(CheckpointError, match=r"cannot be kept.*EFFNET_EDGE_CACHE"):
        fetch(server.download())


def test_two_who_ask_at_once_get_the_same_file(server: Server) -> None:
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(fetch(server.download()))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(paths) == 4
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert server.ranges == [None]


def test_what_the_registry_knows_goes_with_the_weights(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    torch.save(geffnet_model("b0", num_classes=3).state_dict(), buffer)
    server.content = buffer.getvalue()
    digest = hashlib.sha256(server.content).hexdigest()
    advprop = NAMED_WEIGHTS["b0"]["advprop"]
    file = replace(advprop, url=f"{server.url}/weights-{digest[:8]}.pth")
    monkeypatch.setitem(NAMED_WEIGHTS["b0"], "advprop", file)
    network = EfficientNet(VARIANTS["b0"], num_classes=3, resolution=32, padding="symmetric")

    origin = load_weights(network, "advprop")

    assert (origin.name, origin.source, origin.sha256) == ("advprop", file.url, digest)
    assert origin.licence == "Apache-2.0"
    assert (network.padding, origin.pixels.mean) == ("same", CENTRED)


def test_every_variant_has_weights_and_every_download_a_hash() -> None:
    assert NAMED_WEIGHTS.keys() == VARIANTS.keys()
    downloads = [
        file
        for files in NAMED_WEIGHTS.values()
        for file in files.values()
        if isinstance(file, Download)
    ]
    assert all(len(file.sha256_prefix) == 8 for file in downloads)
    assert len({file.url for file in downloads}) == len(downloads)
    assert all(weight_names(variant) for variant in VARIANTS)


def test_urls_are_those_that_geffnet_and_torchvision_publish() -> None:
    import geffnet

    theirs = set(geffnet.gen_efficientnet.model_urls.values())
    torchvisions = {each.url: each.top1 for each in torchvision_weights().values()}
    for variant, files in NAMED_WEIGHTS.items():
        for name, file in files.items():
            if not isinstance(file, Download):
                continue
            if name == "torchvision":
                assert file.published.top1 == torchvisions[file.url]
            elif not variant.startswith("v2"):  # those are timm's
                assert file.url in theirs
                assert f"tf_efficientnet_{variant}_" in file.url.replace("-", "_")


def test_the_whole_hash_is_kept_at_first_use_and_compared_ever_after(server: Server) -> None:
    path = fetch(server.download())
    pin = path.with_name(f"{path.name}.sha256")
    assert pin.read_text().strip() == hashlib.sha256(CONTENT).hexdigest()

    pin.write_text(PREFIX + "0" * 56)  # what another file of the same eight digits would have left
    with pytest.raises(CheckpointError, match="is not the file that was first downloaded"):
        fetch(server.download())

    pin.unlink()
    assert fetch(server.download()) == path
    assert pin.is_file()


def test_a_directory_in_the_files_place_is_told(server: Server) -> None:
    path = cache_directory() / server.download().file_name
    path.mkdir(parents=True)

    with pytest.raises(CheckpointError, match="cannot be read.*remove it"):
        fetch(server.download())
