"""The page: what comes from nodes and files is text, and what cannot be told is not told."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from fake_clusters import FakeCluster, for_real
from fleet_bundles import write_fleet
from test_fleet_campaign import carry_out

from effnet_edge.errors import UsageError
from effnet_edge.fleet.package import Package
from effnet_edge.fleet.page import check_page, headline, render_page, write_page
from effnet_edge.fleet.results import Row

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "<script>alert(1)</script>\x1b[31m"


class Tags(HTMLParser):
    """Which tags there are, and what is asked for from outside."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.outside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.outside += [value or "" for name, value in attrs if name in ("src", "href")]


def test_what_a_node_says_is_text(tmp_path: Path) -> None:
    def lie(order: Package) -> bytes:
        result = Package.unpack(for_real(order), "")
        result.document["node"] = {
            **result.document["node"],
            "name": HOSTILE,
            "processor": HOSTILE,
        }
        result.document["timing"]["device"] = HOSTILE
        (candidate,) = result.document["parity"]["candidates"]
        candidate["failures"] = [HOSTILE]
        candidate["passed"] = False
        result.document["parity"]["image_source"] = HOSTILE
        return result.pack()

    campaign, rows = carry_out(write_fleet(tmp_path, ("one",)), FakeCluster({"here": 1}, lie))
    page = render_page(campaign.document(), rows)
    found = Tags(page)
    assert "script" not in found.tags
    assert found.outside == []
    assert page.count("&lt;script&gt;") >= 4


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (["passed", "passed"], "Passed"),
        (["passed", "failed", "error"], "1 of 3 jobs FAILED, 1 of 3 jobs NOT DONE"),
        (["passed", "unlimited"], "Measured, no limit set"),
        (["passed", "unsure"], "Passed on these pictures, but they are too few to be sure"),
    ],
)
def test_the_headline_is_the_worst_of_all(states: list[str], told: str) -> None:
    assert headline([Row("b", "k", "check", state) for state in states]) == told  # type: ignore[arg-type]


def test_every_bundle_and_kind_is_in_the_matrix(tmp_path: Path) -> None:
    campaign, rows = carry_out(write_fleet(tmp_path), FakeCluster({"here": 1}))
    rows = [*rows, Row("three", "orin", "check", "error", remarks=("lost 3 times",))]
    page = render_page(campaign.document(), rows)
    table = page[page.index("At a glance") : page.index("</table>")]
    assert re.findall(r"<th>([^<]+)</th>", table) == ["bundle", "here", "orin"]
    assert re.findall(r"<tr><td>([^<]+)</td>", table) == ["one", "two", "three"]
    assert table.count("passed") == 4
    assert "<strong>Other answers</strong>: Of a hundred pictures" in page
    assert "lost 3 times" in page


def test_only_an_older_page_is_replaced(tmp_path: Path) -> None:
    campaign, rows = carry_out(write_fleet(tmp_path, ("one",)), FakeCluster({"here": 1}))
    page = tmp_path / "page.html"
    for _ in range(2):
        write_page(campaign.document(), rows, page)
    page.write_text("mine")
    with pytest.raises(UsageError, match="is no report of effnet-edge"):
        check_page(page)
    with pytest.raises(UsageError, match=r"must end in \.html"):
        check_page(tmp_path / "page.htm")
