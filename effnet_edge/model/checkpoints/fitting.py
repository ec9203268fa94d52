"""A checkpoint's tensors put into its network, if all of them fit."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import torch

from effnet_edge.errors import CheckpointError
from effnet_edge.labels import IMAGENET_CLASSES
from effnet_edge.model.checkpoints.choosing import CLASSIFIER, some
from effnet_edge.model.checkpoints.naming import NamingScheme, translate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from effnet_edge.model.conventions import Conventions
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.model.variants import Variant


# Of torch.nn.utils: what a layer's weight is made of at each call.
_PARAMETRIZED = re.compile(r"(^|\.)parametrizations\.|_(orig|mask|g)$")
_READ = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def fill(
    network: EfficientNet,
    state: Mapping[str, Tensor],
    scheme: NamingScheme,
    origin: str,
    conventions: Conventions | None = None,
) -> None:
    """Give `network` the tensors of `state`, which are named as in `scheme`.

    Args:
        origin: what errors call the checkpoint.
        conventions: that the network computes with from then on; its own if None.

    Raises:
        CheckpointError: naming the first tensors that are missing, extra or of the wrong shape, or
            one of a type or with a value that no network here has.
    """
    own = network.tensors()
    theirs = translate(own, scheme)
    if network.output_kind == "features":
        state = _without_head(state, scheme, own)
    elif scheme.has_background:
        state = _without_background(state, scheme, network)
    _check_fit(own, theirs, state, scheme, origin, network.variant)
    values = {name: state[their_name] for name, their_name in theirs.items()}
    for name, value in values.items():
        if fault := _fault(name, value):
            raise CheckpointError(f"{origin}: tensor {theirs[name]} {fault}")
    if conventions is not None:
        network.set_conventions(conventions)
    if scheme.batch_norm_folded:
        values |= _identity_batch_norms(own, network.batch_norm_eps)
    network.load_state_dict(own | values)


def _fault(name: str, value: Tensor) -> str:
    """Why a tensor cannot be a network's, in words behind its name; empty where it can.

    Args:
        name: ours.
    """
    if value.is_meta or value.layout != torch.strided or value.dtype not in _READ:
        return (
            f"is {_kind(value)}, which is no plain tensor of float16, bfloat16, float32 or "
            "float64: convert it with .float() before saving"
        )
    if not torch.isfinite(value).all():
        return "holds NaN or infinity"
    if not torch.isfinite(value.float()).all():
        return (
            f"holds {float(value.abs().max()):.3g}, more than float32 can, in which networks "
            "compute here: the checkpoint is damaged"
        )
    if name.endswith(".running_var") and bool((value < 0).any()):
        return (
            f"holds {float(value.min()):.3g}, and no variance is below 0: the checkpoint is "
            "damaged, or something else lies under that name"
        )
    return ""


def _kind(tensor: Tensor) -> str:
    if tensor.is_meta:
        return "without values (on the meta device)"
    layout = "" if tensor.layout == torch.strided else f"{tensor.layout}, ".removeprefix("torch.")
    return layout + str(tensor.dtype).removeprefix("torch.")


def _without_head(
    state: Mapping[str, Tensor], scheme: NamingScheme, own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The checkpoint less what a feature extractor has no place for."""
    after = 2 + max(int(name.split(".")[1]) for name in own if name.startswith("stages."))
    modules = [
        module
        for module in ("head.conv", "head.bn", "classifier")
        if not any(name.startswith(f"{module}.") for name in own)
    ]
    head = tuple(f"{scheme.modules[module].format(after=after)}." for module in modules)
    return {name: tensor for name, tensor in state.items() if not name.startswith(head)}


def _without_background(
    state: Mapping[str, Tensor], scheme: NamingScheme, network: EfficientNet
) -> dict[str, Tensor]:
    """The checkpoint less the class before ImageNet's 1000, where the network has just these."""
    head = {f"{scheme.modules['classifier']}.{tensor}" for tensor in ("weight", "bias")}
    classes = network.output_size
    return {
        name: tensor[1:]
        if name in head and len(tensor) == classes + 1 == IMAGENET_CLASSES + 1
        else tensor
        for name, tensor in state.items()
    }


def _check_fit(
    own: Mapping[str, Tensor],
    theirs: Mapping[str, str],
    state: Mapping[str, Tensor],
    scheme: NamingScheme,
    origin: str,
    variant: Variant,
) -> None:
    expected = set(theirs.values())
    missing = [name for name in dict.fromkeys(theirs.values()) if name not in state]
    extra = [
        name for name in state if name not in expected and not name.endswith("num_batches_tracked")
    ]
    misshapen = [
        f"{theirs[name]} is {_shape(state[theirs[name]])} and should be {_shape(tensor)}"
        for name, tensor in own.items()
        if name in theirs and theirs[name] in state and state[theirs[name]].shape != tensor.shape
    ]
    problems = [
        f"{label} {some(names)}"
        for label, names in (("missing", missing), ("extra", extra), ("wrong shape:", misshapen))
        if names
    ]
    if problems:
        told = f"{origin} ({scheme.name} naming) does not fit {variant.name}: {'; '.join(problems)}"
        classifier = {theirs[name] for name in own if name.startswith(f"{CLASSIFIER}.")}
        lacks_others = bool(misshapen or set(missing) - classifier)
        raise CheckpointError(told + _advice(extra, bool(missing), lacks_others=lacks_others))


def _advice(extra: list[str], is_missing: bool, *, lacks_others: bool) -> str:
    """What helps, as far as the names tell."""
    if any(_PARAMETRIZED.search(name) for name in extra):
        return (
            ": save plain weights, after torch.nn.utils.parametrize.remove_parametrizations, "
            "prune.remove, remove_weight_norm or remove_spectral_norm"
        )
    if lacks_others:
        return ""
    if is_missing and extra:
        return (
            ": none of these alone is the classifier: leave in the file the one that is to be "
            "exported, or none, with --features"
        )
    if is_missing:
        return ": it has no classifier; --features exports what one would read"
    return (
        ": leave out of the file what changes no answer, or say which part of it is the network, "
        "--weights FILE#PREFIX"
    )


def _shape(tensor: Tensor) -> str:
    return "×".join(str(size) for size in tensor.shape) or "a scalar"


def _identity_batch_norms(own: Mapping[str, Tensor], eps: float) -> dict[str, Tensor]:
    """Batch norms that change nothing but add the folded bias: γ/√(σ²+ε) = 1 and μ = 0."""
    values = {}
    for name, tensor in own.items():
        if name.endswith("bn.weight"):
            values[name] = torch.full_like(tensor, math.sqrt(1 + eps))
        elif name.endswith("bn.running_mean"):
            values[name] = torch.zeros_like(tensor)
        elif name.endswith("bn.running_var"):
            values[name] = torch.ones_like(tensor)
    return values
