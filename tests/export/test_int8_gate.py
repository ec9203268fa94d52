"""The limits of INT8: faults that were let through once, and roundings that are none."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from effnet_edge.errors import GateError
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import Source, load_source
from effnet_edge.parity import Gate
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_export.gate import INT8, ParityGate
from effnet_export.pipeline import export_bundle
from effnet_export.request import ExportRequest

if TYPE_CHECKING:
    from effnet_edge.model.network import EfficientNet

ROOT = Path(__file__).parents[2]
FORMER = {"single-label": Gate(min_sqnr_db=8.0, max_kl=0.2)}


@pytest.fixture(scope="module")
def source() -> Source:
    return load_source(NetworkRequest("b0"))


@pytest.fixture(scope="module")
def gate(source: Source) -> ParityGate:
    return ParityGate(
        TorchClassifier(source.network, source.preprocessing),
        EmbeddedPhotos(4),
        source.preprocessing,
    )


@pytest.fixture
def network(source: Source) -> EfficientNet:
    return deepcopy(fold_batch_norm(source.network))


def clipped(share: float) -> object:
    """A range that ends at a share of the largest value, as a wrong scale does."""

    def clip(_: torch.nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (given[0].clamp(max=share * float(given[0].max())),)

    return clip


@pytest.mark.parametrize(("layer", "share"), [("stem.conv", 0.5), ("stages.6.0.se.expand", 0.3)])
def test_a_clipped_range_is_stopped_that_the_former_limits_let_through(
    source: Source, gate: ParityGate, network: EfficientNet, layer: str, share: float
) -> None:
    network.get_submodule(layer).register_forward_pre_hook(clipped(share))
    candidate = TorchClassifier(network, source.preprocessing, "clipped")
    gate.check("engine", candidate, FORMER)
    with pytest.raises(GateError, match="engine changed the model: SQNR"):
        gate.check("engine", candidate, INT8)


def test_weights_of_seven_bits_pass(
    source: Source, gate: ParityGate, network: EfficientNet
) -> None:
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                scales = module.weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-9) / 64
                module.weight.copy_((module.weight / scales).round() * scales)
    gate.check("engine", TorchClassifier(network, source.preprocessing, "rounded"), INT8)


def test_the_limits_are_those_that_the_page_tells() -> None:
    page = (ROOT / "docs/quantization.md").read_text(encoding="utf-8")
    told = dict(
        re.findall(r"^\| (single-label|multi-label|regression|features) \| `(.*)` \|$", page, re.M)
    )
    assert told == {kind: limits.describe(kind) for kind, limits in INT8.items()}


@pytest.mark.slow
def test_a_failed_gate_says_what_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = {"single-label": Gate(min_sqnr_db=90.0)}
    for module in ("targets", "advice"):
        monkeypatch.setattr(f"effnet_export.{module}.INT8", strict)
    network = NetworkRequest("b0", weights="random", resolution=32, num_classes=3)
    request = ExportRequest(
        network,
        target="onnxruntime",
        precision="int8",
        calibration_size=2,
        output=tmp_path / "b",
    )
    with pytest.raises(GateError, match=r"try more pictures .*--max-kl 0.02"):
        export_bundle(request)
