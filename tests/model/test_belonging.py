"""What stands beside a network's tensors and changes its answer is refused, the rest is named."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from test_choosing import classifier, headless, is_original, prefixed, saved, state
from test_keras_files import LAYOUTS, keras_variables, network_of

from effnet_edge.errors import CheckpointError, CheckpointWarning
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.model.variants import VARIANTS
from effnet_edge.model.weights import load_weights

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    State = dict[str, Tensor]

COUNTS = {
    "global_pool.p": torch.full((1,), 3.0),
    "temperature": torch.ones(1),
    "head.scale": torch.ones(5),
    "logit_scale": torch.tensor(4.6),
    "classifier.lora_A": torch.ones(4, 1280),
    "act_quant.zero": torch.ones(3),
    "target_std": torch.ones(3),
    "target_mean": torch.ones(()),
    "y_mean": torch.ones(3),
}


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("name", COUNTS)
def test_a_number_of_the_network_that_none_here_has_is_refused(
    tmp_path: Path, prefix: str, name: str
) -> None:
    content = prefixed(prefix, state() | {name: COUNTS[name]}) | {"best": torch.tensor(1)}
    path = saved(tmp_path / "a.pth", content)

    with pytest.raises(CheckpointError, match=f"does not fit b0: extra {prefix}{name}"):
        classifier(path)


@pytest.mark.parametrize("has_classifier", [True, False])
def test_a_pooling_between_a_backbone_and_a_classifier_is_of_the_network(
    tmp_path: Path, has_classifier: bool
) -> None:
    content = prefixed("backbone.", headless()) | {"pool.p": torch.full((1,), 3.0)}
    if has_classifier:
        content["fc.weight"] = state()["classifier.weight"]
    path = saved(tmp_path / "a.pth", content)

    with pytest.raises(CheckpointError, match=r"does not fit b0: .*extra pool\.p"):
        classifier(path)


@pytest.mark.parametrize(
    "extra",
    [
        {"loss.mean": torch.ones(3)},
        {"queue": torch.ones(9, 1280)},
        {"class_weights": torch.ones(5)},
        {"pos_weight": torch.ones(5)},
        {"best_acc1": torch.tensor(0.9)},
        {"epoch": torch.tensor(3.0)},
        {"conv_stem.total_ops": torch.zeros(1, dtype=torch.float64)},
        {"class_mapping": torch.arange(5)},
        {"dummy": torch.empty(0)},
        {"criterion.s": torch.ones(1)},
    ],
)
def test_what_training_writes_down_is_left_out_of_a_network_without_a_prefix(
    tmp_path: Path, extra: State
) -> None:
    path = saved(tmp_path / "a.pth", state() | extra)

    with pytest.warns(CheckpointWarning, match=f"left out.*{next(iter(extra))}"):
        assert is_original(classifier(path))


def test_numbers_outside_of_the_network_are_left_out(tmp_path: Path) -> None:
    content = prefixed("model.", state()) | {"temperature": torch.ones(1)}

    with pytest.warns(CheckpointWarning, match=r"left out.*temperature"):
        assert is_original(classifier(saved(tmp_path / "a.pth", content)))


def test_a_prefix_that_names_a_metric_makes_no_metrics_of_layers(tmp_path: Path) -> None:
    content = prefixed("metric_net.", headless())
    content["metric_net.fc.weight"] = state()["classifier.weight"]
    assert is_original(classifier(saved(tmp_path / "a.pth", content)))

    content["metric_net.neck.weight"] = torch.ones(1280)
    with pytest.raises(CheckpointError, match=r"extra metric_net\.neck\.weight"):
        classifier(saved(tmp_path / "b.pth", content))


def test_a_number_of_a_keras_layer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flowers.h5"
    variables = keras_variables(network_of())
    variables["gem/p"] = np.full(1, 3, np.float32)
    LAYOUTS["whole model"](path, variables)

    with pytest.raises(CheckpointError, match=r"extra gem\.p"):
        load_source(NetworkRequest("b0", str(path), resolution=32))


# --- a normalization inside the network -----------------------------------------------------


def buffers(mean: str, std: str, scale: float = 1.0) -> State:
    return {
        mean: torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1) * scale,
        std: torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1) * scale,
    }


@pytest.mark.parametrize(
    "names", [("normalize.mean", "normalize.std"), ("pixel_mean", "pixel_std"), ("0.mean", "0.std")]
)
@pytest.mark.parametrize("prefix", ["", "1."])
def test_what_the_network_normalizes_with_is_that_of_the_export(
    tmp_path: Path, names: tuple[str, str], prefix: str
) -> None:
    network = prefixed(prefix, state())
    for scale in (1.0, 255.0):
        path = saved(tmp_path / "equal.pth", network | buffers(*names, scale=scale))
        with warnings.catch_warnings():
            warnings.simplefilter("error", CheckpointWarning)
            assert is_original(classifier(path))

    path = saved(tmp_path / "other.pth", network | buffers(*names, scale=1.1))
    with pytest.raises(CheckpointError, match=rf"{names[0]} = 0\.5335.*--mean and --std"):
        classifier(path)


def test_what_a_person_says_of_the_pixels_outweighs_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", state() | buffers("mean", "std"))
    request = NetworkRequest("b0", path, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

    with pytest.warns(CheckpointWarning, match=r"left out: .*mean = 0\.485,0\.456"):
        assert load_source(request).preprocessing.mean == (0.5, 0.5, 0.5)


def test_who_fills_a_network_is_told_to_normalize(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", state() | buffers("mean", "std"))

    with pytest.warns(CheckpointWarning, match="give it pictures that are normalized"):
        load_weights(EfficientNet(VARIANTS["b0"], num_classes=5, resolution=32), path)


def test_a_type_of_few_digits_has_the_same_numbers(tmp_path: Path) -> None:
    own = {name: each.bfloat16() for name, each in buffers("mean", "std", scale=255).items()}

    assert is_original(classifier(saved(tmp_path / "a.pth", state() | own)))


@pytest.mark.parametrize("prefix", ["", "model."])
def test_whole_numbers_are_a_normalization_too(tmp_path: Path, prefix: str) -> None:
    content = prefixed(prefix, state()) | {"mean": torch.tensor([127, 127, 127])}
    path = saved(tmp_path / "a.pth", content)

    with pytest.raises(CheckpointError, match=r"normalizes its input by itself \(mean = 127,127"):
        classifier(path)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_one_number_for_all_channels_is_a_normalization_too(tmp_path: Path, prefix: str) -> None:
    half = torch.full((1, 1, 1, 1), 0.5)
    network = prefixed(prefix, state())
    path = saved(tmp_path / "a.pth", network | {"norm.mean": half, "norm.std": half})

    with pytest.raises(CheckpointError, match="normalizes its input by itself"):
        classifier(path)
    load_source(NetworkRequest("b0", path, mean=(0.5,) * 3, std=(0.5,) * 3))
