"""What JPEG files decoded at a fraction of their size would change in the answers.

    python benchmarks/scaled_jpeg.py b0-openvino-fp32 PHOTOS

libjpeg can decode at a half, a quarter or an eighth of the size (Pillow's draft mode), which is
faster for large photos. The photos are enlarged four times and saved again, as a camera has them,
then prepared from all pixels and from the draft that is no smaller than what is resized.
"""

from __future__ import annotations

import io
import math
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image

from effnet_edge import EngineRunner
from effnet_edge.parity.measures.metrics import kl_divergence, sqnr_db
from effnet_edge.pictures.image import Pixels, Preprocessing, crop_and_resize, prepare
from effnet_edge.pictures.sources import picture_paths

ENLARGED = 4
QUALITY = 90


def enlarged(path: Path) -> bytes:
    """The photo as a JPEG file, so many times as wide and as high."""
    photo = Image.open(path).convert("RGB")
    size = (ENLARGED * photo.width, ENLARGED * photo.height)
    file = io.BytesIO()
    photo.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def from_draft(file: bytes, preprocessing: Preprocessing) -> Pixels:
    """The network's input from the smallest draft that still has its resolution."""
    photo = Image.open(io.BytesIO(file))
    side = max(preprocessing.resolution.height, preprocessing.resolution.width)
    share = side / preprocessing.crop_fraction / min(photo.size)
    photo.draft("RGB", (math.ceil(share * photo.width), math.ceil(share * photo.height)))
    return crop_and_resize(np.asarray(photo.convert("RGB")), preprocessing)


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@click.option("--limit", default=60, show_default=True)
def main(bundle: Path, photos: Path, limit: int) -> None:
    """Compare BUNDLE's answers to PHOTOS from all pixels and from drafts."""
    files = [enlarged(path) for path in picture_paths(photos)[:limit]]
    with EngineRunner.load(bundle) as run:
        preprocessing = run.manifest.preprocessing
        start = time.process_time()
        whole = np.stack([prepare(file, preprocessing) for file in files])
        middle = time.process_time()
        draft = np.stack([from_draft(file, preprocessing) for file in files])
        end = time.process_time()
        expected, found = run.infer(whole), run.infer(draft)
    same = float((expected.argmax(axis=1) == found.argmax(axis=1)).mean())
    away = np.abs(whole.astype(int) - draft)
    click.echo(
        f"{len(files)} photos: {1e3 * (middle - start) / len(files):.1f} ms a photo, by drafts "
        f"{1e3 * (end - middle) / len(files):.1f}; pixels that differ {100 * (away > 0).mean():.0f}"
        f" %, by {away.mean():.1f} on average and {away.max()} at most; agreement {100 * same:.1f} "
        f"%, KL {kl_divergence(expected, found):.4f} nats, SQNR {sqnr_db(expected, found):.1f} dB"
    )


if __name__ == "__main__":
    main()
