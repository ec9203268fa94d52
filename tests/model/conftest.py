"""The Hugging Face hub, played by a server of our own."""

from __future__ import annotations

import threading
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import torch
from hub_server import CARD, CONTENT, Handler, Hub, answer_from
from huggingface_hub import constants

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Networks start with the same weights in every run: by chance, some amplify rounding."""
    torch.manual_seed(0)
