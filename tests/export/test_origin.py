"""The network of a bundle, found again from what its manifest says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from tiny_bundles import manifest

from effnet_edge.bundle import OutputSpec
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.model.variants import VARIANTS
from effnet_export.origin import load_source_of

if TYPE_CHECKING:
    from pathlib import Path


def test_one_network_of_a_file_of_two_is_found_again(tmp_path: Path) -> None:
    file = tmp_path / "both.pth"
    networks = {}
    for seed, name in enumerate(("student", "teacher")):
        torch.manual_seed(seed)
        networks[name] = EfficientNet(VARIANTS["b0"], num_classes=3, resolution=32).state_dict()
    torch.save(networks, file)
    chosen = load_source(NetworkRequest("b0", f"{file}#teacher", resolution=32))
    exported = manifest(
        variant="b0",
        weights=chosen.weights,
        preprocessing=chosen.preprocessing,
        output=OutputSpec("logits", 3),
    )

    found = load_source_of(exported).network.state_dict()

    assert all(torch.equal(found[name], each) for name, each in networks["teacher"].items())
