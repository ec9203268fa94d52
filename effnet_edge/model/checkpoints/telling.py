"""What a checkpoint tells of its network before there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from effnet_edge.errors import CheckpointError
from effnet_edge.labels import IMAGENET_CLASSES
from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES, NamingScheme, translate
from effnet_edge.model.checkpoints.timm_config import read_timm_config
from effnet_edge.model.network import BATCH_NORM_EPS, EfficientNet
from effnet_edge.model.preprocessing import AS_REFERENCE, PixelConventions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor

    from effnet_edge.model.checkpoints.found import FoundCheckpoint
    from effnet_edge.model.variants import Padding, Variant

NAMED_AT_MOST = 3
PYTORCH_EPS = 1e-5
STEM = "stem.conv.weight"
CLASSIFIER = "classifier.weight"


@dataclass(frozen=True)
class CheckpointFacts:
    """How to build the network that a checkpoint is of.

    Attributes:
        scheme: whose names its tensors have.
        in_channels: of the stem; None where no tensor tells.
        classifier_rows: outputs of the classifier; None where there is no classifier.
        padding: what it was trained with; None where nothing tells.
        symmetric_eps: batch norm's ε where the padding is symmetric.
        pixels: what its code base does to pictures.
    """

    scheme: NamingScheme
    in_channels: int | None = None
    classifier_rows: int | None = None
    padding: Padding | None = None
    symmetric_eps: float = BATCH_NORM_EPS
    pixels: PixelConventions = AS_REFERENCE

    @property
    def num_classes(self) -> int | None:
        """The classifier's outputs less a "background" that ImageNet's classes do not have."""
        with_background = self.scheme.has_background and (
            self.classifier_rows == IMAGENET_CLASSES + 1
        )
        return IMAGENET_CLASSES if with_background else self.classifier_rows

    def batch_norm_eps(self, padding: Padding) -> float:
        """The ε of a network with that padding."""
        return self.symmetric_eps if padding == "symmetric" else BATCH_NORM_EPS


def tell(found: FoundCheckpoint, variant: Variant) -> CheckpointFacts:
    """Read off a checkpoint of the variant how to build its network.

    What the checkpoint or a timm `config.json` beside it says outweighs the registry, and that
    outweighs what its code base always does.

    Raises:
        CheckpointError: the naming is unknown, or the config cannot be followed.
    """
    tensors, own_names = found.checkpoint.tensors, _tensor_names(variant)
    scheme = _detect_scheme(own_names, tensors, found.name)
    config = read_timm_config(found.path) if scheme.has_timm_config and found.path else None
    theirs = translate(own_names, scheme)
    has_pytorch_eps = variant.name in scheme.pytorch_eps
    return CheckpointFacts(
        scheme,
        in_channels=_size(tensors.get(theirs[STEM]), axis=1, of=4),
        classifier_rows=_size(tensors.get(theirs[CLASSIFIER]), axis=0, of=2),
        padding=(config.padding if config else found.padding) or scheme.padding,
        symmetric_eps=PYTORCH_EPS if has_pytorch_eps else BATCH_NORM_EPS,
        pixels=found.checkpoint.pixels
        or (config.pixels if config else found.pixels)
        or scheme.pixels.get(variant.name, AS_REFERENCE),
    )


def _size(tensor: Tensor | None, axis: int, of: int) -> int | None:
    """Of that axis; None where the tensor is missing or does not have so many axes."""
    return tensor.shape[axis] or None if tensor is not None and tensor.dim() == of else None


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _tensor_names(variant: Variant) -> list[str]:
    """Ours, of the variant with a classifier, without making the tensors."""
    with torch.device("meta"):
        return list(EfficientNet(variant).state_dict())


def _detect_scheme(
    own_names: Collection[str], state: Mapping[str, Tensor], origin: str
) -> NamingScheme:
    """The scheme that explains the most of the checkpoint's tensors, with the fewest of its own."""

    def explained(scheme: NamingScheme) -> tuple[int, int]:
        theirs = set(translate(own_names, scheme).values())
        return len(theirs & state.keys()), -len(theirs)

    best = max(NAMING_SCHEMES, key=explained)
    if explained(best)[0] == 0:
        raise CheckpointError(
            f"{origin} is not an EfficientNet checkpoint of a known naming "
            f"({', '.join(scheme.name for scheme in NAMING_SCHEMES)}): "
            f"its tensors are {some(sorted(state))}"
        )
    return best
