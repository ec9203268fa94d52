"""`effnet-edge export`: from PyTorch to a verified bundle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from effnet_edge.cli.checked import CheckedCommand
from effnet_edge.cli.common import (
    common_options,
    console,
    print_document,
    say,
    settings,
    stage_display,
)
from effnet_edge.cli.destinations import check_bundle
from effnet_edge.cli.engine_options import capabilities
from effnet_edge.cli.network_options import (
    NetworkOf,
    batch_option,
    calibration_options,
    labels_option,
    network_options,
    precision_options,
    target_option,
)
from effnet_edge.cli.numbers import Number
from effnet_edge.cli.shown_paths import for_a_shell, shown_path
from effnet_edge.cli.signatures import signing_key_of, signing_option
from effnet_edge.cli.stages import STAGES
from effnet_edge.cli.variant_names import VariantName
from effnet_edge.machine import OPENVINO_INT8_ON_ARM
from effnet_edge.outputs import told_outputs
from effnet_edge.targets import TARGETS
from effnet_edge.text import plain

if TYPE_CHECKING:
    from types import ModuleType

    from rich.table import Table

    from effnet_edge.bundle import Bundle
    from effnet_edge.bundle.signing import SigningKey
    from effnet_edge.parity import ParityResult
    from effnet_export.pipeline import ExportResult


@click.command("export", cls=CheckedCommand, short_help="Export a variant to a verified bundle.")
@click.argument("variant", type=VariantName())
@target_option
@network_options
@precision_options
@labels_option
@click.option(
    "--input",
    "input_kind",
    type=click.Choice(["uint8-nhwc", "float32-nchw"]),
    default="uint8-nhwc",
    show_default=True,
    help="Pixels with the normalization inside the model, or normalized tensors.",
)
@batch_option
@calibration_options
@click.option(
    "--max-drop",
    type=Number(min=0),
    metavar="POINTS",
    help="For INT8: keep the fewest tensors in 16 bit that hold the top-1 drop on the calibration "
    "pictures, which must be labelled, to so many points.",
)
@click.option(
    "--max-kl",
    type=Number(min=0),
    metavar="NATS",
    help="The same for the KL divergence from FP32; needs no labels.",
)
@click.option(
    "--max-nrmse",
    type=Number(min=0),
    metavar="SHARE",
    help="The same for a --regression: the root mean square error as a share of the spread of the "
    "values.",
)
@click.option(
    "--weight-bits",
    type=click.Choice(["7", "8"]),
    help="For INT8 on x86: 7 where the device has no VNNI, whose sums of INT8 products overflow "
    "otherwise. [default: what this machine needs]",
)
@click.option(
    "--fast-activations/--exact-activations",
    default=None,
    help="Fit hard-swishes on the calibration pictures, in the place of most SiLUs, or of none: "
    "faster on OpenVINO and LiteRT. [default: in INT8 bent ones, which lose less]",
)
@click.option(
    "--require-engine",
    is_flag=True,
    help="For TensorRT: fail where the engine cannot be built here.",
)
@click.option(
    "--compute-capability",
    metavar="X.Y,…",
    help="For TensorRT-RTX: the GPU generations to build for. [default: 8.6,8.9,12.0]",
)
@click.option(
    "--against",
    metavar="PACKAGE[:MODEL]|FILE",
    help="First compare the network with the original: by a package (timm, geffnet, "
    "efficientnet-pytorch, torchvision), or a file (.onnx, .xml, or .npz with its logits).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The bundle's directory. [default: VARIANT-TARGET-PRECISION]",
)
@signing_option
@click.option("--force", is_flag=True, help="Replace a bundle that is there already.")
@common_options
def command(
    variant: str,
    target: str,
    precision: str | None,
    network: NetworkOf,
    labels: Path | None,
    input_kind: str,
    batch: tuple[int, int, int],
    calibration: Path | None,
    calibration_size: int,
    max_drop: float | None,
    max_kl: float | None,
    max_nrmse: float | None,
    weight_bits: str | None,
    fast_activations: bool | None,
    require_engine: bool,
    compute_capability: str | None,
    against: str | None,
    output: Path | None,
    signing_key: Path | None,
    force: bool,
) -> None:
    """Export VARIANT (see effnet-edge list) to a bundle, checking it against PyTorch at every step.

    `effnet-edge export b0` needs nothing else: B0's ImageNet weights are in the package.
    """
    from effnet_edge.bundle import BatchRange
    from effnet_export.naming import default_directory

    output = output or default_directory(variant, target, TARGETS[target].precision(precision))
    check_bundle(output, force=force)
    generations = capabilities(compute_capability)
    key = signing_key_of(signing_key)
    asked = network(variant)
    if calibration is None and (precision == "int8" or fast_activations):
        say(
            "calibrating on embedded photos: your own are better (--calibration DIR), "
            "the more like those of the device"
        )
    with stage_display() as display:
        display.stage(STAGES["load"])  # PyTorch's import takes seconds, too
        pipeline, requests = _modules()
        request = requests.ExportRequest(
            network=asked,
            target=target,
            precision=precision,
            labels=labels,
            input_kind=input_kind,
            batch=BatchRange(*batch),
            calibration=calibration,
            calibration_size=calibration_size,
            max_drop=max_drop,
            max_kl=max_kl,
            max_nrmse=max_nrmse,
            weight_bits=int(weight_bits) if weight_bits else None,
            fast_activations=fast_activations,
            require_engine=require_engine,
            compute_capabilities=generations,
            against=against,
            output=output,
        )
        result = pipeline.export_bundle(
            request, lambda stage: display.stage(STAGES[stage]), display.progress, key
        )
    _report(result, key)


def _modules() -> tuple[ModuleType, ModuleType]:
    from effnet_edge.extras import needed_for

    with needed_for("export", "export"):
        from effnet_export import pipeline, request
    return pipeline, request


def _report(result: ExportResult, key: SigningKey | None) -> None:
    bundle = result.bundle
    if settings().json:
        print_document(
            {
                "bundle": str(bundle.path),
                "bytes": _bytes(bundle),
                "seconds": {stage: round(time, 3) for stage, time in result.seconds.items()},
                "parity": json.loads(bundle.manifest.to_json())["parity"],
                "kept": _told(bundle, "kept"),
                "fast_activations": _told(bundle, "fast_activations"),
                "fast_activations_left_out": _too_far(result),
                "mixed_precision": _mixed_document(result),
                "signed_by": key and key.fingerprint,
            }
        )
        return
    console().print(_parity_table(bundle))
    _report_original(bundle)
    _report_kept(result)
    _report_fast_activations(result)
    console().print(
        f"{shown_path(bundle)}: {_bytes(bundle) / 1e6:.1f} MB, "
        f"{sum(result.seconds.values()):.1f} s",
        markup=False,
    )
    _ask_for_labels(bundle)
    _warn_of_arm(bundle)
    say(_next_step(bundle))


def _report_original(bundle: Bundle) -> None:
    first = bundle.manifest.parity[0]
    if first.stage == "original":
        click.echo(f"The original: {plain(first.reference)}")


def _ask_for_labels(bundle: Bundle) -> None:
    output = bundle.manifest.output
    if bundle.labels is None and output.kind != "features" and output.classes > 1:
        told = told_outputs(output.kind, output.classes)
        say(f"its {told} have no names: export it with --labels FILE")


def _warn_of_arm(bundle: Bundle) -> None:
    if (bundle.manifest.target, bundle.manifest.precision) == ("openvino", "int8"):
        say(f"{OPENVINO_INT8_ON_ARM}, from Armv8.2 on: for those export it with --fp32 or --fp16")


def _next_step(bundle: Bundle) -> str:
    path, manifest = for_a_shell(bundle), bundle.manifest
    if manifest.engines:
        return f"Next: copy {path} to the device, whose program loads {manifest.engines[-1].file}"
    if TARGETS[manifest.target].built_on_device:
        return f"No engine was built here. Next, on the device: effnet-edge build {path}"
    if manifest.output.kind == "features":
        return f"Next: effnet-edge parity {path} --images PHOTOS; in Python, EngineRunner.infer"
    return f"Next: effnet-edge predict {path} PHOTO"


def _told(bundle: Bundle, field: Literal["kept", "fast_activations"]) -> list[str]:
    calibration = bundle.manifest.calibration
    return list(getattr(calibration, field)) if calibration else []


def _too_far(result: ExportResult) -> list[str]:
    return list(result.tabulated.too_far) if result.tabulated else []


def _mixed_document(result: ExportResult) -> dict[str, object] | None:
    if result.mixed is None:
        return None
    return {
        "tensors": result.mixed.tensors,
        "attempts": result.mixed.attempts,
        "loss": result.mixed.best.loss.to_dict(),
        "loss_without_budget": result.mixed.start.loss.to_dict(),
        "latency": result.latency
        and {
            "ratio": result.latency[1].timing.ratio,
            "without_budget": asdict(result.latency[0].timing),
            "bundle": asdict(result.latency[1].timing),
        },
    }


def _report_kept(result: ExportResult) -> None:
    kept, mixed = _told(result.bundle, "kept"), result.mixed
    if mixed is not None:
        click.echo(
            f"{len(kept) or 'None'} of {mixed.tensors} tensors stay in 16 bit "
            f"({mixed.attempts} choices tried){':' if kept else '.'}"
        )
    elif kept:
        click.echo("In 16 bit:")
    for name in kept:
        click.echo(f"  {plain(name)}")
    if mixed is None:
        return
    if mixed.keeps_more:
        click.echo(f"Without the budget: {_loss(mixed.start.loss)}")
    click.echo(f"So: {_loss(mixed.best.loss)}")
    say(
        f"Both the choice and the loss are from the calibration pictures, simulated: "
        f"confirm with effnet-edge parity {for_a_shell(result.bundle)} on other pictures"
    )
    if result.latency is not None:
        timing = result.latency[1].timing
        click.echo(
            f"Latency: {timing.ratio:.2f} of that without the budget "
            f"(medians of {timing.runs} calls in turns: a short measurement)"
        )


def _report_fast_activations(result: ExportResult) -> None:
    if too_far := _too_far(result):
        click.echo(f"Every SiLU stays: with fitted hard-swishes {'; '.join(too_far)}")
    elif replaced := _told(result.bundle, "fast_activations"):
        first, last = plain(replaced[0]), plain(replaced[-1])
        layers = f"{len(replaced)} layers, {first} to {last}" if len(replaced) > 1 else first
        click.echo(f"A fitted hard-swish is behind {layers}")


def _loss(loss: ParityResult) -> str:
    from effnet_edge.parity.measures.table import measures_of

    document = loss.to_dict()
    told = [
        f"{measure.title(loss.output)} {measure.tell_result(document)}"
        for measure in measures_of(loss.output)
        if measure.overview and loss.value(measure.key) is not None
    ]
    return f"{', '.join(told)} ({loss.images} pictures)"


def _bytes(bundle: Bundle) -> int:
    return sum(record.bytes for record in bundle.manifest.files.values())


def _parity_table(bundle: Bundle) -> Table:
    from rich.table import Table
    from rich.text import Text

    from effnet_edge.parity.measures.gates import tell_verdict
    from effnet_edge.parity.measures.table import measures_of

    kind = bundle.manifest.output.kind
    shown = [each for each in measures_of(kind) if each.overview and each.kept]
    last = bundle.manifest.parity[-1]
    table = Table(
        title=Text(
            f"Parity with PyTorch on {plain(bundle.manifest.parity_images)}\n"
            "(with its limit, where one was set; the relative error is that of the range of the "
            f"{bundle.manifest.output.name}; {last.stage}: also at batch "
            f"{', '.join(map(str, last.batch_sizes))})"
        ),
        title_justify="left",
    )
    table.add_column("stage")
    table.add_column("ran in")
    for measure in shown:
        table.add_column(measure.title(kind), justify="right")
    table.add_column("gate")
    for stage in bundle.manifest.parity:
        table.add_row(
            stage.stage,
            stage.execution_precision,
            *(measure.tell_held(stage.measures.get(measure.key)) for measure in shown),
            tell_verdict(stage.holds),
        )
    return table
