"""Models in bundles that no export makes are refused before their library reads or runs them."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_bundles import CLASSES, SIDE, manifest, tiny_model, write_bundle

from effnet_edge.bundle import BatchRange, Bundle, BundleWriter
from effnet_edge.errors import BundleError
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.demand.steps import MOST_BYTES, Step, refuse_greedy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Nodes = list[onnx.NodeProto]
FLOAT = TensorProto.FLOAT


def node(kind: str, *inputs: str, output: str = "", **attributes: Any) -> onnx.NodeProto:
    name = output or kind.lower()
    return helper.make_node(kind, list(inputs), [name], name, **attributes)


def with_nodes(*nodes: onnx.NodeProto, batch: int = 1, **constants: Any) -> onnx.ModelProto:
    """The tiny model, and these nodes before its last; nothing checks whether it is valid."""
    model = tiny_model(batch=batch)
    last = model.graph.node.pop()
    model.graph.node.extend([*nodes, last])
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items()
    )
    return model


def refused(folder: Path, target: str, content: dict[str, bytes], **changes: Any) -> str:
    """The one line for a bundle of these files."""
    described = manifest(target=target, model=next(iter(content)), **changes)
    with BundleWriter(folder / "b") as writer:
        for name, data in content.items():
            (writer.staging / name).write_bytes(data)
        writer.commit(described, None)
    with pytest.raises(BundleError) as caught:
        EngineRunner.load(folder / "b")
    text = str(caught.value)
    assert next(iter(content)) in text
    assert len(text.splitlines()) == 1
    return text


def loop() -> onnx.ModelProto:
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    step = helper.make_tensor_value_info("step", TensorProto.INT64, [])
    again = helper.make_tensor_value_info("again", TensorProto.BOOL, [])
    body = helper.make_graph([node("Identity", "flag", output="again")], "b", [step, flag], [again])
    return with_nodes(node("Loop", "", "true", body=body), true=np.array(True))


def a_graph_in_an_operator_that_is_allowed() -> onnx.ModelProto:
    body = helper.make_graph([], "b", [], [])
    return with_nodes(node("Relu", "mean", body=body))


def a_function_of_its_own() -> onnx.ModelProto:
    model = with_nodes()
    function = model.functions.add(name="Relu", domain="")
    function.node.append(node("ConstantOfShape", "x"))
    return model


def sparse() -> onnx.ModelProto:
    model = with_nodes()
    tensor = model.graph.sparse_initializer.add(dims=[1 << 40])
    tensor.values.name = "large"
    return model


def numbers_that_are_not_there() -> onnx.ModelProto:
    model = with_nodes(node("Relu", "large"))
    model.graph.initializer.add(name="large", data_type=FLOAT, dims=[1 << 20, 1 << 12])
    return model


def product_of_constants() -> onnx.ModelProto:
    side = np.ones(40_000, np.float32)
    return with_nodes(node("Mul", "a", "b"), a=side[:, None], b=side[None, :])


def matrix_of_two_vectors() -> onnx.ModelProto:
    side = np.ones(40_000, np.float32)
    return with_nodes(node("MatMul", "a", "b"), a=side[:, None], b=side[None, :])


def wide_padding() -> onnx.ModelProto:
    pads = np.array([0, 0, 0, 0, 0, 0, 50_000, 50_000])
    return with_nodes(node("Pad", "conv", "pads"), pads=pads)


def padding_of_a_convolution() -> onnx.ModelProto:
    return with_nodes(
        node("Conv", "conv", "small", output="more", pads=[30_000] * 4),
        small=np.ones((1, 8, 1, 1), np.float32),
    )


def a_kernel_that_is_unfolded() -> onnx.ModelProto:
    return with_nodes(
        node("Conv", "conv", "large", output="more", pads=[300] * 4),
        large=np.ones((1, 8, 300, 300), np.float32),
    )


def a_tensor_that_doubles() -> onnx.ModelProto:
    names = ["mean", *(f"x{number}" for number in range(40))]
    pairs = itertools.pairwise(names)
    return with_nodes(*(node("Concat", a, a, output=b, axis=1) for a, b in pairs))


def many_tensors_at_once() -> onnx.ModelProto:
    large = np.ones((1, 1, 1, 8_000_000 // 16), np.float32)
    names = [f"x{number}" for number in range(99)]
    nodes = [node("Add", "large", "scale", output=name) for name in names]
    return with_nodes(*nodes, node("Concat", *names, axis=3), large=large)


def much_work() -> onnx.ModelProto:
    square = np.ones((2000, 2000), np.float32)
    names = ["square", *(f"x{number}" for number in range(260))]
    pairs = itertools.pairwise(names)
    return with_nodes(*(node("MatMul", "square", a, output=b) for a, b in pairs), square=square)


def a_shape_that_is_computed() -> onnx.ModelProto:
    return with_nodes(
        node("Mul", "few", "few", output="shape"), node("Reshape", "mean", "shape"), few=[1, 8]
    )


def text_for_numbers() -> onnx.ModelProto:
    return with_nodes(node("Cast", "mean", to=TensorProto.STRING))


def another_domain() -> onnx.ModelProto:
    return with_nodes(node("Relu", "mean", domain="com.microsoft"))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: with_nodes(node("ConstantOfShape", "n"), n=[10**10]), "is a ConstantOfShape"),
        (loop, "is a graph"),
        (a_graph_in_an_operator_that_is_allowed, "is a graph"),
        (a_function_of_its_own, "functions"),
        (sparse, "sparse"),
        (numbers_that_are_not_there, "claims 4294967296 numbers"),
        (product_of_constants, "GiB of memory"),
        (matrix_of_two_vectors, "GiB of memory"),
        (wide_padding, "GiB of memory"),
        (padding_of_a_convolution, "GiB of memory"),
        (a_kernel_that_is_unfolded, "GiB of memory"),
        (a_tensor_that_doubles, "GiB of memory"),
        (many_tensors_at_once, "GiB of memory"),
        (much_work, "operations of work"),
        (a_shape_that_is_computed, "computes a shape"),
        (text_for_numbers, "makes text"),
        (another_domain, "com.microsoft"),
    ],
)
def test_a_greedy_onnx_model_is_refused(
    tmp_path: Path, make: Callable[[], onnx.ModelProto], told: str
) -> None:
    content = {"model.onnx": make().SerializeToString()}
    assert told in refused(tmp_path, "onnxruntime", content)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    model = tiny_model().SerializeToString().replace(b"logits", b"log\xe4ts")
    assert "a name is no text" in refused(tmp_path, "onnxruntime", {"model.onnx": model})


def test_a_static_batch_counts(tmp_path: Path) -> None:
    content = {"model.onnx": tiny_model(batch=1 << 22).SerializeToString()}
    told = refused(tmp_path, "onnxruntime", content)
    assert "GiB of memory" in told
    assert "smaller or a dynamic batch" in told


def test_a_batch_that_only_the_manifest_makes_large_counts(tmp_path: Path) -> None:
    model, most = tiny_model(batch="N"), 65_536
    wide = {"kernel": np.ones((512, 3, 3, 3)), "dense": np.ones((512, CLASSES))}
    for tensor in model.graph.initializer:
        if tensor.name in wide:
            values = wide[tensor.name].astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert "GiB of memory" in refused(
        tmp_path,
        "onnxruntime",
        {"model.onnx": model.SerializeToString()},
        batch=BatchRange(most, most, most),
    )


def ir(folder: Path) -> dict[str, bytes]:
    """The files of a sound model."""
    path = write_bundle(folder / "sound", "openvino", tiny_model())
    return {name: (path / name).read_bytes() for name in ("model.xml", "model.bin")}


def layer(number: int, kind: str, data: str, inputs: list[str], output: str) -> str:
    def port(place: int, dims: str) -> str:
        sides = "".join(f"<dim>{side}</dim>" for side in dims.split(",") if side)
        return f'<port id="{place}" precision="FP32">{sides}</port>'

    given = "".join(port(place, dims) for place, dims in enumerate(inputs))
    given = f"<input>{given}</input>" if inputs else ""
    made = f"<output>{port(len(inputs), output)}</output>"
    return (
        f'<layer id="{number}" name="n{number}" type="{kind}" version="opset1">'
        f"<data {data}/>{given}{made}</layer>"
    )


def constant(number: int, shape: str, element: str = "f32", size: int = 4, offset: int = 0) -> str:
    data = f'element_type="{element}" shape="{shape}" offset="{offset}" size="{size}"'
    return layer(number, "Const", data, [], shape)


def before_the_result(xml: str, layers: str, edges: str) -> str:
    return xml.replace("</layers>", layers + "</layers>").replace("</edges>", edges + "</edges>")


def edge(start: str, end: str) -> str:
    (a, b), (c, d) = start.split("."), end.split(".")
    return f'<edge from-layer="{a}" from-port="{b}" to-layer="{c}" to-port="{d}"/>'


def ir_of_a_product(xml: str, weights: int) -> str:
    result = re.search(r'<layer id="(\d+)"[^>]* type="Result"', xml)
    assert result is not None
    source = re.search(
        rf'<edge from-layer="(\d+)" from-port="(\d+)" to-layer="{result[1]}" to-port="0" ?/>', xml
    )
    assert source is not None
    add = 'auto_broadcast="numpy"'
    size = 4 * 40_000
    layers = constant(901, "40000,1", size=size, offset=weights)
    layers += constant(902, "1,40000", size=size, offset=weights)
    layers += layer(903, "Multiply", add, ["40000,1", "1,40000"], "40000,40000")
    layers += layer(904, "ReduceMean", 'keep_dims="false"', ["40000,40000", "2"], "")
    layers += constant(905, "2", "i64", 16, weights)
    layers += layer(906, "Add", add, [f"1,{CLASSES}", ""], f"1,{CLASSES}")
    edges = edge("901.0", "903.0") + edge("902.0", "903.1") + edge("903.2", "904.0")
    edges += edge("905.0", "904.1") + edge(f"{source[1]}.{source[2]}", "906.0")
    edges += edge("904.2", "906.1") + edge("906.2", f"{result[1]}.0")
    return before_the_result(xml.replace(source[0], ""), layers, edges)


def test_an_ir_that_multiplies_two_vectors_is_refused(tmp_path: Path) -> None:
    content = ir(tmp_path)
    xml, weights = content["model.xml"].decode(), content["model.bin"]
    axes_and_vector = np.array([0, 1]).tobytes() + bytes(4 * 40_000)
    greedy = {
        "model.xml": ir_of_a_product(xml, len(weights)).encode(),
        "model.bin": weights + axes_and_vector,
    }
    assert "GiB of memory" in refused(tmp_path, "openvino", greedy)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda x: x.replace('type="ReLU"', 'type="Loop"'), "is a Loop"),
        (lambda x: x.replace('type="ReLU"', 'type="TensorIterator"'), "is a TensorIterator"),
        (lambda x: x.replace("<net ", "<!DOCTYPE net><net ", 1), "document type"),
        (lambda x: x.replace("</net>", ""), "no XML that can be read"),
        (lambda _: "<other/>", "no OpenVINO model"),
        (lambda x: x.replace('<layer id="1"', '<layer id="0"'), "two layers of the number 0"),
        (
            lambda x: before_the_result(x, layer(990, "Range", "", [], ""), ""),
            "is a Range",
        ),
        (
            lambda x: before_the_result(
                x,
                constant(990, "2", "i64", 16)
                + layer(991, "Multiply", "", ["2", "2"], "2")
                + layer(992, "Reshape", 'special_zero="false"', ["2", "2"], "2"),
                edge("990.0", "991.0") + edge("991.2", "992.1"),
            ),
            "computes a shape",
        ),
    ],
)
def test_an_ir_that_no_export_writes_is_refused(
    tmp_path: Path, change: Callable[[str], str], told: str
) -> None:
    content = ir(tmp_path)
    content["model.xml"] = change(content["model.xml"].decode()).encode()
    assert told in refused(tmp_path, "openvino", content)


def test_another_format_is_not_read_by_openvino(tmp_path: Path) -> None:
    assert "no XML" in refused(tmp_path, "openvino", {"model.onnx": loop().SerializeToString()})


def test_what_is_read_no_more_is_not_counted() -> None:
    third = MOST_BYTES // 3
    chain = [Step(str(n), (str(n - 1),), {str(n): third}) for n in range(9)]
    refuse_greedy(chain, "model.onnx")
    with pytest.raises(BundleError, match=r"3\.3 GiB of memory up to its node '9'"):
        refuse_greedy([*chain[:3], Step("9", ("0",), {"9": MOST_BYTES})], "model.onnx")


def test_an_honest_model_runs(tmp_path: Path, cpu_target: str) -> None:
    path = write_bundle(tmp_path / "b", cpu_target, tiny_model(batch="N"))
    with EngineRunner.load(Bundle.load(path).path) as run:
        assert run.infer(np.zeros((2, SIDE, SIDE, 3), np.uint8)).shape == (2, CLASSES)
