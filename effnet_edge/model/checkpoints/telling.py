"""What a checkpoint tells of its network before there is one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from effnet_edge.errors import CheckpointError
from effnet_edge.labels import IMAGENET_CLASSES
from effnet_edge.model.checkpoints.choosing import CLASSIFIER, STEM, Network, choose
from effnet_edge.model.checkpoints.fixed_pads import (
    FixedPads,
    pads_at_own_size,
    pads_of_keras,
    pads_of_transformers,
)
from effnet_edge.model.checkpoints.naming import NamingScheme, translate
from effnet_edge.model.checkpoints.reading import reading
from effnet_edge.model.checkpoints.timm_config import read_timm_config
from effnet_edge.model.checkpoints.timm_training import read_timm_training
from effnet_edge.model.checkpoints.transformers_config import read_transformers_config
from effnet_edge.model.conventions import NOTHING_TOLD, ToldConventions, read_conventions
from effnet_edge.model.network import BATCH_NORM_EPS, PYTORCH_EPS, EfficientNet
from effnet_edge.model.preprocessing import AS_REFERENCE, PixelConventions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor

    from effnet_edge.model.checkpoints.config_reading import ConfigFacts
    from effnet_edge.model.checkpoints.entries import TensorEntry
    from effnet_edge.model.checkpoints.found import FoundCheckpoint
    from effnet_edge.model.conventions import Conventions
    from effnet_edge.model.variants import Padding, Variant
    from effnet_edge.size import Size

_CONFIGS = {"timm": read_timm_config, "transformers": read_transformers_config}


@dataclass(frozen=True)
class CheckpointFacts:
    """How to build the network that a checkpoint is of.

    Attributes:
        scheme: whose names its tensors have.
        tensors: the network's, by the scheme's names; those of layers that it has not are on the
            meta device.
        statistics: what the network normalizes its input with by itself, by their names.
        in_channels: of the stem; None where no tensor tells.
        classifier_rows: outputs of the classifier; None where there is no classifier.
        told: the conventions that the checkpoint, a config or the naming tells.
        usual_eps: what else batch norm's ε is with a padding, where that is known.
        pixels: what its code base does to pictures.
        config: what a `config.json` beside it or its training code says, which outweighs what the
            naming tells.
        fixed_pads: what it was padded with, where that did not follow the size of the picture.
    """

    scheme: NamingScheme
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    in_channels: int | None = None
    classifier_rows: int | None = None
    told: ToldConventions = NOTHING_TOLD
    usual_eps: Mapping[Padding, float] = field(default_factory=dict)
    pixels: PixelConventions = AS_REFERENCE
    config: ConfigFacts | None = None
    fixed_pads: FixedPads | None = None

    def check_padding(
        self, variant: Variant, size: Size, padding: Padding, *, is_asked_for: bool
    ) -> None:
        """See that a network of that size and padding is what the checkpoint was trained as.

        Args:
            is_asked_for: whether a person said the padding: then others are told, not refused.

        Raises:
            CheckpointError: it was padded otherwise.
        """
        if self.fixed_pads is not None:
            self.fixed_pads.check(variant, size, padding, is_asked_for=is_asked_for)

    @property
    def leaves_padding_open(self) -> bool:
        """Whether it is told neither here nor by what the code base always does."""
        return self.told.padding is None and not self.scheme.pads_unless

    @property
    def num_classes(self) -> int | None:
        """The classifier's outputs less a "background" that ImageNet's classes do not have."""
        with_background = self.scheme.has_background and (
            self.classifier_rows == IMAGENET_CLASSES + 1
        )
        return IMAGENET_CLASSES if with_background else self.classifier_rows

    def conventions(self, said: ToldConventions, otherwise: Conventions) -> Conventions:
        """Those of the network: what a person said, then what is told here, then `otherwise`."""
        told = said.over(self.told)
        usual = self.usual_eps.get(told.padding or otherwise.padding)
        return otherwise.where_told(told.over(ToldConventions(batch_norm_eps=usual)))


def tell(found: FoundCheckpoint, variant: Variant) -> CheckpointFacts:
    """Read off a checkpoint of the variant how to build its network.

    What the checkpoint or a timm `config.json` beside it says outweighs the registry, and that
    outweighs what its code base always does.

    Raises:
        CheckpointError: the naming is unknown, a tensor cannot be read, or the config cannot be
            followed.
        UsageError: there are several networks, or none with the prefix that was asked for.
    """
    own = _shapes(variant)
    network = choose(found, own)
    scheme, theirs = network.scheme, translate(own, network.scheme)
    tensors = _tensors(found.name, network)
    own_words = _own_words(found.name, tensors.pop(scheme.telling_tensor or "", None))
    in_channels = _size(tensors.get(theirs[STEM]), axis=1, of=4)
    head = theirs[f"{CLASSIFIER}.weight"]
    tensors |= _as_dense(head, tensors.get(head))
    classifier_rows = _size(tensors.get(head), axis=0)
    config = _config(found, scheme)
    if config is not None:
        config.check(variant.name, in_channels, classifier_rows)
    return CheckpointFacts(
        scheme,
        tensors,
        _load(found.name, network.statistics),
        in_channels=in_channels,
        classifier_rows=classifier_rows,
        told=_told(found, scheme, variant, own_words, config),
        usual_eps=_usual_eps(scheme, variant),
        pixels=_pixels(found, variant, scheme, config),
        config=config,
        fixed_pads=_fixed_pads(found, variant, scheme, config, theirs),
    )


def _config(found: FoundCheckpoint, scheme: NamingScheme) -> ConfigFacts | None:
    """What a `config.json` beside the checkpoint says, or what training code wrote into it."""
    if scheme.config is None or found.path is None:
        return None
    config = _CONFIGS[scheme.config](found.path)
    if config is None and scheme.config == "timm":
        config = read_timm_training(found.path, found.checkpoint.said)
    return config


def _told(
    found: FoundCheckpoint,
    scheme: NamingScheme,
    variant: Variant,
    own_words: ToldConventions,
    config: ConfigFacts | None,
) -> ToldConventions:
    if config is not None:
        own_words = own_words.over(
            ToldConventions(
                config.padding, config.batch_norm_eps, config.pooling, config.activation
            )
        )
    always = ToldConventions(padding=found.padding or scheme.padding)
    is_published = found.path is None
    if is_published or not scheme.is_configurable or config is not None:
        usual = ToldConventions(pooling="avg", activation=variant.family.activation)
        always = always.over(usual)
    return own_words.over(always)


def _usual_eps(scheme: NamingScheme, variant: Variant) -> dict[Padding, float]:
    """Of the code base for either padding; nothing where it builds networks of any."""
    if scheme.telling_tensor is not None:
        return {}
    has_pytorchs = variant.name in scheme.pytorch_eps
    return {
        "same": BATCH_NORM_EPS,
        "same-timm": BATCH_NORM_EPS,
        "symmetric": PYTORCH_EPS if has_pytorchs else BATCH_NORM_EPS,
    }


def _own_words(origin: str, tensor: Tensor | None) -> ToldConventions:
    """What a network of ours says of itself."""
    try:
        return NOTHING_TOLD if tensor is None else read_conventions(tensor)
    except CheckpointError as error:
        raise CheckpointError(f"{origin}: {error}") from None


def _pixels(
    found: FoundCheckpoint, variant: Variant, scheme: NamingScheme, config: ConfigFacts | None
) -> PixelConventions:
    pixels = (
        found.checkpoint.pixels
        or (config.pixels if config else found.pixels)
        or scheme.pixels.get(variant.name, AS_REFERENCE)
    )
    size = found.checkpoint.sizes.input
    return pixels if size is None else replace(pixels, resolution=size)


def _fixed_pads(
    found: FoundCheckpoint,
    variant: Variant,
    scheme: NamingScheme,
    config: ConfigFacts | None,
    theirs: Mapping[str, str],
) -> FixedPads | None:
    """Of what the checkpoint says itself, or a config beside it, or what its code base does."""
    if stated := found.checkpoint.sizes.pads:
        pads = pads_of_keras(found.name, variant, stated, theirs)
        return FixedPads(f"{found.name}: Keras, by the ZeroPadding2D layers of the model,", pads)
    if config is not None and config.centred_blocks is not None:
        blocks = list(config.centred_blocks)
        whose = f"{config.path}: transformers, with a depthwise_padding of {blocks},"
        return FixedPads(whose, pads_of_transformers(variant, blocks))
    if found.path is not None and scheme.pads_unless:
        whose = f"{found.name}: {scheme.name}"
        return FixedPads(whose, pads_at_own_size(variant), scheme.pads_unless)
    return None


def _tensors(origin: str, network: Network) -> dict[str, Tensor]:
    tensors = _load(origin, network.entries)
    if network.has_head_without_bias:
        weight = tensors[f"{network.scheme.modules[CLASSIFIER]}.weight"]
        bias = f"{network.scheme.modules[CLASSIFIER]}.bias"
        tensors[bias] = torch.zeros(len(weight), dtype=weight.dtype)
    foreign = torch.empty(0, device="meta")
    return tensors | dict.fromkeys(network.foreign, foreign)


def _load(origin: str, entries: Mapping[str, TensorEntry]) -> dict[str, Tensor]:
    tensors = {}
    for name, entry in entries.items():
        if entry.fault:
            raise CheckpointError(f"{origin}: tensor {name} {entry.fault}")
        with reading(origin):
            tensors[name] = entry.load()
    return tensors


def _as_dense(name: str, weight: Tensor | None) -> dict[str, Tensor]:
    """A convolution of one pixel reads pooled features as the dense layer of its numbers does."""
    if weight is None or weight.dim() != 4 or tuple(weight.shape[2:]) != (1, 1):
        return {}
    return {name: weight.flatten(1)}


def _size(tensor: Tensor | None, axis: int, of: int | None = None) -> int | None:
    """Of that axis; None where the tensor is missing, empty, or has another number of axes."""
    if tensor is None or not tensor.dim() or not tensor.numel():
        return None
    return tensor.shape[axis] if of in {None, tensor.dim()} else None


def _shapes(variant: Variant) -> dict[str, tuple[int, ...]]:
    """Of our tensors of the variant with a classifier, without making them."""
    with torch.device("meta"), _WithoutValues():
        return {
            name: tuple(tensor.shape) for name, tensor in EfficientNet(variant).tensors().items()
        }


class _WithoutValues(TorchFunctionMode):
    """Draws no random numbers: for tensors without memory, torch would first import for 2 s."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__module__", None) == nn.init.__name__:
            return None
        return func(*args, **(kwargs or {}))
