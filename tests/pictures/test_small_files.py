"""Small files that say they are large are refused for what they say."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from picture_makers import encoded, photo_like
from PIL import Image

from effnet_edge.errors import ImageError
from effnet_edge.pictures.arrays import read_arrays
from effnet_edge.pictures.image import decode

if TYPE_CHECKING:
    from pathlib import Path


def animation(width: int, height: int) -> bytes:
    """An animated WebP of two small frames on a canvas of that size."""
    frames = [Image.fromarray(photo_like(11, 13, seed)) for seed in (0, 1)]
    data = bytearray(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    assert data[12:16] == b"VP8X"
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def test_the_canvas_of_an_animation_has_a_limit() -> None:
    data = animation(6000, 6000)
    assert len(data) < 2000
    with pytest.raises(ImageError, match="too large: an animation of 36 million pixels"):
        decode(data)
    assert decode(animation(40, 30)).shape == (30, 40, 3)


def archive(header: dict[str, object], compressed: bool) -> bytes:
    """An `.npz` of one array of that header and of no values."""
    member, buffer = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(member, header)
    with zipfile.ZipFile(buffer, "w") as file:
        kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
        file.writestr("logits.npy", member.getvalue(), kind)
    return buffer.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_that_claim_gigabytes_are_refused(tmp_path: Path, compressed: bool) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 12)}
    (tmp_path / "a.npz").write_bytes(archive(header, compressed))
    with pytest.raises(ImageError, match=r"a\.npz: logits\.npy is too large"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.slow
def test_arrays_share_one_limit(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(3 << 28, np.uint8), b=np.zeros(3 << 28, "?"))
    with pytest.raises(ImageError, match=r"a\.npz: b\.npy is too large"):
        read_arrays(tmp_path / "a.npz")


def test_damage_inside_an_archive_is_told(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", logits=np.arange(4000.0))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    told = []
    for place in range(30, len(data), 97):
        changed = bytearray(data)
        changed[place] ^= 0x55
        (tmp_path / "a.npz").write_bytes(changed)
        try:
            read_arrays(tmp_path / "a.npz")
        except ImageError as error:
            told.append(str(error))
    assert len(told) > 10
    assert all(len(each.splitlines()) == 1 for each in told)
