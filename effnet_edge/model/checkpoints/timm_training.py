"""What timm's `train.py` writes into a checkpoint beside the weights: by what it built the network.

Without it the tensors do not tell `tf_efficientnet_b0` from `efficientnet_b0`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effnet_edge.model.checkpoints.config_reading import pass_over
from effnet_edge.model.checkpoints.timm_config import COLOURS, knows, understand

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from effnet_edge.model.checkpoints.config_reading import ConfigFacts

# `create_model(...)` in timm's train.py, by the names of its options.
_BUILDING = {"gp": "global_pool", "bn_eps": "bn_eps", "in_chans": "in_chans"}
# What `resolve_data_config` of timm/data/config.py takes from the options before anything else.
_OF_PICTURES = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation")


def read_timm_training(checkpoint: Path, said: Mapping[str, Any]) -> ConfigFacts | None:
    """Understand `arch` and `args` as `CheckpointSaver` writes them; None where they are not there.

    Others write an `arch`, too, of which nothing is told where there is no such network here.

    Args:
        said: what the file has beside its tensors, by its keys.

    Raises:
        CheckpointError: the network was built with an option that cannot be followed.
    """
    name = said.get("arch")
    if not isinstance(name, str):
        return None
    found = said.get("args")
    options = found if isinstance(found, dict) and found.get("model") == name else {}
    architecture = name.rpartition("/")[2]  # hf-hub:timm/tf_efficientnet_b0.ns_jft_in1k
    if knows(architecture):
        return understand(checkpoint, _document(architecture, options))
    if options:
        pass_over(checkpoint, f"arch {name!r}, which is not known here: --padding says how it pads")
    return None


def _document(architecture: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The same as timm's `config.json` says it."""
    arguments = {key: options.get(option) for option, key in _BUILDING.items()}
    more = options.get("model_kwargs")
    pictures = {key: options[key] for key in _OF_PICTURES if options.get(key)}
    if side := options.get("img_size"):
        pictures = {"input_size": [options.get("in_chans") or COLOURS, side, side]} | pictures
    return {
        "architecture": architecture,
        "model_args": arguments | (more if isinstance(more, dict) else {}),
        "pretrained_cfg": pictures,
    }
