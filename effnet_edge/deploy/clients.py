"""What clients of a served model do themselves, whichever of its versions answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effnet_edge.bundle import Manifest


def client_side(manifest: Manifest) -> dict[str, Any]:
    """How pictures are prepared and outputs are read, by the words of a manifest."""
    preprocessing = manifest.preprocessing
    done = {
        name: getattr(preprocessing, name) for name in ("crop_fraction", "interpolation", "fit")
    }
    if manifest.input.dtype != "uint8":
        done |= {"mean": preprocessing.mean, "std": preprocessing.std}
    elif preprocessing.fit == "pad":
        done["mean"] = preprocessing.mean  # the colour of the borders; the rest is in the graph
    labels = None if manifest.labels is None else manifest.files[manifest.labels].sha256
    return {**done, "labels": labels, "kind of output": manifest.output.kind}
