"""How packages are asked for the original, and what is told where they cannot be."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import geffnet
import pytest
from original_networks import geffnet_network
from originals_compared import compared, saved

from effnet_edge.errors import BackendError, GateError
from effnet_edge.model.preprocessing import CENTRED, IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from torch import nn


@pytest.fixture(scope="module")
def native() -> nn.Module:
    """Symmetric padding and PyTorch's epsilon."""
    return geffnet_network("efficientnet_b0")


class FakeTimm(ModuleType):
    """What is used of timm, with geffnet's networks in it: how it is asked, and its statistics."""

    def __init__(self, mean: tuple[float, ...]) -> None:
        super().__init__("timm")
        self.asked: dict[str, Any] = {}
        self._mean = mean

    def create_model(self, name: str, **arguments: Any) -> nn.Module:
        self.asked = {"name": name, **arguments}
        arguments.pop("global_pool", None)
        model = geffnet.create_model(name, **arguments)
        std = CENTRED if self._mean == CENTRED else IMAGENET_STD
        model.pretrained_cfg = {"mean": self._mean, "std": std}
        return model


def test_timm_normalizes_as_it_says_itself(tmp_path, native, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", FakeTimm(CENTRED))
    path = saved(native, tmp_path)

    with pytest.raises(GateError, match=r"--mean 0\.5,0\.5,0\.5"):
        compared(path, "timm:efficientnet_b0", padding="symmetric")

    said = compared(
        path, "timm:efficientnet_b0", padding="symmetric", mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    assert said.holds


def test_timm_gets_the_arguments_of_the_config_and_no_file_to_load(
    tmp_path, native, monkeypatch
) -> None:
    timm = FakeTimm(IMAGENET_MEAN)
    monkeypatch.setitem(sys.modules, "timm", timm)
    path = saved(native, tmp_path, {"pad_type": "", "checkpoint_path": "/etc/passwd"})

    assert compared(path, "timm").holds
    assert timm.asked == {
        "name": "efficientnet_b0",
        "pretrained": False,
        "in_chans": 3,
        "num_classes": 3,
        "pad_type": "",
    }


def test_a_package_that_is_not_installed_is_told(tmp_path, native, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)

    with pytest.raises(BackendError, match="needs timm, which is not installed: pip install timm"):
        compared(saved(native, tmp_path, {}), "timm")


def test_a_package_that_cannot_be_imported_is_told(tmp_path, native, monkeypatch) -> None:
    def broken(name: str) -> ModuleType:
        raise RuntimeError(f"operator {name}::nms does not exist\nand more")

    path = saved(native, tmp_path, {})
    monkeypatch.setattr(importlib, "import_module", broken)

    with pytest.raises(BackendError, match="cannot be imported .*timm::nms does not") as it:
        compared(path, "timm")
    assert "\n" not in str(it.value)
