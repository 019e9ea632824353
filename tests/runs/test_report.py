"""The report is one valid page that asks the network for nothing; its curves are where the figures are."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fake_task import build_tiny, start_tiny
from rewardsds.runs.charts import Series, line_chart, smoothed, ticks
from rewardsds.runs.loop import Job
from rewardsds.runs.settings import RunSettings


class Page(HTMLParser):
    VOID = frozenset({"meta", "img", "br", "line", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "poster", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("report") / "run"
    start_tiny(run, lambda settings: build_tiny(settings), previews_every=4, candidate_previews=3)
    return (run / "report.html").read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_self_contained(report: str) -> None:
    page = Page(report)
    assert page.open == []
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not re.search(r"https?://|url\(|@import|<script|<link", report)


def test_the_page_shows_result_history_and_candidates(report: str) -> None:
    page = Page(report)
    # the result, three states (steps 4, 8, 12), and three steps of four candidates
    assert page.tags.count("img") == 1 + 3 + 3 * 4
    assert page.tags.count("svg") == 2
    assert report.count("weight +0.90") == report.count("weight -0.10") == 3
    for step in (1, 12):  # first and last of the rewarded steps
        assert f"<h3>Step {step}</h3>" in report


def test_prompts_cannot_inject_markup(tmp_path: Path) -> None:
    prompt = "<script>alert(1)</script>"

    def build(settings: RunSettings) -> Job:
        job = build_tiny(settings)
        real = job.guidance

        class Deaf:
            """Asks for "red" whatever the prompt."""

            def __call__(self, images: object = None, prompt: object = None, **rest: object) -> object:
                loss = real(images, "red", **rest)  # pyright: ignore[reportArgumentType]
                self.record = real.record
                return loss

            def uses_reward(self, step: int) -> bool:
                return True

            def state_dict(self) -> dict:
                return {}

        job.prompts = [prompt]
        job.guidance = Deaf()  # pyright: ignore[reportAttributeAccessIssue]
        return job

    start_tiny(tmp_path / "run", build)
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_chart_draws_its_points_where_they_belong() -> None:
    """Steps 0…10 span the width, values 0…1 the height, of a plot from (56, 14) to (628, 226)."""
    chart = line_chart("t", [Series("line", [0, 5, 10], [0.0, 0.5, 1.0], "a")])
    points = re.search(r'points="([^"]+)"', chart)
    assert points is not None
    assert points[1] == "56.0,226.0 342.0,120.0 628.0,14.0"


def test_a_chart_of_nothing_is_nothing() -> None:
    assert line_chart("t", [Series("line", [], [], "a")]) == ""
    assert line_chart("t", [Series("line", [1], [1], "a")]) == ""
    assert line_chart("t", [Series("line", [1, 2], [0.0, -1.0], "a")], logarithmic=True) == ""
    assert "polyline" in line_chart("t", [Series("line", [1, 2], [3.0, 3.0], "a")])


def test_ticks_are_round_and_enclose() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(3, 97) == pytest.approx([0, 20, 40, 60, 80, 100])
    assert ticks(-0.03, 0.04)[0] <= -0.03
    assert len(ticks(5, 5)) >= 2
    assert ticks(0, 0)[-1] - ticks(0, 0)[0] >= 1  # nothing but zeros is not drawn in millionths


def test_smoothing_has_no_bias_at_the_start() -> None:
    assert smoothed([3.0] * 50) == pytest.approx([3.0] * 50)
    assert smoothed([1.0, 2.0]) == pytest.approx([1.0, 2.0])
