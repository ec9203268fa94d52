"""Weights from the Hugging Face hub: what comes with them, and how they are fetched."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch
from hub_server import (
    COMMIT,
    CONTENT,
    REPOSITORY,
    Hub,
    go_offline,
    load_flowers,
    publish_flowers,
)
from huggingface_hub import constants
from tiny_bundles import PREPROCESSING, manifest

from effnet_edge.bundle import OutputSpec
from effnet_edge.model.provenance import Weights
from effnet_edge.model.remote.hub import HubAddress, fetch_from_hub, parse_hub_address
from effnet_export.origin import load_source_of


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


def test_pytorch_files_are_taken_where_there_are_no_safetensors(hub: Hub) -> None:
    hub.files = {"pytorch_model.bin": CONTENT, "old/model.pth": b"old" * 99}

    assert fetch_from_hub(HubAddress(REPOSITORY)).address.file == "pytorch_model.bin"

    named = fetch_from_hub(parse_hub_address(f"hf://{REPOSITORY}@v1/old/model.pth"))
    assert str(named.address) == f"hf://{REPOSITORY}@{COMMIT}/old/model.pth"
    assert named.path.read_bytes() == b"old" * 99
    assert named.licence is None


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
