"""What each step of the quantization brings: one table for each target, made by one command.

    python benchmarks/int8_ablation.py CALIBRATION EVALUATION [--output docs/int8-ablation.md]

`--target` chooses some of the tables.

The integer graph is simulated in PyTorch. Ranges and biases are found on CALIBRATION; agreement, KL
and SQNR against the FP32 network are those on EVALUATION.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

from effnet_calibration.calibrate import Observed, observe, quantize
from effnet_calibration.quantized import simulate
from effnet_calibration.work import Settings
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.parity import compare
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.pictures.sets import ImageSet
from effnet_export.targets import target_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effnet_calibration.schemes import QuantizationScheme
    from effnet_edge.parity.comparison import ParityResult

STEPS = {
    "equalize_depthwise": "depthwise equalization",
    "equalize_projection": "projection equalization",
    "correct_biases": "bias correction",
    "correct_gain": "gain of the logits",
    "zero_in_middle": "signed bytes",
    "keep_depthwise": "small depthwise convolutions in 16 bit",
    "keep_last_blocks": "last blocks in 16 bit",
    "fitted_share": "hard-swishes",
    "refit_weights": "refitted weights",
    "bend_activations": "slopes of the hard-swishes",
}
"""Fields of `Settings` in the order in which the rows add them, and what the rows call them."""

TARGETS = {
    "openvino": ("openvino", 8),
    "openvino, weights of 7 bits": ("openvino", 7),
    "litert": ("litert", None),
    "tensorrt": ("tensorrt", None),
}
"""The tables: a target and the bits of its weights. onnxruntime's are OpenVINO's first rows."""


@dataclass(frozen=True)
class Row:
    """What a row is called, and what it is calibrated with."""

    step: str
    settings: Settings


def off(name: str) -> Any:
    """What a field of `Settings` is where its step is not done."""
    default = getattr(Settings(), name)
    return False if isinstance(default, bool) else default


def rows(own: Settings) -> Iterator[Row]:
    """A target's steps one after the other, then all but one of them, then what it leaves out."""
    nothing = replace(own, **{each.name: off(each.name) for each in fields(Settings)})
    done = nothing
    yield Row("ranges alone", nothing)
    steps = {name: text for name, text in STEPS.items() if getattr(own, name) != off(name)}
    for name, text in steps.items():
        done = replace(done, **{name: getattr(own, name)})
        yield Row(f"+ {text}{': the default' if done == own else ''}", done)
    for name, text in [*steps.items()][:-1]:
        yield Row(f"the default without {text}", replace(own, **{name: off(name)}))
    yield Row("the default with equalized residual streams", replace(own, equalize_stream=True))


def judge(
    observed: Observed, scheme: QuantizationScheme, settings: Settings, pictures: ImageSet
) -> ParityResult:
    """Quantize with those settings, and compare with the network itself."""
    network, preprocessing = observed.network, observed.preprocessing
    simulated = simulate(network, quantize(observed, scheme, settings))
    return compare(
        TorchClassifier(network, preprocessing, "FP32"),
        TorchClassifier(simulated, preprocessing, "INT8"),
        pictures,
        preprocessing,
    )


def table(name: str, observed: Observed, pictures: ImageSet) -> list[str]:
    """Lines of Markdown: the figures of every row of one target."""
    target = target_for(*TARGETS[name])
    lines = [
        "",
        f"## {name}",
        "",
        f"Scheme `{target.scheme.name}`.",
        "",
        "| step | KL, nats | agrees with FP32 % | SQNR, dB |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in track([*rows(target.settings)], name, console=Console(stderr=True)):
        result = judge(observed, target.scheme, row.settings, pictures)
        lines.append(
            f"| {row.step} | {result.kl:.4f} | {100 * result.top1_agreement:.1f} "
            f"| {result.sqnr_db:.1f} |"
        )
    return lines


@click.command()
@click.argument("calibration", type=click.Path(exists=True, file_okay=False))
@click.argument("evaluation", type=click.Path(exists=True, file_okay=False))
@click.option("--variant", default="b0", show_default=True)
@click.option(
    "--target", "targets", multiple=True, type=click.Choice([*TARGETS]), default=[*TARGETS]
)
@click.option("--output", type=click.Path(path_type=Path), help="A Markdown file to write.")
def main(
    calibration: str, evaluation: str, variant: str, targets: tuple[str, ...], output: Path | None
) -> None:
    """Measure every step on the pictures of EVALUATION, calibrated on those of CALIBRATION."""
    source = load_source(NetworkRequest(variant))
    folded = fold_batch_norm(source.network)
    calibrated_on, judged_on = ImageSet.from_folder(calibration), ImageSet.from_folder(evaluation)
    observed = observe(folded, calibrated_on, source.preprocessing)
    lines = [
        "# What each step of the INT8 quantization brings",
        "",
        f"{variant}, calibrated on {len(calibrated_on)} pictures, judged on {len(judged_on)} "
        "others; made by `benchmarks/int8_ablation.py`.",
    ]
    for name in targets:
        lines += table(name, observed, judged_on)
    text = "\n".join(lines) + "\n"
    Console().print(Markdown(text))
    if output is not None:
        output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
