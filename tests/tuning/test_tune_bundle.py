"""`effnet-edge tune BUNDLE`: the bundle tells what is tuned, and is a candidate itself."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from numpy.testing import assert_allclose
from open_bundles import write_open
from tiny_bundles import LABELS, PREPROCESSING, tiny_model, write_bundle
from tiny_tunes import exported, in_a_folder_with_photos, stand_in, with_noise

from effnet_edge.bundle import BatchRange, Bundle, OutputSpec
from effnet_edge.cli.common import Settings
from effnet_edge.cli.main import cli
from effnet_edge.errors import GateError, UsageError
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_edge.runtime.known_answers import known_pictures, read_answers
from effnet_export.answering import allowed_error
from effnet_export.tuning import run
from effnet_export.tuning.existing import request_like

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from effnet_export.pipeline import ExportResult
    from effnet_export.request import ExportRequest


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with pictures and a bundle that loses more than an export in INT8."""
    in_a_folder_with_photos(tmp_path, monkeypatch)
    made = {"precision": "int8", "preprocessing": PREPROCESSING}
    write_bundle(tmp_path / "mine", "onnxruntime", with_noise(0.2), **made)
    return tmp_path


def invoke(*options: object) -> Result:
    arguments = ["tune", "mine", "--calibration", "photos", *map(str, options)]
    return CliRunner().invoke(cli, arguments, obj=Settings(), standalone_mode=False)


def test_it_is_the_first_candidate_and_no_other_may_lose_more(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)

    document = json.loads(invoke("--json").stdout)

    rows = {row["name"]: row for row in document["candidates"]}
    in_int8 = ["int8", "int8-dense", "int8-budget-50", "int8-budget-25"]
    assert list(rows) == ["bundle", "fp32", *in_int8]
    assert document["limits"]["max_kl"] == rows["bundle"]["loss"]["kl"]
    assert rows["bundle"]["loss"]["kl"] > rows["int8"]["loss"]["kl"] > 0
    assert document["chosen"] == "int8"  # as fast, and loses less
    assert rows["bundle"]["latency"]["ratio_to_bundle"] == 1
    assert rows["fp32"]["latency"]["ratio_to_bundle"] == 2
    assert Bundle.load(place / "b0-onnxruntime-tuned").manifest.target == "onnxruntime"


def test_it_may_be_the_one_that_is_chosen(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(place / "mine", "onnxruntime", tiny_model(), precision="int8")
    stand_in(monkeypatch)

    result = invoke("--max-kl", 1e-6, "-o", "other", "--report", "page.html")

    assert "bundle, none within KL divergence ≤ 1e-06 nats is faster but for chance" in (
        result.stdout
    )
    assert "│ of bundle" in result.stdout.replace("┃", "│")
    assert "<small>2.00 of bundle's</small>" in (place / "page.html").read_text().replace(
        "&#39;", "'"
    )
    own, written = (Bundle.load(place / each).manifest for each in ("mine", "other"))
    assert written.files == own.files


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt-rtx"])
def test_what_takes_its_place_meanwhile_is_not_copied_under_its_manifest(
    target: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"precision": "int8", "preprocessing": PREPROCESSING}
    write_bundle(place / "mine", target, with_noise(0.06), LABELS, **made)
    own = Bundle.load(place / "mine").manifest

    def replaced(request: ExportRequest, *others: object, **options: object) -> ExportResult:
        write_bundle(place / "mine", target, with_noise(9.0), LABELS, **made)
        if request.precision == "int8":
            raise GateError("it is noise")
        return exported(request, *others, **options)

    stand_in(monkeypatch, replaced)
    assert invoke("-o", "copy").exception is None

    copy = Bundle.load(place / "copy")
    name = "model-bundle.onnx" if copy.manifest.is_open else copy.manifest.model
    assert copy.manifest.files[name].sha256 == own.files[own.model].sha256
    if copy.manifest.is_open:
        graph = OnnxClassifier(place / "copy" / name, PREPROCESSING, rounding=True)
        assert copy.manifest.choice is not None
        (own_graph,) = (each for each in copy.manifest.choice.contenders if each.name == "bundle")
        known = read_answers(copy.with_one_graph(own_graph))
        assert known is not None
        answers = graph.infer(known_pictures(copy.manifest))
        expected = allowed_error(known.exact, answers, "int8", copy.manifest.output.kind)
        assert_allclose(known.allowed, expected, rtol=1e-6)


def test_the_request_is_what_the_bundle_was_exported_for(place: Path) -> None:
    path = write_bundle(
        place / "floats",
        "tensorrt-rtx",
        tiny_model("float32", "N"),
        batch=BatchRange(1, 4, 8),
        padding="symmetric",
        output=OutputSpec("features", 5, "features"),
        labels=None,
    )
    request = request_like(Bundle.load(path), "here.pth", place / "photos", 7, place / "new")
    assert (request.target, request.precision) == ("tensorrt-rtx", "int8")
    assert (request.input_kind, request.batch) == ("float32-nchw", BatchRange(1, 4, 8))
    network = request.network
    assert (network.variant, network.weights, network.padding) == ("b0", "here.pth", "symmetric")
    assert (network.output_kind, network.num_classes) == ("features", None)
    assert network.resolution == PREPROCESSING.resolution
    assert request.calibration_size == 7


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--num-classes 5", "--num-classes goes with a variant: a bundle tells its own network"),
        ("--target openvino", "--target goes with a variant"),
        ("--resolution 64 --labels photos/000.png", "goes with a variant"),
        ("--batch 2", "--batch goes with a variant"),
        ("--max-nrmse 0.1", "--max-nrmse goes with --regression"),
        ("-o mine --force", "-o mine: is the bundle that is tuned"),
        ("-o mine/in", "lies in the bundle"),
        ("--weights nowhere.pth", "--weights nowhere.pth: no such file"),
        ("", "the checkpoint that the bundle was made from is not at made up: give --weights FILE"),
    ],
)
def test_what_does_not_go_with_it_is_refused(place: Path, options: str, says: str) -> None:
    del place
    result = invoke(*options.split())
    assert isinstance(result.exception, UsageError)
    assert re.search(re.escape(says), str(result.exception))


def test_its_kind_and_its_target_decide_what_can_be_asked(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    monkeypatch.setattr(run, "Judge", None)
    values = OutputSpec("values", 5, "regression")
    write_bundle(place / "mine", "onnxruntime", tiny_model(), output=values)
    assert "use --max-nrmse" in str(invoke("--max-kl", 1).exception)
    assert isinstance(invoke("--max-nrmse", 1).exception, TypeError), "it got as far as the judge"
    write_bundle(place / "mine", "tensorrt-rtx", tiny_model())
    assert "give it to `effnet-edge build` there" in str(invoke("--max-latency", 1).exception)
    write_open(place / "mine")
    assert "carries 3 graphs" in str(invoke().exception)


def test_the_graph_of_one_for_tensorrt_is_carried_as_well(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"precision": "int8", "preprocessing": PREPROCESSING}
    write_bundle(place / "mine", "tensorrt-rtx", with_noise(0.06), LABELS, **made)
    stand_in(monkeypatch)

    result = invoke("-o", "carried", "--json")

    assert json.loads(result.stdout)["carried"] == ["fp16", "int8", "bundle"]
    choice = Bundle.load(place / "carried").manifest.choice
    assert choice is not None
    assert choice.contenders[2].loss.measures["kl"].holds


def test_one_that_cannot_be_judged_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny_bundles import failing_model

    write_bundle(place / "mine", "onnxruntime", failing_model(), precision="int8")
    stand_in(monkeypatch)

    result = invoke()

    assert not isinstance(result.exception, GateError)
    assert "bundle, failed: " in result.stdout
    assert "int8, no limit was set: as export --int8" in result.stdout
