"""Bundles of several graphs for tests: the tiny model with more or less noise in its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper
from tiny_bundles import LABELS, manifest, tiny_model

from effnet_edge.bundle import (
    BatchRange,
    Bundle,
    BundleWriter,
    Choice,
    Contender,
    Graph,
    Measured,
    StageParity,
)
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_export.answering import write_answers
from effnet_export.sbom import write_sbom

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx

NOISE = {"fp16": 1e-4, "int8-budget-50": 0.02, "int8": 0.05}
BATCH = BatchRange(1, 2, 4)


def noisy_model(name: str) -> onnx.ModelProto:
    model = tiny_model(batch="N")
    (kernel,) = (each for each in model.graph.initializer if each.name == "kernel")
    values = numpy_helper.to_array(kernel)
    noise = np.random.default_rng(1).normal(size=values.shape).astype(np.float32)
    kernel.CopyFrom(numpy_helper.from_array(values + np.float32(NOISE[name]) * noise, "kernel"))
    return model


def loss_of(name: str) -> StageParity:
    measures = {
        "kl": Measured(NOISE[name] / 10, at_most=0.01),
        "top1_agreement": Measured(1 - NOISE[name]),
    }
    return StageParity("held out", "torch", name, "INT8 (simulated)", 16, measures)


def write_open(
    path: Path,
    target: str = "tensorrt",
    graphs: Mapping[str, onnx.ModelProto] | None = None,
    network: onnx.ModelProto | None = None,
    **changes: Any,
) -> Bundle:
    """An open bundle; `network` gives the exact answers, that without noise if None."""
    graphs = graphs or {name: noisy_model(name) for name in NOISE}
    with BundleWriter(path) as writer:
        contenders = []
        for name, model in graphs.items():
            (writer.staging / f"model-{name}.onnx").write_bytes(model.SerializeToString())
            graph = Graph(f"model-{name}.onnx", None, (loss_of(name),))
            precision = name.partition("-")[0]
            contenders.append(Contender(name, f"{name} is it", precision, loss_of(name), graph))
        first = contenders[0]
        assert first.graph is not None
        described = manifest(
            target=target,
            model=first.graph.model,
            precision=first.precision,
            parity=first.graph.parity,
            batch=BATCH,
            choice=Choice(tuple(contenders)),
            **changes,
        )
        exact = OnnxClassifier(network or tiny_model(batch="N"), described.preprocessing)
        simulated = {
            each.graph.model: (
                each.precision,
                OnnxClassifier(graphs[each.name], described.preprocessing),
            )
            for each in contenders
            if each.graph is not None
        }
        described = write_answers(described, exact, simulated, writer.staging)
        writer.write_labels(LABELS)
        write_sbom(described, writer.staging)
        return writer.commit(described, LABELS)
