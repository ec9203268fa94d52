"""Whatever is wrong with a model file is one line that names it, and of our own kinds of error."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import onnx
import pytest
from foreign_models import SIDE, Foreign, some_pixels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effnet_edge.errors import BackendError, EffnetEdgeError, UsageError
from effnet_edge.model.request import NetworkRequest
from effnet_export.model_files import Openings
from effnet_export.opening import open_models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def run(path: Path) -> None:
    with ExitStack() as stack:
        openings = Openings(NetworkRequest("b0", resolution=SIDE))
        open_models(str(path), [str(path)], openings, stack).reference.infer(some_pixels())


def changed(change: Callable[[onnx.ModelProto], None]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        model = Foreign().model()
        change(model)
        onnx.save(model, path)

    return write


def _opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


def _operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Nonsense"


def _domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.nobody"


def _format(model: onnx.ModelProto) -> None:
    model.ir_version = 999


def _output(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


def _input(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "gone"


def _weight(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 5


def _circle(model: onnx.ModelProto) -> None:
    nodes = [("Identity", "a", "images"), ("Identity", "b", "a"), ("Identity", "a", "b")]
    del model.graph.node[:]
    for operator, made, read in nodes:
        model.graph.node.append(onnx.helper.make_node(operator, [read], [made]))
    model.graph.output[0].name = "a"


def _bare(model: onnx.ModelProto) -> None:
    del model.graph.node[0].input[:]
    del model.graph.node[-1].input[:]


def _second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("mask", 1, [1]))


def _external(keep: int | None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        options = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
        onnx.save_model(Foreign().model(), path, **options)
        weights = path.parent / "weights"
        content = weights.read_bytes()
        weights.unlink()
        if keep is not None:
            weights.write_bytes(content[:keep])

    return write


def _outside(path: Path) -> None:
    _external(None)(path)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "../../etc/passwd"
    path.write_bytes(model.SerializeToString())


ONNX_FAULTS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "HTML": lambda path: path.write_text("<html>not found</html>"),
    "an IR": lambda path: Foreign().saved(path.with_suffix(".xml")).rename(path),
    "no weights": _external(None),
    "half the weights": _external(40),
    "weights elsewhere": _outside,
    "later opset": changed(_opset),
    "later format": changed(_format),
    "unknown operator": changed(_operator),
    "unknown domain": changed(_domain),
    "no output": changed(_output),
    "reads nothing": changed(_input),
    "a weight that is too short": changed(_weight),
    "two inputs": changed(_second_input),
    "a circle": changed(_circle),
    "nodes that read nothing": changed(_bare),
}


@pytest.mark.parametrize("fault", ONNX_FAULTS)
def test_a_broken_onnx_file(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "a[1].onnx"
    ONNX_FAULTS[fault](path)

    with pytest.raises(BackendError) as caught:
        run(path)

    assert "a[1].onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


IR_FAULTS: dict[str, Callable[[str, bytes], tuple[str | bytes, bytes | None]]] = {
    "no .bin": lambda xml, _: (xml, None),
    "empty .bin": lambda xml, _: (xml, b""),
    "half a .bin": lambda xml, weights: (xml, weights[: len(weights) // 2]),
    "empty": lambda _, weights: ("", weights),
    "half": lambda xml, weights: (xml[: len(xml) // 2], weights),
    "HTML": lambda _, weights: ("<html/>", weights),
    "an ONNX model": lambda _, weights: (Foreign().model().SerializeToString(), weights),
    "earlier format": lambda xml, weights: (xml.replace('version="11"', 'version="7"', 1), weights),
    "later format": lambda xml, weights: (xml.replace('version="11"', 'version="99"', 1), weights),
    "unknown operation": lambda xml, weights: (xml.replace('"ReLU"', '"Nonsense"'), weights),
    "later opset": lambda xml, weights: (xml.replace('"opset1"', '"opset99"'), weights),
}


@pytest.mark.parametrize("fault", IR_FAULTS)
def test_a_broken_ir(fault: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sound = Foreign().saved(tmp_path / "sound.xml")
    content = (sound.read_text(), sound.with_suffix(".bin").read_bytes())
    xml, weights = IR_FAULTS[fault](*content)
    path = tmp_path / "a[1].xml"
    path.write_bytes(xml.encode() if isinstance(xml, str) else xml)
    if weights is not None:
        path.with_suffix(".bin").write_bytes(weights)

    with pytest.raises(BackendError) as caught:
        run(path)

    assert "a[1].xml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not capfd.readouterr().err, "OpenVINO's readers of other formats complained"


@pytest.mark.parametrize("name", ["a.onnx", "a.xml"])
def test_a_file_that_is_none_is_a_wrong_request(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{name}: no such"):
        run(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=f"{name} is a folder"):
        run(tmp_path / name)
    with pytest.raises(EffnetEdgeError):
        run(tmp_path / ("x" * 300 + name))


def test_a_file_of_another_kind_is_a_wrong_request(tmp_path: Path) -> None:
    (tmp_path / "a.mnn").write_bytes(b"MNN")
    with pytest.raises(UsageError, match=r"a\.mnn is no model that can be compared"):
        run(tmp_path / "a.mnn")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1), flipped=st.one_of(st.none(), st.floats(0, 0.999)))
def test_no_damage_ends_in_anything_but_one_line(
    cut: float, flipped: float | None, tmp_path: Path
) -> None:
    content = bytearray(Foreign().model().SerializeToString())
    if flipped is not None:
        content[int(flipped * len(content))] ^= 0xFF
    path = tmp_path / "a.onnx"
    path.write_bytes(content[: round(cut * len(content))])

    told = f"{path.name} is sound"
    try:
        run(path)
    except EffnetEdgeError as error:
        told = str(error)

    assert "a.onnx" in told
    assert "\n" not in told
