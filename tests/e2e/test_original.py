"""An export that is held against the original first, and a bundle that remembers what it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from original_networks import SIDE, MaxPooled, geffnet_network
from real_commands import run_command
from safetensors.torch import save_file

from effnet_edge.model.preprocessing import variant_preprocessing
from effnet_edge.model.variants import VARIANTS
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.pictures.image import normalize

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.sample

EXPORT = (
    *("export", "b0", "--weights", "model.safetensors", "--target", "onnxruntime"),
    *("--resolution", SIDE, "--against", "answers.npz"),
)


@pytest.fixture(scope="module")
def max_pooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of timm's efficientnet_b0 with global_pool="max", and what that answers."""
    folder = tmp_path_factory.mktemp("original")
    original = geffnet_network("efficientnet_b0")
    save_file(original.state_dict(), folder / "model.safetensors")
    preprocessing = variant_preprocessing(VARIANTS["b0"], SIDE)
    ((pixels, _),) = EmbeddedPhotos(8).batches(preprocessing, 8)
    with torch.no_grad():
        logits = MaxPooled(original)(torch.from_numpy(normalize(pixels, preprocessing)))
    np.savez(folder / "answers.npz", logits=logits.numpy(), pixels=pixels)
    return folder


def write_config(folder: Path, **arguments: str) -> None:
    config = {"architecture": "efficientnet_b0", "model_args": arguments, "pretrained_cfg": {}}
    (folder / "config.json").write_text(json.dumps(config))


def test_a_misunderstood_checkpoint_is_not_exported(max_pooled: Path) -> None:
    write_config(max_pooled)

    completed = run_command(*EXPORT, "--quiet", "-o", "wrong", cwd=max_pooled)

    assert completed.returncode == 1
    (line,) = completed.stderr.splitlines()
    assert "the likely cause is the pooling, which is max" in line
    assert not (max_pooled / "wrong").exists()


@pytest.mark.slow
def test_what_a_config_says_goes_into_int8_and_is_remembered(max_pooled: Path) -> None:
    write_config(max_pooled, global_pool="max")

    completed = run_command(*EXPORT, "--int8", "-o", "right", cwd=max_pooled)

    assert completed.returncode == 0, completed.stderr
    assert "The original: the logits in answers.npz" in completed.stdout
    manifest = json.loads((max_pooled / "right" / "manifest.json").read_text())
    first = manifest["parity"][0]
    assert (first["stage"], first["reference"]) == ("original", "the logits in answers.npz")
    assert first["measures"]["sqnr_db"]["at_least"] == 60
    assert (manifest["pooling"], manifest["batch_norm_eps"]) == ("max", 1e-5)

    (max_pooled / "config.json").unlink()
    # With the average in place of the maximum it would be below 1 dB.
    compared = run_command("parity", "right", "--limit", "8", "--min-sqnr", "4", cwd=max_pooled)
    assert compared.returncode == 0, compared.stdout + compared.stderr
