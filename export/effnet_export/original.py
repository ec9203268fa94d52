"""The PyTorch network that a bundle was made from, to be timed beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.bench import Original
from effnet_edge.bundle import Bundle
from effnet_edge.extras import needed_for

if TYPE_CHECKING:
    from pathlib import Path


def open_original(name: str, bundle: Path, weights: str | None, threads: int | None) -> Original:
    """Load the network with the weights that the bundle's manifest tells.

    Args:
        name: what its row is called.
        weights: its checkpoint file, if that is not where the manifest says.
        threads: PyTorch's for the whole process; its own choice without.

    Raises:
        UsageError, CheckpointError: there is no such bundle, or its weights are not where they
            were, or are others.
        BundleError: it is damaged.
        BackendError: PyTorch is not installed.
    """
    manifest = Bundle.load(bundle).manifest
    with needed_for("timing PyTorch", "export", f"or leave {name} out"):
        import torch

        from effnet_edge.parity.models.torch import TorchClassifier
        from effnet_export.origin import load_source_of
    source = load_source_of(manifest, weights)
    if threads is not None:
        torch.set_num_threads(threads)
    network = TorchClassifier(source.network, source.preprocessing)
    ran_on = f"PyTorch {torch.__version__} on CPU"
    return Original(name, ran_on, network.execution_precision, network.infer)
