"""A report takes the place of nothing but an older report, and says so before any work."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.cli.common import Settings
from effnet_edge.cli.main import cli
from effnet_edge.errors import UsageError, WriteError
from effnet_edge.parity.report.destination import ReportFiles

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: object) -> None:
    cli.main(list(map(str, arguments)), standalone_mode=False, obj=Settings())


@pytest.mark.parametrize("name", ["x.pdf", "x.htm", "x", ".html", "x.html.json", "x.xml"])
def test_only_html_is_a_report(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the name must end in \.html"):
        run("parity", "nowhere", "--report", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_model_beside_it_stays_as_it_is(tmp_path: Path) -> None:
    for name in ("model.xml", "model.json", "model.bin"):
        (tmp_path / name).write_text("precious")

    files = ReportFiles.of(tmp_path / "model.html")
    files.check()

    assert {files.json.name, files.junit.name} == {"model.parity.json", "model.junit.xml"}
    assert {path.read_text() for path in tmp_path.iterdir()} == {"precious"}


@pytest.mark.parametrize("name", ["r.html", "r.parity.json", "r.junit.xml"])
@pytest.mark.parametrize("content", ["", "<html>my page</html>", '{"generator": "other"}'])
def test_what_is_no_report_of_ours_is_named_and_left(
    name: str, content: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)

    with pytest.raises(UsageError, match=rf"{name}' is there and is no report"):
        run("parity", "nowhere", "--report", tmp_path / "r.html")

    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == content


def test_pipes_folders_and_links_are_no_reports(tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    os.mkfifo(tmp_path / "pipe.html")
    (tmp_path / "link.html").symlink_to(tmp_path / "nothing")
    for name in ("folder.html", "pipe.html", "link.html"):
        with pytest.raises(UsageError, match=f"{name}' is there"):
            ReportFiles.of(tmp_path / name).check()


def test_no_report_goes_into_a_bundle(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", "onnxruntime", tiny_model())
    before = sorted(bundle.iterdir())

    for report in (bundle / "report.html", bundle / "reports" / "report.html"):
        with pytest.raises(UsageError, match=r"--report .*: lies in the bundle"):
            run("parity", bundle, "--report", report)
    with pytest.raises(UsageError, match=r"--plot .*: lies in the bundle"):
        run("sensitivity", bundle, "--plot", bundle / "costs.png")

    assert sorted(bundle.iterdir()) == before


@pytest.mark.parametrize("name", ["none/report.html", "file/report.html", f"{'x' * 300}.html"])
def test_a_place_that_cannot_be_written_is_found_before_the_work(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match="cannot be written"):
        run("parity", "nowhere", "--report", tmp_path / name)


def test_no_plot_takes_the_place_of_a_picture(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG my photo")

    with pytest.raises(UsageError, match="is there and is no plot"):
        run("sensitivity", "b0", "--plot", tmp_path / "photo.png")

    assert (tmp_path / "photo.png").read_bytes() == b"\x89PNG my photo"


def test_results_are_printed_before_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_bundle(tmp_path / "bundle", "onnxruntime", tiny_model())
    monkeypatch.setattr("effnet_edge.parity.report.destination.write_whole", _full)
    model = bundle / "model.onnx"

    with pytest.raises(WriteError, match="No space left"):
        run("parity", bundle, "--reference", model, "--limit", "2", "--report", tmp_path / "r.html")

    assert "agrees with" in capsys.readouterr().out


def _full(path: Path, _content: object) -> None:
    raise OSError(28, "No space left on device", str(path))


def test_an_older_report_is_replaced(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", "onnxruntime", tiny_model())
    page = tmp_path / "r.html"
    for limit in (2, 3):
        options = ("--reference", bundle / "model.onnx", "--limit", limit, "--report", page)
        run("parity", bundle, *options)
        assert f'"images": {limit}' in (tmp_path / "r.parity.json").read_text()


def test_nothing_else_is_written_into_a_bundle_either(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", "onnxruntime", tiny_model())
    before = sorted(bundle.iterdir())
    for arguments in (
        ("predict", bundle, tmp_path / "picture.png", "--jsonl", bundle / "lines.jsonl"),
        ("parity", bundle, "--jsonl", bundle / "lines.jsonl"),
        ("parity", bundle, "--answers", bundle / "answers"),
        ("parity", bundle, "--answers", bundle),
        ("deploy", bundle, "--for", "triton", "-o", bundle),
    ):
        with pytest.raises(UsageError, match=r"(-o|--jsonl|--answers) .*: (is|lies in) the bundle"):
            run(*arguments)
    assert sorted(bundle.iterdir()) == before
