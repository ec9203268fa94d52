"""What each step of the quantization brings: one table, made by one command.

    python benchmarks/int8_ablation.py CALIBRATION EVALUATION [--output docs/int8-ablation.md]

`--step` and `--scheme` choose some of its rows.

The integer graph is simulated in PyTorch. Ranges and biases are found on CALIBRATION; agreement, KL
and SQNR against the FP32 network are those on EVALUATION.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

from effnet_calibration.activation_fitting import SHARE
from effnet_calibration.calibrate import Observed, observe, quantize
from effnet_calibration.quantized import simulate
from effnet_calibration.schemes import SCHEMES
from effnet_calibration.work import Settings
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.parity import compare
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.pictures.sets import ImageSet

if TYPE_CHECKING:
    from effnet_calibration.schemes import QuantizationScheme
    from effnet_edge.parity.comparison import ParityResult

ALL = Settings()
NOTHING = Settings(**{each.name: False for each in fields(Settings)})
STEPS = {
    "ranges only": NOTHING,
    "+ depthwise equalization": replace(NOTHING, equalize_depthwise=True),
    "+ projection equalization": replace(
        NOTHING, equalize_depthwise=True, equalize_projection=True
    ),
    "+ bias correction": replace(ALL, correct_gain=False),
    "+ gain of the logits: the default": ALL,
    "default, last blocks in 16 bit: OpenVINO's": replace(ALL, keep_last_blocks=True),
    "default, without depthwise equalization": replace(ALL, equalize_depthwise=False),
    "default, without projection equalization": replace(ALL, equalize_projection=False),
    "default, with fitted hard-swishes": replace(ALL, fitted_share=SHARE),
    "default, with equalized residual streams": replace(ALL, equalize_stream=True),
}


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


@click.command()
@click.argument("calibration", type=click.Path(exists=True, file_okay=False))
@click.argument("evaluation", type=click.Path(exists=True, file_okay=False))
@click.option("--variant", default="b0", show_default=True)
@click.option("--step", "steps", multiple=True, type=click.Choice([*STEPS]), default=[*STEPS])
@click.option(
    "--scheme", "schemes", multiple=True, type=click.Choice([*SCHEMES]), default=[*SCHEMES]
)
@click.option("--output", type=click.Path(path_type=Path), help="A Markdown file to write.")
def main(
    calibration: str,
    evaluation: str,
    variant: str,
    steps: tuple[str, ...],
    schemes: tuple[str, ...],
    output: Path | None,
) -> None:
    """Measure every step on the pictures of EVALUATION, calibrated on those of CALIBRATION."""
    source = load_source(NetworkRequest(variant))
    folded = fold_batch_norm(source.network)
    observed = observe(folded, ImageSet.from_folder(calibration), source.preprocessing)
    pictures = ImageSet.from_folder(evaluation)
    lines = [
        "# What each step of the INT8 quantization brings",
        "",
        f"{variant}, calibrated on {len(ImageSet.from_folder(calibration))} pictures, "
        f"judged on {len(pictures)} others; made by `benchmarks/int8_ablation.py`.",
        "",
        "| step | scheme | KL, nats | agrees with FP32 % | SQNR, dB |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    rows = [(SCHEMES[scheme], step) for scheme in schemes for step in steps]
    for scheme, step in track(rows, "quantizing", console=Console(stderr=True)):
        result = judge(observed, scheme, STEPS[step], pictures)
        lines.append(
            f"| {step} | {scheme.name} | {result.kl:.4f} | {100 * result.top1_agreement:.1f} "
            f"| {result.sqnr_db:.1f} |"
        )
    text = "\n".join(lines) + "\n"
    Console().print(Markdown(text))
    if output is not None:
        output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
