"""Packages that EfficientNets come from: ONE row a package, which builds its network for itself.

What it builds and loads is its own affair: the tensors that it gets are those of the checkpoint by
its own names, and nothing of this project's network is in it. No package is imported before
somebody asks for it.
"""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from effnet_edge.errors import BackendError, EffnetEdgeError, UsageError, first_line
from effnet_edge.model.checkpoints.choosing import CLASSIFIER
from effnet_edge.pictures.image import normalize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from numpy.typing import NDArray

    from effnet_edge.model.checkpoints.telling import CheckpointFacts
    from effnet_edge.model.variants import Variant
    from effnet_edge.pictures.image import Preprocessing

    Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Wanted:
    """The network that a package is asked for.

    Attributes:
        model: the package's name for it.
        facts: the checkpoint, with its tensors.
        preprocessing: ours, whose mean and deviation are used where the package has none.
        keeps_pixels: whether a person said the mean or deviation, which then outweighs the
            package's.
        features: without the classifier.
    """

    model: str
    facts: CheckpointFacts
    preprocessing: Preprocessing
    keeps_pixels: bool
    features: bool


@dataclass(frozen=True)
class CodeBase:
    """A package.

    Attributes:
        name: what a person writes.
        module: what is imported.
        package: what pip installs.
        schemes: the namings of checkpoints whose tensors it takes.
        model: its name for a variant; None where the checkpoint does not tell which it is.
        example: names for a variant that a person could mean.
        build: a PyTorch network without weights.
        pixels: the mean and deviation that it would normalize with; None where it has none.
        build_for_size: the same network, padded for the size of the pictures, where people build it
            either way and `build` pads for another.
    """

    name: str
    module: str
    package: str
    schemes: tuple[str, ...]
    model: Callable[[Variant, CheckpointFacts], str | None]
    example: Callable[[Variant], str]
    build: Callable[[ModuleType, Wanted], torch.nn.Module]
    pixels: Callable[[ModuleType, Wanted, Any], tuple[Any, Any] | None] = lambda *_: None
    build_for_size: Callable[[ModuleType, Wanted], torch.nn.Module] | None = None

    def for_size(self) -> CodeBase | None:
        """The row that builds it so; None where that is not another network."""
        return self.build_for_size and replace(self, build=self.build_for_size)


def open_code_base(base: CodeBase, wanted: Wanted) -> tuple[str, Answer]:
    """What a person calls the network, and what gives its answers, float32 (N, classes), to pixels.

    Raises:
        UsageError: the package does not take such a checkpoint.
        BackendError: the package is not installed or cannot be imported, it has no such network, or
            its network does not take the tensors.
    """
    if wanted.facts.scheme.name not in base.schemes:
        raise UsageError(
            f"--against {base.name}: the checkpoint has the naming of {wanted.facts.scheme.name}, "
            f"and {base.name} takes that of {' or '.join(base.schemes)}"
        )
    module = _imported(base)
    with _their_errors(base):
        network = base.build(module, wanted).eval()
        _fill(network, wanted)
        told = None if wanted.keeps_pixels else base.pixels(module, wanted, network)
    preprocessing, whose = wanted.preprocessing, "pixels normalized as here"
    if told is not None and len(told[0]) == preprocessing.channels:
        mean, std = (tuple(map(float, values)) for values in told)
        preprocessing = replace(preprocessing, mean=mean, std=std)
        whose = "pixels normalized by its own mean and deviation"

    def answer(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with _their_errors(base), torch.inference_mode():
            given = torch.from_numpy(normalize(pixels, preprocessing))
            return np.asarray(network(given).numpy(), np.float32)

    return f"{base.name} {_version(base)}: {wanted.model}, {whose}", answer


def _imported(base: CodeBase) -> ModuleType:
    try:
        return importlib.import_module(base.module)
    except ModuleNotFoundError as error:
        raise BackendError(
            f"--against {base.name} needs {error.name}, which is not installed: "
            f"pip install {base.package}"
        ) from error
    except Exception as error:
        raise BackendError(
            f"--against {base.name}: {base.module} is installed and cannot be imported "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error


@contextmanager
def _their_errors(base: CodeBase) -> Iterator[None]:
    try:
        yield
    except EffnetEdgeError:
        raise
    except Exception as error:  # of a foreign package, of any class
        raise BackendError(
            f"--against {base.name}: {base.module} failed "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error


def _fill(network: torch.nn.Module, wanted: Wanted) -> None:
    """Give it the checkpoint's tensors, by their own names; every one must be there and fit."""
    head = wanted.facts.scheme.modules[CLASSIFIER]
    tensors = dict(wanted.facts.tensors)
    if wanted.features:
        network.set_submodule(head, torch.nn.Identity())
        tensors = {name: each for name, each in tensors.items() if not name.startswith(f"{head}.")}
    found = network.load_state_dict(tensors, strict=False)
    missing = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or found.unexpected_keys:
        raise BackendError(
            f"--against: {wanted.model} has other tensors than the checkpoint: "
            f"{len(missing)} are missing and {len(found.unexpected_keys)} too many, such as "
            f"{[*missing, *found.unexpected_keys][0]}"
        )


def _version(base: CodeBase) -> str:
    try:
        return metadata.version(base.package)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _classes(wanted: Wanted) -> dict[str, int]:
    rows = wanted.facts.classifier_rows
    return {} if rows is None else {"num_classes": rows}


def _told_architecture(_variant: Variant, facts: CheckpointFacts) -> str | None:
    """Ported from TensorFlow or not: only a config tells the two apart."""
    return facts.config.architecture if facts.config else None


def _arguments(wanted: Wanted, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of a config that build the network; no others, as some load files."""
    config = wanted.facts.config
    return {key: config.arguments[key] for key in names if config and key in config.arguments}


def _create_model(*names: str) -> Callable[[ModuleType, Wanted], torch.nn.Module]:
    """A call of timm's `create_model`, which geffnet has too, with these arguments of a config."""

    def create(module: ModuleType, wanted: Wanted) -> torch.nn.Module:
        network: torch.nn.Module = module.create_model(
            wanted.model,
            pretrained=False,
            in_chans=wanted.facts.in_channels,
            **_classes(wanted),
            **_arguments(wanted, names),
        )
        return network

    return create


def _timm_pixels(_module: ModuleType, wanted: Wanted, network: Any) -> tuple[Any, Any] | None:
    config = wanted.facts.config
    told = config.pretrained if config else getattr(network, "pretrained_cfg", None)
    return (told["mean"], told["std"]) if told and told.get("mean") and told.get("std") else None


def _lukemelas(module: ModuleType, wanted: Wanted, **options: Any) -> torch.nn.Module:
    """As its README does, padded for the size that the model was published for."""
    network: torch.nn.Module = module.EfficientNet.from_name(
        wanted.model, in_channels=wanted.facts.in_channels, **_classes(wanted), **options
    )
    return network


def _lukemelas_for_size(module: ModuleType, wanted: Wanted) -> torch.nn.Module:
    size = wanted.preprocessing.resolution
    return _lukemelas(module, wanted, image_size=[size.height, size.width])


def _torchvision(module: ModuleType, wanted: Wanted) -> torch.nn.Module:
    network: torch.nn.Module = module.get_model(wanted.model, weights=None, **_classes(wanted))
    return network


def _torchvision_pixels(module: ModuleType, wanted: Wanted, _: Any) -> tuple[Any, Any] | None:
    told = module.get_model_weights(wanted.model).DEFAULT.transforms()
    return told.mean, told.std


def _either(variant: Variant) -> str:
    size = variant.name.removeprefix("v2-")
    plain = f"efficientnet{'v2' if size != variant.name else ''}_{size}"
    return f"{plain} or tf_{plain}"


CODE_BASES = {
    base.name: base
    for base in (
        CodeBase(
            "timm",
            "timm",
            "timm",
            ("geffnet",),
            _told_architecture,
            _either,
            _create_model("global_pool", "act_layer", "pad_type", "bn_eps"),
            _timm_pixels,
        ),
        CodeBase(
            "geffnet",
            "geffnet",
            "geffnet",
            ("geffnet",),
            _told_architecture,
            _either,
            _create_model("act_layer", "pad_type", "bn_eps"),
        ),
        CodeBase(
            "efficientnet-pytorch",
            "efficientnet_pytorch",
            "efficientnet-pytorch",
            ("efficientnet-pytorch",),
            lambda variant, _: f"efficientnet-{variant.name}",
            lambda variant: f"efficientnet-{variant.name}",
            _lukemelas,
            build_for_size=_lukemelas_for_size,
        ),
        CodeBase(
            "torchvision",
            "torchvision.models",
            "torchvision",
            ("torchvision",),
            lambda variant, _: f"efficientnet_{variant.name.replace('-', '_')}",
            lambda variant: f"efficientnet_{variant.name.replace('-', '_')}",
            _torchvision,
            _torchvision_pixels,
        ),
    )
}
"""By name."""
