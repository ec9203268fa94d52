"""Holds an engine that was just built to the known answers, before anybody runs it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from effnet_edge.runtime.backend import EngineSpec, load_backend
from effnet_edge.runtime.batches import in_batches
from effnet_edge.runtime.entrance import Entrance
from effnet_edge.runtime.interface import interface_of
from effnet_edge.runtime.known_answers import check_engine
from effnet_edge.runtime.tensorrt.fitting import runs_here

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from effnet_edge.bundle import Bundle, EngineRecord


def checked(bundle: Bundle, record: EngineRecord, plan: bytes, gpu: int) -> EngineRecord:
    """The record with how the engine answered; as it was where that is not known or GPU `gpu` is
    not one that it is for.

    Raises:
        BackendError: the engine cannot be run, or answers otherwise than it may.
        BundleError: it is not what the manifest says, or the bundle's answers are none.
    """
    if bundle.manifest.answers is None or not runs_here(record, gpu):
        return record
    manifest = replace(bundle.manifest, batch=record.batch)
    spec = EngineSpec(
        model_path=bundle.path / record.file,
        model_precision=manifest.precision,
        engine=record,
        device=f"GPU:{gpu}",
        read=lambda _: plan,
        interface=interface_of(manifest),
    )
    entrance = Entrance(manifest.variant, manifest, takes_device_arrays=False)
    with closing(load_backend(manifest.target, spec)) as backend:

        def infer(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            batch = entrance.accept(pixels)
            return in_batches(backend.infer, batch, manifest.batch, manifest.output.classes)

        return replace(record, check=check_engine(bundle, manifest, infer))
