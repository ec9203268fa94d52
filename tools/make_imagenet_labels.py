"""Make effnet_edge/data/imagenet.json: the 1000 ImageNet classes, WordNet id and names in order.

    python tools/make_imagenet_labels.py SYNSETS.txt LEMMAS.txt

SYNSETS lists the ids in class order, LEMMAS an id and its WordNet lemmas a line, separated by a
tab; timm publishes both (timm/data/_info/imagenet_synsets.txt, imagenet_synset_to_lemma.txt).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "effnet_edge" / "data" / "imagenet.json"


def main() -> None:
    synsets, lemmas = (
        Path(name).read_text(encoding="utf-8").splitlines() for name in sys.argv[1:3]
    )
    names = dict(line.split("\t", 1) for line in lemmas)
    labels = [{"name": names[wnid], "wnid": wnid} for wnid in synsets]
    rows = ",\n".join(json.dumps(label, ensure_ascii=False) for label in labels)
    TARGET.write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    print(f"{len(labels)} labels")  # noqa: T201


if __name__ == "__main__":
    main()
