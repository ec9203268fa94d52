"""Makes the models of ExecuTorch, MNN, ncnn and PyTorch that `cpu_peers.py` times.

Of the folded B0, which takes normalized float32 (1, 3, R, R). Each tool's own INT8 is static and
calibrated on the same pictures; ncnn's wheel has no tool for it. A model that is there is kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import onnx
import torch
from int8_peers.onnx_export import exported_onnx
from int8_peers.subject import Subject
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable


def program(subject: Subject, file: Path) -> None:
    """PyTorch's exported program, for eager PyTorch and for torch.compile."""
    torch.export.save(torch.export.export(subject.folded, (_example(subject),)), file)


def executorch_fp32(subject: Subject, file: Path) -> None:
    """ExecuTorch with everything that XNNPACK takes."""
    file.write_bytes(_lowered(subject.folded, subject))


def executorch_int8(subject: Subject, file: Path) -> None:
    """The same in INT8: static, weights a channel, as ExecuTorch's XNNPACK quantizer does it."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = get_symmetric_quantization_config(is_per_channel=True)
    graph = torch.export.export(subject.folded, (_example(subject),)).module()
    prepared = prepare_pt2e(graph, XNNPACKQuantizer().set_global(config))
    with torch.no_grad():
        for values in subject.calibration_inputs:
            prepared(torch.from_numpy(values))
    file.write_bytes(_lowered(convert_pt2e(prepared), subject))


def _lowered(network: torch.nn.Module, subject: Subject) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(network, (_example(subject),))
    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    content: bytes = edge.to_executorch().buffer
    return content


def mnn_fp32(subject: Subject, file: Path) -> None:
    """MNN's converter, from ONNX; its command would install and call a telemetry client."""
    graph = file.with_suffix(".onnx")
    onnx.save(exported_onnx(subject), graph)
    options = "-f", "ONNX", "--modelFile", graph, "--MNNModel", file, "--bizCode", "b0"
    _run("python", "-c", "import sys, _tools; _tools.mnnconvert(sys.argv)", *options)


def mnn_int8(subject: Subject, file: Path) -> None:
    """MNN's offline quantization by KL, of the same pictures as PNG files."""
    source = file.with_name("mnn-fp32.mnn")
    if not source.exists():
        mnn_fp32(subject, source)
    pictures = file.with_name("mnn-pictures")
    pictures.mkdir(exist_ok=True)
    for index, pixels in enumerate(subject.calibration.pixels):
        Image.fromarray(pixels).save(pictures / f"{index:04}.png")
    side = subject.calibration.pixels.shape[1]
    config = {
        "format": "RGB",
        "mean": [255 * each for each in subject.preprocessing.mean],
        "normal": [1 / (255 * each) for each in subject.preprocessing.std],
        "width": side,
        "height": side,
        "path": f"{pictures}/",
        "used_sample_num": len(subject.calibration.pixels),
        "feature_quantize_method": "KL",
        "weight_quantize_method": "MAX_ABS",
    }
    told = file.with_suffix(".json")
    told.write_text(json.dumps(config))
    _run("python", "-c", "import sys, _tools; _tools.mnnquant(*sys.argv[1:])", source, file, told)


def ncnn_fp16(subject: Subject, file: Path) -> None:
    """pnnx, whose default keeps weights in FP16; it writes a .param and a .bin."""
    traced = file.with_suffix(".pt")
    torch.jit.trace(subject.folded, _example(subject)).save(str(traced))
    side = subject.calibration.pixels.shape[1]
    _run(
        "pnnx",
        traced,
        f"inputshape=[1,3,{side},{side}]",
        f"ncnnparam={file}",
        f"ncnnbin={file.with_suffix('.bin')}",
    )


def _run(tool: str, *arguments: object) -> None:
    """A tool of this environment; raises CalledProcessError with what it printed."""
    command = [str(Path(sys.executable).with_name(tool)), *map(str, arguments)]
    subprocess.run(command, check=True, stdout=sys.stderr)


def _example(subject: Subject) -> torch.Tensor:
    return torch.from_numpy(subject.calibration_inputs[0])


MAKERS: dict[str, Callable[[Subject, Path], Any]] = {
    "b0.pt2": program,
    "executorch-fp32.pte": executorch_fp32,
    "executorch-int8.pte": executorch_int8,
    "mnn-fp32.mnn": mnn_fp32,
    "mnn-int8.mnn": mnn_int8,
    "ncnn-fp16.param": ncnn_fp16,
}


@click.command()
@click.argument("calibration", type=click.Path(exists=True, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--only", default="", help="Only files with this in their name.")
def main(calibration: Path, folder: Path, only: str) -> None:
    """Write into FOLDER what is not there yet; a tool that fails is told and passed over."""
    folder.mkdir(parents=True, exist_ok=True)
    subject = Subject.load(calibration)
    for name, make in MAKERS.items():
        file = folder / name
        if only not in name or file.exists():
            continue
        try:
            make(subject, file)
            click.echo(f"{file}: made")
        except Exception as error:
            click.echo(f"{file}: failed: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
