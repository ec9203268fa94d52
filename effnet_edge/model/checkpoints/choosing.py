"""Which of a checkpoint's tensors are the network's.

Training code keeps them under names of its own, beside a loss's buffers, counters and other
networks. A network is found by the names and shapes of its tensors, behind whatever comes before
them.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from effnet_edge.errors import CheckpointError, CheckpointWarning, UsageError
from effnet_edge.model.checkpoints.belonging import Place, is_of_a_layer, tell_apart
from effnet_edge.model.checkpoints.entries import unwrapped, without_wrappers
from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES, NamingScheme, translate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from effnet_edge.model.checkpoints.entries import TensorEntry
    from effnet_edge.model.checkpoints.found import FoundCheckpoint

    Shapes = Mapping[str, tuple[int, ...]]

CLASSIFIER = "classifier"
STEM = "stem.conv.weight"
# Where averaged weights are kept: they are what evaluation uses (timm, torch.optim.swa_utils).
_AVERAGED = {"state_dict_ema", "ema_state_dict", "model_ema"}
_ANCHORS = (STEM, "stages.0.0.project.conv.weight", "head.conv.weight")
_WHOLE_SHARE = 0.9
_GROUPS_AT_MOST, _PREFIXES_AT_MOST = 32, 32
_NAMED_AT_MOST = 3
_AFTER_MODULE = re.compile(r"(?<=[./])")


@dataclass(frozen=True)
class Network:
    """The tensors of one network in a checkpoint.

    Attributes:
        scheme: whose names they have.
        entries: those that the network has, by the scheme's name.
        foreign: names of tensors that belong to layers which it has not.
        left_out: names of those that are nothing of a network: counters, buffers of a loss.
        statistics: what it normalizes its input with by itself, by name.
        has_head_without_bias: its classifier has a weight alone.
    """

    scheme: NamingScheme
    entries: dict[str, TensorEntry]
    foreign: tuple[str, ...]
    left_out: tuple[str, ...]
    statistics: Mapping[str, TensorEntry]
    has_head_without_bias: bool = False


@dataclass(frozen=True)
class _Candidate:
    """A place where a network may be.

    Attributes:
        path: of the dictionary.
        prefix: what comes before every name.
        fitting, named: how many of the network's tensors are there with the shape, or the name.
        is_whole: so many that it is a network of this variant.
    """

    path: str
    prefix: str
    scheme: NamingScheme
    fitting: int
    named: int
    is_whole: bool

    @property
    def label(self) -> str:
        """What a person calls it."""
        return ".".join(part for part in (self.path, self.prefix.rstrip("./_")) if part)

    def asked_for(self, part: str | None) -> str:
        """What comes before every name that was asked for: nothing, or no more than `prefix`."""
        if part is None:
            return ""
        wanted = part.strip("./")
        before = f".{self.label}.".find(f".{wanted}.")
        of_names = before + len(wanted) - len(f"{self.path}." if self.path else "")
        return self.prefix[: of_names + 1] if of_names > 0 else ""

    def rank(self) -> tuple[int, int, bool]:
        return self.fitting, self.named, not self.scheme.batch_norm_folded


def choose(found: FoundCheckpoint, own: Shapes) -> Network:
    """The network of the checkpoint that has tensors of these names and shapes.

    Args:
        own: shapes of our tensors, by our names.

    Raises:
        CheckpointError: the naming is unknown.
        UsageError: there are several networks, or none with the prefix that was asked for.
    """
    groups = unwrapped(found.checkpoint.groups)
    candidates = list(_candidates(groups, own))
    chosen = _chosen(found, candidates)
    if chosen is None:
        names = sorted(name for entries in groups.values() for name in entries)
        raise CheckpointError(
            f"{found.name} is not an EfficientNet checkpoint of a known naming "
            f"({', '.join(scheme.name for scheme in NAMING_SCHEMES)}): "
            f"its tensors are {some(names)}"
        )
    part = found.part or _averaged(chosen, candidates)
    network = _network(chosen, groups[chosen.path], own, chosen.asked_for(part))
    _tell(found, network)
    return network


def some(names: list[str] | tuple[str, ...]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _candidates(
    groups: Mapping[str, Mapping[str, TensorEntry]], own: Shapes
) -> Iterator[_Candidate]:
    """The best naming for every place."""
    namings = [(scheme, translate(own, scheme)) for scheme in NAMING_SCHEMES]
    largest = sorted(groups, key=lambda path: -len(groups[path]))[:_GROUPS_AT_MOST]
    for path in groups:
        if path not in largest:
            continue
        places: dict[str, list[_Candidate]] = {}
        for scheme, theirs in namings:
            for prefix in _prefixes(groups[path], theirs):
                candidate = _candidate(path, prefix, scheme, theirs, groups[path], own)
                places.setdefault(prefix, []).append(candidate)
        yield from _best([max(there, key=_Candidate.rank) for there in places.values()], namings)


def _best(
    candidates: list[_Candidate], namings: list[tuple[NamingScheme, dict[str, str]]]
) -> Iterator[_Candidate]:
    """One for each stem: `features.0.0` is that of one naming, and `0.0` of another behind it."""
    stems = {scheme.name: theirs[STEM] for scheme, theirs in namings}
    of_stem: dict[str, list[_Candidate]] = {}
    for each in candidates:
        of_stem.setdefault(each.prefix + stems[each.scheme.name], []).append(each)
    for there in of_stem.values():
        yield max(there, key=_Candidate.rank)


def _prefixes(entries: Mapping[str, TensorEntry], theirs: Mapping[str, str]) -> list[str]:
    """What comes before a name of the scheme, the shortest first."""
    anchors = tuple(theirs[anchor] for anchor in _ANCHORS if anchor in theirs)
    found = {""}
    for name in entries:
        if name.endswith(anchors):
            found |= {name.removesuffix(anchor) for anchor in anchors if name.endswith(anchor)}
    return sorted(found, key=lambda prefix: (len(prefix), prefix))[:_PREFIXES_AT_MOST]


def _candidate(
    path: str,
    prefix: str,
    scheme: NamingScheme,
    theirs: Mapping[str, str],
    entries: Mapping[str, TensorEntry],
    own: Shapes,
) -> _Candidate:
    backbone = [name for name in theirs if name.startswith(("stem.", "stages."))]
    there = [name for name in backbone if prefix + theirs[name] in entries]
    head = [name for name in theirs if name.startswith("head.")]
    head_there = [name for name in head if prefix + theirs[name] in entries]
    fitting = sum(entries[prefix + theirs[name]].shape == own[name] for name in there)
    is_whole = fitting >= _WHOLE_SHARE * len(backbone)
    return _Candidate(path, prefix, scheme, fitting, len(there) + len(head_there), is_whole)


def _chosen(found: FoundCheckpoint, candidates: list[_Candidate]) -> _Candidate | None:
    some_named = [candidate for candidate in candidates if candidate.named]
    whole = [candidate for candidate in candidates if candidate.is_whole]
    if found.part is not None:
        return _asked_for(found, found.part, whole or some_named)
    if len(whole) < 2:
        return max(whole or some_named, key=_Candidate.rank, default=None)
    averaged = [each for each in whole if _AVERAGED & set(each.label.split("."))]
    if len(averaged) != 1:
        raise UsageError(
            f"{found.name} holds {len(whole)} networks ({_labels(whole)}): choose one of them with "
            f"--weights FILE#PREFIX, such as {found.name}#{whole[0].label}"
        )
    others = [each for each in whole if each is not averaged[0]]
    _warn(
        f"{found.name} holds {len(whole)} networks: took the averaged one, {averaged[0].label}, "
        f"and not {_labels(others)}; --weights FILE#PREFIX takes another"
    )
    return averaged[0]


def _averaged(chosen: _Candidate, candidates: list[_Candidate]) -> str | None:
    """The part of the file that its averaged weights are, where it was taken before others."""
    if sum(candidate.is_whole for candidate in candidates) < 2:
        return None
    return next((part for part in chosen.label.split(".") if part in _AVERAGED), None)


def _asked_for(found: FoundCheckpoint, part: str, candidates: list[_Candidate]) -> _Candidate:
    wanted = part.strip("./")
    matching = (
        [each for each in candidates if each.label == wanted]
        or [each for each in candidates if each.label == without_wrappers(wanted)]
        or [each for each in candidates if f".{each.label}.".find(f".{wanted}.") >= 0]
    )
    if len(matching) != 1:
        there = "several networks" if matching else "no network"
        raise UsageError(
            f"--weights {found.name}#{part}: {there} of that prefix: "
            f"it holds {_labels(matching or candidates) or 'none'}"
        )
    return matching[0]


def _labels(candidates: list[_Candidate]) -> str:
    return ", ".join(each.label or "one without a prefix" for each in candidates)


def _network(
    chosen: _Candidate, entries: Mapping[str, TensorEntry], own: Shapes, asked_for: str
) -> Network:
    theirs = translate(own, chosen.scheme)
    telling = filter(None, [chosen.scheme.telling_tensor])
    known = {
        name: entries[chosen.prefix + name]
        for name in dict.fromkeys((*theirs.values(), *telling))
        if chosen.prefix + name in entries
    }
    used = {chosen.prefix + name for name in known}
    rest = {name: entry for name, entry in entries.items() if name not in used}
    head, bias = (theirs[f"{CLASSIFIER}.{leaf}"] for leaf in ("weight", "bias"))
    own_prefix = chosen.prefix if head in known else asked_for
    of_it = {name: entry for name, entry in rest.items() if name.startswith(asked_for)}
    columns = own[f"{CLASSIFIER}.weight"][1]
    if head not in known and (found := _only_matrix(of_it, columns, chosen.prefix)):
        layer = found.removesuffix("weight")
        own_prefix = _shared_start(chosen.prefix, layer)
        known[head] = rest.pop(found)
        if f"{layer}bias" in rest:
            known[bias] = rest.pop(f"{layer}bias")
    rest = {name: each for name, each in rest.items() if not name.endswith("num_batches_tracked")}
    stem, classifier = known.get(theirs[STEM]), known.get(head)
    place = Place(asked_for, own_prefix, _axis(stem, 1, of=4), _axis(classifier, 0))
    beside = tell_apart(rest, place)
    return Network(
        chosen.scheme,
        known,
        tuple(beside.foreign),
        tuple(beside.left_out),
        beside.statistics,
        head in known and bias not in known,
    )


def _axis(entry: TensorEntry | None, axis: int, of: int | None = None) -> int | None:
    """Its length; None where the tensor is missing, or has another number of axes."""
    if entry is None or not entry.shape or of not in {None, len(entry.shape)}:
        return None
    return entry.shape[axis]


def _shared_start(one: str, other: str) -> str:
    """What modules of both names are in."""
    pairs = zip(_AFTER_MODULE.split(one), _AFTER_MODULE.split(other), strict=False)
    return "".join(mine for mine, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _only_matrix(entries: Mapping[str, TensorEntry], columns: int, of_network: str) -> str | None:
    """The name of the only weight of (classes, columns); None where there is none or several.

    A convolution of one pixel has two axes more.
    """
    names = [
        name
        for name, entry in entries.items()
        if entry.shape[1:] in {(columns,), (columns, 1, 1)}
        and entry.shape[0] > 0
        and name.endswith("weight")
        and is_of_a_layer(name, entry, _shared_start(of_network, name))
    ]
    return names[0] if len(names) == 1 else None


def _tell(found: FoundCheckpoint, network: Network) -> None:
    """Warn of what is passed over, and of what the tensors leave open."""
    if network.has_head_without_bias:
        _warn(
            f"{found.name}: its classifier has no bias: taken for a dense layer without one, which "
            "has other answers than a cosine (ArcFace, CosFace)"
        )
    if network.left_out:
        _warn(
            f"{found.name}: left out, as they are no weights of the network: "
            f"{some(network.left_out)}"
        )
    if found.checkpoint.strangers:
        _warn(
            f"{found.name}: passed over values of {some(found.checkpoint.strangers)}: "
            "Python objects are never executed here"
        )


def _warn(text: str) -> None:
    warnings.warn(text, CheckpointWarning, stacklevel=2)
