"""Which options contradict each other, or have nothing to do: ONE table for all commands.

It imports nothing heavy, so that a contradiction is told before PyTorch is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError
from effnet_edge.machine import NO_EIGHT_BITS, int8_overflows
from effnet_edge.outputs import ONE_OUTPUT
from effnet_edge.targets import (
    DEFAULT_TARGET,
    TARGETS,
    Target,
    built_on_device,
    with_faster_hard_swish,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TABLE_SUFFIX = ".json"
_PRECISIONS = ("--fp32", "--fp16", "--int8")
_BUDGETS = ("--max-drop", "--max-kl", "--max-nrmse")
_KINDS = ("--multi-label", "--regression", "--features")
_OF_NETWORKS = ("export", "parity", "sensitivity", "tune")
_NETWORK = (
    "--variant",
    "--num-classes",
    *_KINDS,
    "--resolution",
    "--fit",
    "--mean",
    "--std",
)
_CONVENTIONS = ("--padding", "--batch-norm-eps", "--pooling", "--activation")


@dataclass(frozen=True)
class Asked:
    """What a person asked a command for.

    Attributes:
        command: "export", "parity", "sensitivity" or "tune".
        given: the options that were given, by their long name, with their values.
        has_bundle: whether one of the models is a bundle, which tells its own network.
        served: whether the reference, or all models besides, are behind servers.
    """

    command: str
    given: Mapping[str, object] = field(default_factory=dict)
    has_bundle: bool = False
    served: bool = False

    @property
    def target(self) -> Target:
        """The row of --target."""
        return TARGETS[str(self.given.get("--target", DEFAULT_TARGET))]

    @property
    def precision(self) -> str:
        """That of an export, its target's default where none was given."""
        given = next((each[2:] for each in _PRECISIONS if each in self.given), None)
        return given or self.target.precisions[0]

    @property
    def int8(self) -> bool:
        """Whether there is something that is quantized."""
        return self.command in {"sensitivity", "tune"} or self.precision == "int8"

    @property
    def replaces_silu(self) -> bool:
        """Whether a hard-swish would save time in the place of a SiLU."""
        return self.precision in self.target.faster_hard_swish

    @property
    def fits_activations(self) -> bool:
        """Whether hard-swishes are fitted on pictures, or a table has them."""
        return "--fast-activations" in self.given or (self.table and self.replaces_silu)

    @property
    def table(self) -> bool:
        """Whether --calibration names a table rather than pictures."""
        path = self.given.get("--calibration")
        return path is not None and Path(str(path)).suffix == TABLE_SUFFIX

    @property
    def tells_kind(self) -> bool:
        """Whether it is said what the outputs are, here or by a bundle."""
        return self.has_bundle or any(each in self.given for each in _KINDS)

    @property
    def has_other_channels(self) -> bool:
        """Whether pictures of one's own are all there is to compare on."""
        values = self.given.get("--mean") or self.given.get("--std")
        return isinstance(values, tuple) and len(values) not in {1, 3}

    @property
    def tries_fp16(self) -> bool:
        """Whether FP16 is tried on pictures, as it is where the device builds the engine."""
        return self.command == "export" and self.target.built_on_device and self.precision != "fp32"


@dataclass(frozen=True)
class Rule:
    """Options that may not be given where `clashes`.

    Attributes:
        options: it holds for those of them that were given, `least` of them or more.
        clashes: whether they contradict what else was asked for, or would do nothing.
        says: why, with `{given}` for the options, `{target}`, `{precision}` and `{calibration}`.
        commands: that it holds for.
    """

    options: tuple[str, ...]
    clashes: Callable[[Asked], bool]
    says: str
    commands: tuple[str, ...] = ("export",)
    least: int = 1


RULES = (
    Rule(_PRECISIONS, lambda _: True, "{given} exclude each other: give one of them", least=2),
    Rule(
        ("--multi-label", "--features"),
        lambda _: True,
        "{given}: a network without classifier has no labels",
        _OF_NETWORKS,
        least=2,
    ),
    Rule(
        _KINDS,
        lambda _: True,
        "{given} each tell another kind of output: give one of them",
        _OF_NETWORKS,
        least=2,
    ),
    Rule(
        ("--num-classes",),
        lambda asked: str(asked.given["--num-classes"]) == "1" and not asked.tells_kind,
        f"{{given}} 1: {ONE_OUTPUT}",
        _OF_NETWORKS,
    ),
    Rule(
        ("--images", "--labels"),
        lambda asked: str(asked.given["--labels"]).lower().endswith(".csv"),
        "{given} each name a set of pictures: give one of them",
        ("parity",),
        least=2,
    ),
    Rule(
        ("--labels",),
        lambda asked: "--features" in asked.given,
        "{given} does not go with --features: features are no classes",
        ("export", "parity", "tune"),
    ),
    Rule(
        ("--num-classes",),
        lambda asked: "--features" in asked.given,
        "{given} does not go with --features, which leaves the classifier out",
        _OF_NETWORKS,
    ),
    Rule(
        ("--layers", "--bisect"),
        lambda asked: asked.served,
        "{given} looks into a model, and a server gives answers only: compare the bundle itself",
        ("parity",),
    ),
    Rule(
        ("--weight-bits",),
        lambda asked: not asked.target.overflows and str(asked.given["--weight-bits"]) == "7",
        "{given} 7 is for x86 processors that overflow, not for --target {target}",
    ),
    Rule(
        ("--weight-bits",),
        lambda asked: (
            asked.target.overflows and str(asked.given["--weight-bits"]) == "8" and int8_overflows()
        ),
        f"{{given}} 8: {NO_EIGHT_BITS}",
    ),
    Rule(
        _BUDGETS,
        lambda asked: asked.int8 and asked.target.rounds_outputs,
        "{given} leaves tensors in 16 bit, which --target {target} does not: leave it out",
    ),
    Rule(
        ("--target",),
        lambda asked: asked.target.rounds_outputs,
        "{given} {target}: it rounds more than the inputs of layers: choose another target",
        ("sensitivity",),
    ),
    Rule(
        (*_BUDGETS, "--weight-bits"),
        lambda asked: not asked.int8,
        "{given} goes with --int8: nothing else is quantized",
    ),
    Rule(
        _BUDGETS,
        lambda asked: "--features" in asked.given,
        "{given} goes with classes or values, and --features leaves none: leave it out",
        ("export", "tune"),
    ),
    Rule(
        ("--max-drop", "--max-kl"),
        lambda asked: "--regression" in asked.given,
        "{given} goes with classes, which a regression has none of: use --max-nrmse",
        ("export", "tune"),
    ),
    Rule(
        ("--max-nrmse",),
        lambda asked: "--regression" not in asked.given and not asked.has_bundle,
        "{given} goes with --regression: use --max-kl, or with labelled pictures --max-drop",
        ("export", "tune"),
    ),
    Rule(
        ("--max-drop",),
        lambda asked: "--multi-label" in asked.given,
        "{given} goes with one class a picture: use --max-kl",
        ("export", "tune"),
    ),
    Rule(
        _BUDGETS,
        lambda asked: asked.table,
        "{given} needs pictures to measure on: give --calibration DIR or CSV, "
        "or leave {given} out to use {calibration} as it is",
    ),
    Rule(
        ("--fast-activations",),
        lambda asked: not asked.replaces_silu,
        "{given} makes nothing faster on {target} with --{precision}: leave it out, or choose "
        f"--target {' or '.join(with_faster_hard_swish('int8'))}",
    ),
    Rule(
        ("--fast-activations",),
        lambda asked: asked.table,
        "{given} needs pictures to fit on: give --calibration DIR or CSV, "
        "or leave {given} out to use {calibration} as it is",
    ),
    Rule(
        ("--exact-activations",),
        lambda asked: not (asked.int8 and asked.replaces_silu),
        "{given}: nothing takes the place of a SiLU on {target} with --{precision}: leave it out",
    ),
    Rule(
        ("--exact-activations",),
        lambda asked: asked.table,
        "{given} needs pictures to calibrate on: give --calibration DIR or CSV, "
        "or leave {given} out to use {calibration} as it is",
    ),
    Rule(
        ("--calibration", "--calibration-size"),
        lambda asked: (
            not (
                asked.int8 or asked.fits_activations or asked.tries_fp16 or asked.has_other_channels
            )
        ),
        "{given} goes with --int8, with --fast-activations, and for TensorRT with --fp16: nothing "
        "else looks at pictures",
    ),
    Rule(
        ("--calibration",),
        lambda asked: asked.table and not (asked.int8 or asked.fits_activations),
        "{given} {calibration}: a calibration table goes with --int8: give pictures",
    ),
    Rule(
        ("--calibration-size",),
        lambda asked: asked.table and not asked.tries_fp16,
        "{given} goes with pictures: the table {calibration} is used as it is",
        ("export", "sensitivity"),
    ),
    Rule(
        ("--require-engine",),
        lambda asked: not asked.target.built_on_device,
        f"{{given}} goes with {' and '.join(built_on_device())}: {{target}} has no engine",
    ),
    Rule(
        ("--compute-capability",),
        lambda asked: not asked.target.builds_ahead,
        "{given} goes with --target tensorrt-rtx: {target} is not compiled ahead for a GPU",
    ),
    Rule(
        ("--max-latency",),
        lambda asked: asked.target.built_on_device,
        "{given} with --target {target}: only the device that builds the engine can tell its time: "
        "give it to `effnet-edge build` there",
        ("tune",),
    ),
    Rule(
        ("--report",),
        lambda asked: asked.target.built_on_device,
        "{given} draws loss against time, and only the device that builds the engine can tell that "
        "of --target {target}: leave it out, and see what `effnet-edge build` prints there",
        ("tune",),
    ),
    Rule(
        ("--calibration",),
        lambda asked: asked.table,
        "{given} {calibration}: every candidate has a table of its own: give pictures",
        ("tune",),
    ),
    Rule(
        (*_NETWORK, "--calibration", "--calibration-size", "--target"),
        lambda asked: asked.has_bundle,
        "{given} goes with a variant: a bundle tells its own network, and what it is calibrated by",
        ("parity", "sensitivity"),
    ),
    Rule(
        (*_NETWORK, *_CONVENTIONS, "--target", "--labels", "--batch"),
        lambda asked: asked.has_bundle,
        "{given} goes with a variant: a bundle tells its own network, and for what it was exported",
        ("tune",),
    ),
    Rule(
        _CONVENTIONS,
        lambda asked: asked.has_bundle,
        "{given} goes with a variant: a bundle tells its own network",
        ("sensitivity",),
    ),
)


def check_options(asked: Asked) -> None:
    """Raise UsageError for the first rule that is broken."""
    for rule in RULES:
        given = [each for each in rule.options if each in asked.given]
        if asked.command in rule.commands and len(given) >= rule.least and rule.clashes(asked):
            raise UsageError(
                rule.says.format(
                    given=" and ".join(given),
                    target=asked.target.name,
                    precision=asked.precision,
                    calibration=asked.given.get("--calibration"),
                )
            )
