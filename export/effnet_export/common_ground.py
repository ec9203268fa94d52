"""What the models of a comparison must have in common: the pixels, and what their numbers mean."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import UsageError
from effnet_edge.labels import imagenet_labels
from effnet_edge.model.request import NetworkRequest
from effnet_edge.parity.models.ending import ENDING_NAMES, OUTPUT_OF_ENDING, Ending
from effnet_export.specs import DEFAULT_VARIANT, TORCH, checkpoint_of, is_network, is_variant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from effnet_edge.bundle import Bundle, Manifest
    from effnet_edge.labels import Label
    from effnet_edge.outputs import OutputKind
    from effnet_edge.pictures.image import Preprocessing


@dataclass(frozen=True)
class FileFacts:
    """How a model file or a served model was read.

    Attributes:
        model: its name.
        input, output: what goes in, in words, and what the output is called.
        ending: what its numbers went through last.
        ending_by_graph: whether the file shows that.
        about: what else is to be told of it, in sentences.
    """

    model: str
    input: str
    output: str
    ending: Ending | None
    ending_by_graph: bool = True
    about: tuple[str, ...] = ()

    @classmethod
    def of(cls, opened: Any, about: tuple[str, ...] = ()) -> FileFacts:
        """Of a model file or a served model that is open."""
        way_out = opened.way_out
        return cls(
            opened.name,
            str(opened.entrance),
            way_out.name,
            way_out.ending,
            way_out.by_graph,
            about,
        )

    @property
    def told_ending(self) -> str:
        """In words what it ends in, and how that is known where no graph shows it."""
        assert self.ending is not None
        by_answers = "" if self.ending_by_graph else " by its answers (see --ending)"
        return f"ends in {ENDING_NAMES[self.ending]}{by_answers}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values; "told" has lines for people."""
        lines = [
            f"{self.model} takes {self.input}",
            *(f"{self.model} {each}" for each in self.about),
        ]
        if self.ending is not None:
            lines.append(
                f"{self.model} {self.told_ending}: all models are compared as probabilities"
            )
        return {**asdict(self), "told": lines}


def bundles_preprocessing(manifests: Sequence[Manifest]) -> Preprocessing:
    """What all of these bundles do to pictures; raises UsageError where they differ."""
    first = manifests[0].preprocessing
    if any(manifest.preprocessing != first for manifest in manifests):
        raise UsageError(
            "the bundles prepare pictures differently (resolution, crop or normalization): "
            "compare each with torch instead"
        )
    return first


def agreed_output(
    bundles: Mapping[str, Bundle],
    files: Sequence[FileFacts],
    recorded: Mapping[str, OutputKind],
    asked: OutputKind,
) -> OutputKind:
    """What the numbers of all models mean: as bundles and ends of files tell, else as asked for.

    Args:
        recorded: what those of a file of answers mean.

    Raises:
        UsageError: two of these contradict each other.
    """
    told: dict[str, OutputKind] = {
        f"the bundle {spec}": bundle.manifest.output.kind for spec, bundle in bundles.items()
    }
    told |= {f"the model whose answers {spec} has": kind for spec, kind in recorded.items()}
    told |= {
        f"{each.model}, which {each.told_ending},": OUTPUT_OF_ENDING[each.ending]
        for each in files
        if each.ending is not None
    }
    if asked != "single-label":
        told[f"--{asked}"] = asked
    kinds = list(dict.fromkeys(told.values()))
    if len(kinds) > 1:
        (first, *_), (other, *_) = (
            [who for who, kind in told.items() if kind == each] for each in kinds[:2]
        )
        raise UsageError(
            f"{first} gives {kinds[0]} and {other} gives {kinds[1]}: compare models of the same "
            "output"
        )
    return kinds[0] if kinds else asked


def labels_of(bundles: Mapping[str, Bundle], asked: OutputKind) -> tuple[Label, ...]:
    """Of the first bundle; ImageNet's where there is none and the outputs are classes."""
    if bundles:
        return next(iter(bundles.values())).labels or ()
    return () if asked == "regression" else tuple(imagenet_labels())


def refuse_idle_options(specs: Sequence[str], asked: NetworkRequest) -> None:
    """Raise UsageError for options of a network where none is compared."""
    given = {
        "--weights": asked.weights,
        "--num-classes": asked.num_classes,
        **_conventions(asked),
    }
    idle = [f"{option} {value}" for option, value in given.items() if value is not None]
    if idle and not any(map(is_network, specs)):
        raise UsageError(
            f"{idle[0]} goes with a PyTorch network, and none is compared: leave it out, or give "
            "'torch' or a variant as a model"
        )


def refuse_told_network(asked: NetworkRequest, found: Mapping[str, Bundle]) -> None:
    """Raise UsageError for options of a network where a bundle that was found tells another one."""
    for path, bundle in found.items():
        plain = NetworkRequest(
            bundle.manifest.variant, weights=asked.weights, **asdict(asked.conventions)
        )
        if asked not in (plain, replace(plain, variant=DEFAULT_VARIANT)):
            raise UsageError(
                "the options from --variant to --std tell a network, and so does the bundle "
                f"{path}, which the server says that its model is from: leave them out"
            )


def refuse_other_network(specs: Sequence[str], asked: NetworkRequest, manifest: Manifest) -> None:
    """Raise UsageError for what contradicts the bundle, which tells the network of a comparison."""
    others = [spec for spec in specs if is_variant(spec) and spec.lower() != manifest.variant]
    if others:
        raise UsageError(
            f"{others[0]}: the bundle is of {manifest.variant}, and tells the network: give "
            f"'{TORCH}', or a checkpoint of {manifest.variant}"
        )
    told = [f"{option} {value}" for option, value in _conventions(asked).items() if value]
    if told and not any(map(checkpoint_of, specs)):
        raise UsageError(f"{told[0]} goes with a checkpoint or a variant: the bundle tells its own")


def _conventions(asked: NetworkRequest) -> dict[str, object]:
    """By the option that says it; None where it does not."""
    return {
        f"--{name.replace('_', '-')}": value for name, value in asdict(asked.conventions).items()
    }
