"""Faults planted in an exported B0 are found at their node; sound models have none."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import onnx
import openvino
import pytest
import torch
from exported_b0 import RESOLUTION, exported_b0
from later import quick
from onnxruntime import quantization
from planted_faults import FLOAT_FAULTS, INTEGER_FAULTS, Planted, activation_pairs

from effnet_edge.errors import UsageError
from effnet_edge.graphs.editing import copied
from effnet_edge.graphs.tensors import set_value, value
from effnet_edge.machine import int8_overflows
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import Source, load_source
from effnet_edge.parity.inside.bisection import find_faults
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_edge.parity.models.openvino import OpenVinoClassifier
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.runtime.openvino_core import openvino_core

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from effnet_edge.parity.inside.bisection import Fault
    from effnet_edge.pictures.image import Preprocessing

PLACES = 3


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Feature maps this small take longer to share between threads than to compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def source() -> Source:
    return load_source(NetworkRequest("b0", resolution=RESOLUTION))


@pytest.fixture(scope="module")
def preprocessing(source: Source) -> Preprocessing:
    return source.preprocessing


@pytest.fixture(scope="module")
def network(source: Source) -> TorchClassifier:
    return TorchClassifier(fold_batch_norm(source.network), source.preprocessing)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return exported_b0(tmp_path_factory)


@pytest.fixture(scope="module")
def photos(preprocessing: Preprocessing) -> np.ndarray:
    return np.concatenate([pixels for pixels, _ in EmbeddedPhotos(32).batches(preprocessing, 32)])


@pytest.fixture(scope="module")
def quantized(
    exported: onnx.ModelProto, photos: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> onnx.ModelProto:
    """In INT8 with Q/DQ pairs, by onnxruntime's own quantizer."""
    folder = tmp_path_factory.mktemp("quantized")

    class Reader(quantization.CalibrationDataReader):
        batches = iter([photos])

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"image": batch}

    onnx.save(exported, folder / "float.onnx")
    quantization.quantize_static(
        folder / "float.onnx",
        folder / "int8.onnx",
        Reader(),
        op_types_to_quantize=["Conv"],
        per_channel=True,
        reduce_range=int8_overflows(),
    )
    return onnx.load(folder / "int8.onnx")


def saved_for_openvino(model: onnx.ModelProto, path: Path, *, fp16_weights: bool = False) -> Path:
    converted = openvino_core().read_model(model.SerializeToString())
    openvino.save_model(converted, path, compress_to_fp16=fp16_weights)
    return path


def planted_faults() -> list[tuple[str, int]]:
    return [(kind, place) for kind in (*FLOAT_FAULTS, *INTEGER_FAULTS) for place in range(PLACES)]


@pytest.fixture(scope="module")
def searched(
    network: TorchClassifier,
    exported: onnx.ModelProto,
    quantized: onnx.ModelProto,
    photos: np.ndarray,
    preprocessing: Preprocessing,
) -> dict[tuple[str, int], tuple[Planted, Fault | None]]:
    """What was planted, and what was found."""
    sound = OnnxClassifier(quantized, preprocessing, "sound Q/DQ")
    results = {}
    for seed, (kind, place) in enumerate(planted_faults()):
        random = np.random.default_rng(seed)
        if kind in FLOAT_FAULTS:
            reference, planted = network, FLOAT_FAULTS[kind](exported, random)
        else:
            reference, planted = sound, INTEGER_FAULTS[kind](quantized, random)
        candidate = OnnxClassifier(planted.model, preprocessing, "broken")
        batch = photos[random.choice(len(photos), 2, replace=False)]
        results[kind, place] = planted, find_faults(reference, candidate, batch).first
    return results


@pytest.mark.sample
@pytest.mark.parametrize("fault", planted_faults(), ids=lambda fault: f"{fault[0]} {fault[1]}")
def test_each_planted_fault_is_detected_and_explained(searched, fault) -> None:
    planted, found = searched[fault]

    assert found is not None
    assert found.kind in planted.kinds, str(found)


@pytest.mark.sample
def test_nearly_all_are_located_at_the_very_node(searched) -> None:
    elsewhere = {
        fault: (planted.node, str(found))
        for fault, (planted, found) in searched.items()
        if found is None or found.node != planted.node
    }

    assert len(searched) >= 30
    assert len(elsewhere) <= 2, elsewhere


@pytest.mark.sample
@pytest.mark.parametrize(
    "fault",
    quick([("shifted zero point", 0)], product(INTEGER_FAULTS, range(PLACES))),
    ids=lambda fault: f"{fault[0]} {fault[1]}",
)
def test_a_wrong_grid_is_located_in_another_engine(
    fault: tuple[str, int], quantized: onnx.ModelProto, photos, preprocessing, tmp_path: Path
) -> None:
    """OpenVINO gives the nodes that round names of its own."""
    kind, place = fault
    planted = INTEGER_FAULTS[kind](quantized, np.random.default_rng(place))
    path = saved_for_openvino(planted.model, tmp_path / "broken.xml")
    candidate = OpenVinoClassifier(path, preprocessing, precision="fp32")

    found = find_faults(OnnxClassifier(quantized, preprocessing), candidate, photos[:2]).first

    assert found is not None
    assert (found.node, found.kind) == (planted.node, *planted.kinds)


@pytest.fixture(scope="module")
def sound_models(
    exported: onnx.ModelProto,
    quantized: onnx.ModelProto,
    network: TorchClassifier,
    preprocessing: Preprocessing,
    tmp_path_factory: pytest.TempPathFactory,
):
    """Pairs that are the same model, each made by other tools than the other."""
    folder = tmp_path_factory.mktemp("sound")

    integers = OnnxClassifier(quantized, preprocessing)
    float_ir = saved_for_openvino(exported, folder / "float.xml")
    half_ir = saved_for_openvino(exported, folder / "half.xml", fp16_weights=True)
    int8_ir = saved_for_openvino(quantized, folder / "int8.xml")
    return {
        "ONNX": (network, OnnxClassifier(exported, preprocessing)),
        "OpenVINO": (network, OpenVinoClassifier(float_ir, preprocessing, precision="fp32")),
        "BF16": (network, _in_bf16(float_ir, preprocessing)),
        "FP16 weights": (network, OpenVinoClassifier(half_ir, preprocessing, precision="fp32")),
        "Q/DQ": (integers, OnnxClassifier(quantized, preprocessing)),
        "INT8": (integers, OpenVinoClassifier(int8_ir, preprocessing, precision="fp32")),
        "PyTorch": (network, network),
    }


def _in_bf16(path: Path, preprocessing: Preprocessing) -> OpenVinoClassifier | None:
    """None where OpenVINO would compute in something else."""
    try:
        return OpenVinoClassifier(path, preprocessing, precision="bf16")
    except UsageError:
        return None


@pytest.mark.sample
@pytest.mark.parametrize("seed", quick([1], range(5)))
@pytest.mark.parametrize(
    "pair", ["ONNX", "OpenVINO", "BF16", "FP16 weights", "Q/DQ", "INT8", "PyTorch"]
)
def test_sound_models_have_no_fault(sound_models, photos: np.ndarray, pair: str, seed: int) -> None:
    reference, candidate = sound_models[pair]
    if candidate is None:
        pytest.skip("this processor has no BF16")
    random = np.random.default_rng(1000 + seed)
    batch = photos[random.choice(len(photos), 1 + seed, replace=False)]

    findings = find_faults(reference, candidate, batch)

    assert [str(fault) for fault in findings.faults] == []
    assert findings.nodes > 80


@pytest.mark.sample
def test_a_far_too_small_grid_is_seen_against_the_float_network(
    network: TorchClassifier, quantized: onnx.ModelProto, photos, preprocessing: Preprocessing
) -> None:
    pair = next(n for n in activation_pairs(quantized) if n.input[0] == "stages.3.1.se")
    broken = copied(quantized)
    set_value(broken.graph, pair.input[1], value(broken.graph, pair.input[1]) / 16)

    found = find_faults(network, OnnxClassifier(broken, preprocessing), photos[:2]).faults

    assert ("saturation", pair.output[0]) in {(fault.kind, fault.node) for fault in found}
