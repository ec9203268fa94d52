"""The Hugging Face hub and its cache where something is wrong: damage, refusals, no network."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

import huggingface_hub
import pytest
from hub_server import (
    COMMIT,
    CONTENT,
    REPOSITORY,
    Hub,
    go_offline,
    lfs_name,
    load_flowers,
    publish_flowers,
    take_away_the_network,
)
from huggingface_hub import constants

from effnet_edge.errors import CheckpointError, EffnetEdgeError, UsageError
from effnet_edge.model.remote.hub import HubAddress, fetch_from_hub

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
