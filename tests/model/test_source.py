"""The network that an export starts from is built as its checkpoint tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from efficientnet_pytorch import EfficientNet as LukemelasEfficientNet

from effnet_edge.errors import UsageError
from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES, translate
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.model.variants import VARIANTS
from effnet_edge.size import Size

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def torchvision_b2(tmp_path: Path) -> str:
    return saved(tmp_path / "b2.pth", EfficientNet(VARIANTS["b2"], num_classes=3), "torchvision")


def saved(path: Path, network: EfficientNet, naming: str) -> str:
    scheme = next(scheme for scheme in NAMING_SCHEMES if scheme.name == naming)
    state = network.state_dict()
    torch.save({theirs: state[ours] for ours, theirs in translate(state, scheme).items()}, path)
    return str(path)


def test_resolution_crop_and_padding_are_those_of_the_weights(torchvision_b2: str) -> None:
    source = load_source(NetworkRequest("b2", weights=torchvision_b2, num_classes=3))

    assert source.preprocessing.resolution == source.network.resolution == Size(288, 288)
    assert source.preprocessing.crop_fraction == 1.0
    assert source.network.padding == "symmetric"
    assert source.network.stem.bn.eps == source.network.head.bn.eps == 1e-5


def test_what_the_user_says_outweighs_them(torchvision_b2: str) -> None:
    source = load_source(
        NetworkRequest("b2", weights=torchvision_b2, num_classes=3, resolution=64, padding="same")
    )

    assert source.preprocessing.resolution == source.network.resolution == Size(64, 64)
    assert source.network.padding == "same"
    with torch.no_grad():
        source.network(torch.zeros(1, 3, 64, 64))


def test_a_variant_without_imagenet_weights_is_never_random_by_itself() -> None:
    with pytest.raises(UsageError, match="l2 has no weights named imagenet.*noisy-student"):
        load_source(NetworkRequest("l2"))


def test_the_checkpoint_tells_the_number_of_classes(torchvision_b2: str) -> None:
    assert load_source(NetworkRequest("b2", torchvision_b2)).network.output_size == 3
    features = NetworkRequest("b2", torchvision_b2, 7, "features")
    assert load_source(features).network.output_size == VARIANTS["b2"].head_channels


def test_another_number_than_the_checkpoints_is_refused_with_both(torchvision_b2: str) -> None:
    with pytest.raises(UsageError, match=r"--num-classes 5: the classifier in b2.pth has 3 cl"):
        load_source(NetworkRequest("b2", torchvision_b2, num_classes=5))


@pytest.mark.parametrize(("asked", "classes"), [(None, 1000), (1000, 1000), (1001, 1001)])
def test_a_background_is_a_class_only_where_it_is_asked_for(
    tmp_path: Path, asked: int | None, classes: int
) -> None:
    network = EfficientNet(VARIANTS["b0"], num_classes=1001)
    path = saved(tmp_path / "tf.pth", network, "TensorFlow reference")

    found = load_source(NetworkRequest("b0", path, asked)).network

    assert found.output_size == classes
    assert torch.equal(found.classifier.bias, network.classifier.bias[-classes:])


@pytest.mark.parametrize("channels", [1, 4])
def test_the_checkpoint_tells_the_input_channels(tmp_path: Path, channels: int) -> None:
    theirs = LukemelasEfficientNet.from_name(
        "efficientnet-b0", in_channels=channels, num_classes=5, image_size=32
    ).eval()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")

    path, statistics = str(tmp_path / "theirs.pth"), (0.5,) * channels
    network = load_source(
        NetworkRequest("b0", path, resolution=32, mean=statistics, std=statistics)
    ).network

    x = torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), theirs(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", ["b0", "es", "v2-b0"])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_weights_of_one_resolution_serve_another(
    tmp_path: Path, variant: str, padding: str
) -> None:
    options = {"num_classes": 3, "padding": padding}
    small = EfficientNet(VARIANTS[variant], resolution=33, **options).eval()
    large = EfficientNet(VARIANTS[variant], resolution=70, **options).eval()
    large.load_state_dict(small.state_dict())
    path = saved(tmp_path / "small.pth", small, "effnet-edge")

    found = load_source(NetworkRequest(variant, path, resolution=70, padding=padding)).network

    x = torch.randn(1, 3, 70, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found(x), large(x))
