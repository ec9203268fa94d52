"""The Python of README and docs that runs a bundle, run as it stands, on small bundles."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tiny_bundles import CLASSES, LABELS, tiny_model, write_bundle
from video_makers import write_video

from effnet_edge.bundle import OutputSpec

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LOADED = re.compile(r'EngineRunner\.load\("([^"]+)"')
NEEDS_A_GPU = ROOT / "docs/jetson.md"


def snippets() -> list[tuple[str, str]]:
    """Page and text of each that imports the package."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for text in FENCE.findall(page.read_text(encoding="utf-8")):
            if "from effnet_edge" in text and page != NEEDS_A_GPU:
                found.append((page.relative_to(ROOT).as_posix(), text))
    return found


@pytest.fixture
def in_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the example, and a picture of one's own."""
    (tmp_path / "examples").mkdir()
    for copy in ("examples/espresso.jpg", "picture.jpg"):
        shutil.copy(ROOT / "examples/espresso.jpg", tmp_path / copy)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_what_it_loads(text: str, folder: Path) -> None:
    for name in LOADED.findall(text):
        kind = "features" if name == "embed" else "single-label"
        labels = None if kind == "features" else LABELS
        output = OutputSpec("logits", CLASSES, kind)
        write_bundle(folder / name, "openvino", tiny_model(batch="N"), labels, output=output)
    if "clip.mp4" in text:
        write_video(folder / "clip.mp4", frames=11)


@pytest.mark.sample
@pytest.mark.parametrize(
    ("page", "text"), snippets(), ids=[f"{page}-{at}" for at, (page, _) in enumerate(snippets())]
)
def test_a_snippet_runs(
    page: str, text: str, in_a_clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_what_it_loads(text, in_a_clone)
    exec(compile(text, page, "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out.splitlines()
    assert bool(printed) is ("print(" in text)
    if "classify" in text:
        assert any("animal" in line for line in printed)


def test_they_are_found_where_they_stand() -> None:
    pages = [page for page, _ in snippets()]
    assert pages.count("docs/api.md") >= 3
    assert {"README.md", "docs/first-int8.md", "docs/your-model.md"} <= set(pages)


def test_the_snippet_of_the_video_tells_its_frames(
    in_a_clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (text,) = [text for _, text in snippets() if "clip.mp4" in text]
    write_what_it_loads(text, in_a_clone)
    exec(compile(text, "video", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["0.0", "0.5", "1.0"]
