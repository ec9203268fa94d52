"""What modules of one's own take of torchvision's network has other names than the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from test_choosing import NETWORK, classifier, is_original, saved, state

from effnet_edge.errors import UsageError
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def taken(backbone: str, head: str, scale: float = 1.0) -> dict[str, Tensor]:
    """The features and the classifier under other names."""
    whole = state("torchvision", scale)
    return {
        name.replace("features.", backbone, 1).replace("classifier.1.", head, 1): each
        for name, each in whole.items()
    }


@pytest.mark.parametrize(
    ("backbone", "head"),
    [("backbone.", "fc."), ("0.", "3."), ("module.net.backbone.0.", "module.net.fc.1.")],
)
def test_its_features_are_found_by_any_name(tmp_path: Path, backbone: str, head: str) -> None:
    path = saved(tmp_path / "a.pth", taken(backbone, head))

    assert is_original(classifier(path))
    network = load_source(NetworkRequest("b0", path)).network
    assert (network.padding, network.batch_norm_eps) == ("symmetric", 1e-5)


def test_one_network_by_its_whole_names_is_not_two(tmp_path: Path) -> None:
    assert is_original(classifier(saved(tmp_path / "a.pth", taken("features.", "classifier.1."))))


def test_of_two_of_them_the_user_chooses(tmp_path: Path) -> None:
    one, other = taken("a.0.", "a.fc."), taken("b.0.", "b.fc.", scale=0.5)
    path = saved(tmp_path / "two.pth", one | other)

    with pytest.raises(UsageError, match=r"holds 2 networks \(a\.0, b\.0\)"):
        classifier(path)
    assert torch.equal(classifier(f"{path}#b"), NETWORK.classifier.weight * 0.5)
