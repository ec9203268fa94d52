"""`effnet-edge info`: what a variant is, or what is in a bundle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from effnet_edge.cli.choice_table import told_contenders
from effnet_edge.cli.common import common_options, console, print_json, settings
from effnet_edge.model.variants import VARIANTS, Variant, get_variant
from effnet_edge.text import plain

if TYPE_CHECKING:
    from effnet_edge.bundle import Bundle, Manifest
    from effnet_edge.model.remote.registry import NamedFile


@click.command("info", short_help="Describe a variant or a bundle.")
@click.argument("name", metavar="VARIANT|BUNDLE")
@common_options
def command(name: str) -> None:
    """Describe a variant (see effnet-edge list) or a bundle, whose files are checked on the way."""
    if name.lower() in VARIANTS and not Path(name).exists():
        _variant(get_variant(name))
        return
    from effnet_edge.bundle import Bundle
    from effnet_edge.errors import UsageError

    if not Path(name).exists():
        raise UsageError(
            f"'{name}' is neither a variant ({', '.join(VARIANTS)}) nor a bundle's directory"
        )
    _bundle(Bundle.load(name))


def _variant(variant: Variant) -> None:
    from effnet_edge.model.remote.registry import NAMED_WEIGHTS

    stages, named = variant.stages(), NAMED_WEIGHTS[variant.name]
    if settings().json:
        print_json(
            {
                **asdict(variant),
                "named_weights": [_weights_row(*item) for item in named.items()],
                "parameters": variant.parameter_count(),
                "multiply_adds": variant.multiply_adds(),
                "stem_channels": variant.stem_channels,
                "head_channels": variant.head_channels,
                "stages": [[asdict(block) for block in stage] for stage in stages],
            }
        )
        return
    from rich.table import Table

    out = console()
    out.print(
        f"{variant.title}: {variant.resolution} px, "
        f"{variant.parameter_count() / 1e6:.2f} M parameters, "
        f"{variant.multiply_adds() / 1e9:.2f} G multiply-adds, dropout {variant.dropout:g}, "
        f"top-1 {variant.published.top1:g} % ({variant.published.source})",
        markup=False,
    )
    table = Table()
    for heading in ("stage", "blocks", "channels", "kernel", "stride", "expansion"):
        table.add_column(heading, justify="right")
    table.add_row("stem", "1", str(variant.stem_channels), "3", "2", "")
    for index, blocks in enumerate(stages):
        first = blocks[0]
        table.add_row(
            str(index),
            str(len(blocks)),
            str(first.out_channels),
            str(first.kernel),
            str(first.stride),
            str(first.expand_ratio),
        )
    table.add_row("head", "1", str(variant.head_channels), "1", "1", "")
    out.print(table)
    for name, file in named.items():
        out.print(_described(name, file), markup=False)


def _described(name: str, file: NamedFile) -> str:
    row = _weights_row(name, file)
    accuracy = f"top-1 {row['top1']:g} % ({row['published_in']}), " if row["top1"] else ""
    return f"--weights {name}: {accuracy}{row['source']}"


def _weights_row(name: str, file: NamedFile) -> dict[str, object]:
    from effnet_edge.model.remote.registry import Download, PackagedFile

    if isinstance(file, Download):
        return {
            "name": name,
            "source": file.url,
            "licence": file.licence,
            "top1": file.published.top1,
            "published_in": file.published.source,
        }
    if isinstance(file, PackagedFile):
        source, licence = f"package {file.package}", None
    else:
        source, licence = file.source, file.licence
    return {
        "name": name,
        "source": source,
        "licence": licence,
        "top1": None,
        "published_in": None,
    }


def _quantized(manifest: Manifest) -> dict[str, str]:
    """What INT8 left in 16 bit, and the activations that were replaced."""
    calibration = manifest.calibration
    if calibration is None:
        return {}
    replaced = calibration.fast_activations
    behind = f"behind {replaced[0]} to {replaced[-1]} ({len(replaced)})" if replaced else "none"
    kept = {"in 16 bit": ", ".join(calibration.kept) or "none"}
    return (kept if manifest.precision == "int8" else {}) | {"fitted hard-swishes": behind}


def _bundle(bundle: Bundle) -> None:
    manifest = bundle.manifest
    if settings().json:
        print_json({"path": str(bundle.path), "manifest": json.loads(manifest.to_json())})
        return
    from rich.table import Table

    from effnet_edge.outputs import told_outputs
    from effnet_edge.parity.measures.table import measures_of

    table = Table(
        title=f"{plain(bundle.path)} (all files intact)", title_justify="left", show_header=False
    )
    size = sum(record.bytes for record in manifest.files.values())
    batch = manifest.batch
    rows = {
        "model": (
            f"{get_variant(manifest.variant).title}, "
            f"{told_outputs(manifest.output.kind, manifest.output.classes)}"
        ),
        "target": f"{manifest.target}, {' or '.join(manifest.precisions)}",
        "size": f"{size / 1e6:.1f} MB in {len(manifest.files)} files",
        "input": (
            f"{manifest.input.name}: {manifest.input.dtype} {manifest.input.layout}, "
            f"{manifest.preprocessing.resolution} px (height×width), "
            f"{manifest.input.channels} channel{'s' if manifest.input.channels > 1 else ''}"
        ),
        "pictures": (
            f"fit {manifest.preprocessing.fit}, "
            f"crop fraction {manifest.preprocessing.crop_fraction:.3g}, "
            f"{manifest.preprocessing.interpolation}"
        ),
        "batch": (
            str(batch.maximum)
            if batch.minimum == batch.maximum
            else f"{batch.minimum} to {batch.maximum}, best {batch.optimum}"
        ),
        **_quantized(manifest),
        "labels": manifest.labels or "none",
        "weights": f"{manifest.weights.name}: {manifest.weights.source}",
        "built": f"{manifest.created} on {manifest.machine.processor}",
        "tools": ", ".join(f"{tool} {version}" for tool, version in manifest.tools.items()),
        "parity": f"on {manifest.parity_images}" if manifest.parity else "not measured",
    }
    kind = manifest.output.kind
    shown = [each for each in measures_of(kind) if each.overview and each.kept]
    for stage in manifest.parity:
        told = [
            f"{each.title(kind)} {each.tell_held(stage.measures.get(each.key))}" for each in shown
        ]
        rows[f"  {stage.stage}"] = ", ".join([stage.execution_precision, *told])
    for record in manifest.engines:
        checked = "not compared where it was built" if record.check is None else str(record.check)
        rows[record.file] = f"{record.library} {record.library_version}, {record.batch}: {checked}"
    if manifest.choice is not None:
        chosen = manifest.choice.chosen
        rows["graphs"] = (
            "several: effnet-edge build, on the device, keeps the fastest"
            if chosen is None
            else f"{chosen} was the fastest where the engine was built"
        )
        told_of = told_contenders(manifest)
        rows.update({f"  {name}": line for name, line in told_of.items()})
    for heading, text in rows.items():
        table.add_row(plain(heading), plain(text))
    console().print(table)
