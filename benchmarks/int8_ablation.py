"""What each step of the quantization brings: one table, made by one command.

    python benchmarks/int8_ablation.py CALIBRATION EVALUATION [--output docs/int8-ablation.md]

The integer graph is simulated in PyTorch. Ranges and biases are found on CALIBRATION; agreement, KL
and SQNR against the FP32 network are those on EVALUATION.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

from effnet_calibration.bias_correction import OutputCollector
from effnet_calibration.calibrate import Settings, choose_grids, correct, integer_pixels
from effnet_calibration.image_sets import CalibrationPictures
from effnet_calibration.memory import batch_size, images_in_memory
from effnet_calibration.quantized import apply_quantization
from effnet_calibration.schemes import SCHEMES
from effnet_calibration.sites import channels_last
from effnet_calibration.statistics import StatisticsCollector
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.parity import compare
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.pictures.sets import ImageSet

if TYPE_CHECKING:
    from effnet_calibration.bias_correction import ExactOutputs
    from effnet_calibration.schemes import QuantizationScheme
    from effnet_calibration.statistics import TensorStatistics
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.parity import ParityResult
    from effnet_edge.pictures.image import Preprocessing

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
    "default, without depthwise equalization": replace(ALL, equalize_depthwise=False),
    "default, without projection equalization": replace(ALL, equalize_projection=False),
    "default, with equalized residual streams": replace(ALL, equalize_stream=True),
}


@dataclass(frozen=True)
class Subject:
    """A folded network with its statistics and outputs on the pictures."""

    network: EfficientNet
    preprocessing: Preprocessing
    statistics: dict[str, TensorStatistics]
    exact: ExactOutputs

    def judge(
        self, scheme: QuantizationScheme, settings: Settings, pictures: ImageSet
    ) -> ParityResult:
        """Quantize with those settings, and compare with the network itself."""
        draft = choose_grids(self.network, self.statistics, scheme, settings)
        draft = replace(draft, pixels=integer_pixels(scheme, self.preprocessing))
        quantization = correct(self.network, draft, self.exact, settings)
        simulated = apply_quantization(self.network, quantization).simulated()
        return compare(
            TorchClassifier(self.network, self.preprocessing, "FP32"),
            TorchClassifier(simulated, self.preprocessing, "INT8"),
            pictures,
            self.preprocessing,
        )


def observe(variant: str, pictures: ImageSet) -> Subject:
    """Load the variant, and pass the pictures through it."""
    source = load_source(NetworkRequest(variant))
    network = channels_last(fold_batch_norm(source.network))
    seen = CalibrationPictures(pictures, source.preprocessing, batch_size(network))
    limit = images_in_memory(network)
    with StatisticsCollector(network) as collector, OutputCollector(network, limit) as outputs:
        for batch in seen.batches():
            outputs.offer(batch)
            collector.run(batch)
    return Subject(network, source.preprocessing, collector.statistics(), outputs.outputs())


@click.command()
@click.argument("calibration", type=click.Path(exists=True, file_okay=False))
@click.argument("evaluation", type=click.Path(exists=True, file_okay=False))
@click.option("--variant", default="b0", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="A Markdown file to write.")
def main(calibration: str, evaluation: str, variant: str, output: Path | None) -> None:
    """Measure every step on the pictures of EVALUATION, calibrated on those of CALIBRATION."""
    subject = observe(variant, ImageSet.from_folder(calibration))
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
    rows = [(scheme, step) for scheme in SCHEMES.values() for step in STEPS]
    for scheme, step in track(rows, "quantizing", console=Console(stderr=True)):
        result = subject.judge(scheme, STEPS[step], pictures)
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
