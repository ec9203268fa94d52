"""Greyscale and multispectral inputs, multi-label heads and feature extractors, end to end."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from own_models import (
    MEAN4,
    STD4,
    four_channel_pictures,
    four_channels,
    greyscale,
    multi_label,
    network_of,
    trained,
)

from effnet_edge.errors import CheckpointError, EffnetEdgeError, UsageError
from effnet_edge.model.request import NetworkRequest
from effnet_edge.pictures.image import normalize
from effnet_edge.runtime import EngineRunner
from effnet_export.origin import load_source_of
from effnet_export.pipeline import export_bundle
from effnet_export.request import ExportRequest

if TYPE_CHECKING:
    from effnet_edge.bundle import Bundle

pytestmark = pytest.mark.sample

SIDE = 64
ESPRESSO = Path(__file__).parents[2] / "examples" / "espresso.jpg"


def exported(folder: Path, state: dict[str, torch.Tensor] | None, **options: object) -> Bundle:
    if state is not None:
        torch.save(state, folder / "mine.pth")
        options["weights"] = str(folder / "mine.pth")
    options = {"resolution": SIDE, **options}
    told = {field.name for field in fields(NetworkRequest)} & options.keys()
    network = NetworkRequest("b0", **{name: options.pop(name) for name in told})
    return export_bundle(ExportRequest(network, output=folder / "bundle", **options)).bundle


def answers(bundle: Bundle, network: torch.nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """What PyTorch and the bundle give for the same pixels."""
    side, channels = bundle.manifest.input.height, bundle.manifest.input.channels
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, channels), np.uint8)
    pixels = pixels.repeat(side // 8, 1).repeat(side // 8, 2)
    with torch.inference_mode():
        expected = network(torch.from_numpy(normalize(pixels, bundle.manifest.preprocessing)))
    with EngineRunner.of(bundle, precision=None) as runner:
        found = runner.infer(pixels)
    assert found.dtype == np.float32
    return expected.numpy(), found


def assert_equal_answers(bundle: Bundle, network: torch.nn.Module, share: float) -> None:
    expected, found = answers(bundle, network)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= share * np.ptp(expected)


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(
        tmp_path_factory.mktemp("grey"), greyscale(), target="openvino", precision="fp32"
    )


def test_the_checkpoint_tells_that_the_network_is_greyscale(grey: Bundle) -> None:
    manifest = grey.manifest
    assert manifest.input.channels == 1
    assert manifest.preprocessing.mean == pytest.approx((0.449,))
    assert manifest.parity_images is not None
    assert manifest.parity_images.endswith("in grey")
    assert_equal_answers(grey, network_of(greyscale(), resolution=SIDE), 1e-4)


def test_a_greyscale_bundle_answers_as_the_colour_network_does_to_grey(
    grey: Bundle,
) -> None:
    """Up to the normalization, which is one for all three channels here."""
    colour = network_of(trained(), resolution=SIDE)
    with EngineRunner.of(grey) as runner:
        pixels = np.random.default_rng(1).integers(90, 160, (1, SIDE, SIDE, 1), np.uint8)
        same = torch.from_numpy(normalize(pixels, grey.manifest.preprocessing)).repeat(1, 3, 1, 1)
        with torch.inference_mode():
            expected = colour(same).numpy()
        np.testing.assert_allclose(runner.infer(pixels), expected, atol=1e-3)
        assert len(runner.classify(ESPRESSO)) == 5
        with pytest.raises(UsageError, match=r"\(64, 64, 1\)"):
            runner.infer(np.zeros((1, SIDE, SIDE, 3), np.uint8))


def test_four_channels_in_onnxruntime_from_files_of_numpys(tmp_path: Path) -> None:
    pictures = four_channel_pictures(tmp_path / "pictures", 4)
    bundle = exported(
        tmp_path,
        four_channels(),
        target="onnxruntime",
        mean=MEAN4,
        std=STD4,
        calibration=pictures,
        input_kind="float32-nchw",
    )
    assert (bundle.manifest.input.channels, bundle.manifest.preprocessing.std) == (4, STD4)
    assert bundle.manifest.parity_images == str(pictures)
    network = network_of(four_channels(), resolution=SIDE)
    assert_equal_answers(bundle, network, 1e-4)
    with EngineRunner.of(bundle) as runner:
        (best, *_) = runner.classify(pictures / "00.npy")
        logits = runner.infer(np.load(pictures / "00.npy")[None])
    assert best.index == int(logits.argmax())
    assert load_source_of(bundle.manifest).network.stem.conv.in_channels == 4


@pytest.mark.slow
def test_four_channels_in_int8_for_tensorrt(tmp_path: Path) -> None:
    pictures = four_channel_pictures(tmp_path / "pictures", 32, 128)
    bundle = exported(
        tmp_path,
        four_channels(),
        target="tensorrt",
        precision="int8",
        resolution=128,
        mean=MEAN4,
        std=STD4,
        calibration=pictures,
    )
    manifest = bundle.manifest
    assert manifest.calibration is not None
    assert manifest.calibration.size == 32
    assert manifest.parity_images is not None
    assert str(pictures) in manifest.parity_images
    graph = onnx.load(bundle.model_path).graph
    assert [size.dim_value for size in graph.input[0].type.tensor_type.shape.dim] == [
        1,
        128,
        128,
        4,
    ]
    assert any(node.op_type == "QuantizeLinear" for node in graph.node)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(
        tmp_path_factory.mktemp("labelled"),
        multi_label(),
        target="openvino",
        precision="fp16",
        output_kind="multi-label",
    )


def test_a_multi_label_bundle_says_so_and_gives_logits(labelled: Bundle) -> None:
    manifest = labelled.manifest
    assert (manifest.output.kind, manifest.output.name) == ("multi-label", "logits")
    for stage in manifest.parity:
        assert stage.value("top1_agreement") is None
        assert stage.value("label_set_agreement") is not None
        assert stage.measures["kl"].at_most is not None
    # A CPU with BF16 computes in it: worst on B0 2.4e-2.
    assert_equal_answers(labelled, network_of(multi_label(), resolution=SIDE), 3e-2)


def test_a_multi_label_bundle_classifies_by_sigmoid(labelled: Bundle) -> None:
    with EngineRunner.of(labelled) as runner:
        likely, all_labels = (
            runner.classify(ESPRESSO, threshold=0.3),
            runner.classify(ESPRESSO, threshold=0.0),
        )
        (best,) = runner.classify(ESPRESSO, top=1, threshold=0.0)
    assert [each.index for each in likely] == [
        each.index for each in all_labels if each.probability >= 0.3
    ]
    assert len(all_labels) == 1000
    assert best == all_labels[0]
    # Independent probabilities do not add up to one.
    assert abs(sum(each.probability for each in all_labels) - 1) > 0.5


def test_features_are_those_before_the_classifier(tmp_path: Path) -> None:
    bundle = exported(
        tmp_path, trained(), target="openvino", precision="fp32", output_kind="features"
    )

    output = bundle.manifest.output
    assert (output.name, output.kind, output.classes) == ("features", "features", 1280)
    assert bundle.labels is None
    for stage in bundle.manifest.parity:
        assert not {"kl", "top1_agreement", "label_set_agreement"} & stage.measures.keys()
        assert stage.measures["sqnr_db"].value >= 60
    whole = network_of(trained(), resolution=SIDE)
    features = torch.nn.Sequential(whole.stem, *whole.stages, whole.head, whole.pool)
    assert_equal_answers(bundle, features, 1e-4)
    with EngineRunner.of(bundle) as runner:
        assert runner.infer(np.zeros((0, SIDE, SIDE, 3), np.uint8)).shape == (0, 1280)
        with pytest.raises(UsageError, match="features and has no classes"):
            runner.classify("nothing.jpg")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (
            {"mean": MEAN4, "std": STD4, "precision": "int8"},
            "4 channels, which the embedded photos",
        ),
        ({}, "give --mean with 4 values"),
        ({"mean": (0.5,), "std": (0.5,)}, "--mean has 1 value"),
    ],
)
def test_what_four_channels_need_is_said_in_one_line(
    tmp_path: Path, options: dict[str, object], what: str
) -> None:
    with pytest.raises(UsageError, match=what) as error:
        exported(tmp_path, four_channels(), target="openvino", **options)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"output_kind": "features", "labels": True}, "--labels does not go with --features"),
        ({"output_kind": "features", "max_kl": 0.1}, "--max-kl goes with classes"),
        ({"output_kind": "multi-label", "max_drop": 1.0}, "use --max-kl"),
    ],
)
def test_options_that_contradict_the_output_are_refused(
    tmp_path: Path, options: dict[str, object], what: str
) -> None:
    if options.get("labels"):
        (tmp_path / "labels.txt").write_text("a\nb\n")
        options = {**options, "labels": tmp_path / "labels.txt"}
    with pytest.raises(EffnetEdgeError, match=what):
        exported(tmp_path, None, target="openvino", precision="int8", **options)


def test_a_checkpoint_of_another_stem_is_refused(tmp_path: Path) -> None:
    state = trained()
    state["stem.conv.weight"] = state["stem.conv.weight"].flatten(1)
    with pytest.raises(CheckpointError, match=r"stem\.conv\.weight is 32×27"):
        exported(tmp_path, state, target="openvino")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grey", "multi-label", "features"])
def test_int8_holds_its_gates(tmp_path: Path, kind: str) -> None:
    """For TensorRT, as its integers are simulated and do not depend on this machine's."""
    states = {"grey": greyscale, "multi-label": multi_label, "features": trained}
    output_kind = "single-label" if kind == "grey" else kind
    bundle = exported(
        tmp_path,
        states[kind](),
        target="tensorrt",
        precision="int8",
        output_kind=output_kind,
        resolution=128,
        calibration_size=40,
    )
    assert bundle.manifest.parity[-1].measures["sqnr_db"].value > 12
