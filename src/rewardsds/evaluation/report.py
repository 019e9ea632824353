"""`report.html` of a comparison: one file with tables, plots and pictures, without any request to the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from markupsafe import Markup

from rewardsds.evaluation.metrics import MetricInfo
from rewardsds.evaluation.results import (
    FEWEST_PROMPTS,
    Column,
    Figures,
    cost_cells,
    is_certain,
    made_on,
    marked,
    named,
    summary,
)
from rewardsds.evaluation.statistics import Estimate
from rewardsds.evaluation.tables import GAP, bounds, heading, number
from rewardsds.runs.charts import Mark, Series, line_chart, mark_chart
from rewardsds.runs.report import data_uri, page_style, page_template
from rewardsds.scenes.files import atomic_path


@dataclass(frozen=True)
class _Cell:
    value: str
    interval: str = ""
    style: str = ""


@dataclass(frozen=True)
class _Row:
    name: str
    cells: Sequence[_Cell]
    rival: str | None = None
    cost: Sequence[str] = ()


def write_report(
    figures: Figures,
    pictures: Mapping[tuple[str, str], Path],
    labels: Sequence[str],
    columns: Sequence[str],
    plan: str,
    path: Path,
) -> None:
    """pictures: by column and prompt. labels: the prompts. columns: the methods, and others. plan: as text."""
    text = resources.files("rewardsds.evaluation").joinpath("report.html.jinja").read_text(encoding="utf-8")
    rows = []
    for label in labels:
        files = [pictures.get((column, label)) for column in columns]
        rows.append((label, [None if file is None else data_uri(file) for file in files]))
    page = page_template(text).render(
        figures=figures,
        style=page_style(),
        summary=summary(figures),
        made_on=made_on(figures),
        heads=[heading(metric) for metric in figures.metrics],
        means=[
            _Row(named(one), [_mean(one, metric) for metric in figures.metrics], cost=cost_cells(one))
            for one in figures.columns
        ],
        differences=[
            _Row(named(one), [_difference(one, metric) for metric in figures.metrics], one.rival)
            for one in figures.columns
            if one.rival
        ],
        optimised=any(one.optimised for one in figures.columns),
        fewest=FEWEST_PROMPTS,
        charts=[Markup(chart) for chart in charts(figures) if chart],
        gaps=[*figures.unanswered, *figures.unsteered, *figures.problems],
        columns=columns,
        rows=rows,
        plan=plan,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _mean(one: Column, metric: MetricInfo) -> _Cell:
    estimate = one.scores[metric.name]
    if estimate is None:
        return _Cell(GAP)
    return _Cell(marked(number(estimate.value, metric), one, metric), bounds(estimate, metric))


def _difference(one: Column, metric: MetricInfo) -> _Cell:
    found = one.against[metric.name]
    if found is None:
        return _Cell(GAP)
    value = number(found.difference.value, metric, sign=True)
    better = (found.difference.value > 0) is metric.higher_is_better
    style = "" if not is_certain(found) else "better" if better else "worse"
    below = [bounds(found.difference, metric, sign=True), f"{100 * found.wins:.0f}% won"]
    return _Cell(marked(value, one, metric), ", ".join(filter(None, below)), style)


# --- plots --------------------------------------------------------------------------------------------------


def charts(figures: Figures) -> list[str]:
    """Cost against quality by every metric, reward gained against judge gained, and the swept settings."""
    return [*_sweeps(figures), *_hacking(figures), *_costs(figures)]


def _costs(figures: Figures) -> list[str]:
    found = []
    for metric in figures.metrics:
        marks = []
        for one in figures.columns:
            estimate = one.scores[metric.name]
            if estimate is None or not one.seconds:
                continue
            marks.append(
                Mark(one.name, _exactly(one.seconds), _scaled(metric, estimate), _style(one, metric))
            )
        title = f"{heading(metric)} by seconds a result"
        found.append(mark_chart(title, marks, "seconds a result", "", logarithmic_x=True))
    return found


def _hacking(figures: Figures) -> list[str]:
    """What a method gains by the metric that steers it, against what it gains by others that do not."""
    found = []
    steering = {
        name for one in figures.columns for name in one.optimised if not name.startswith("r-precision")
    }
    ranked = {metric.name for metric in figures.metrics if metric.name.startswith("r-precision")}
    for reward in (metric for metric in figures.metrics if metric.name in steering):
        for judge in (metric for metric in figures.metrics if metric.name not in steering | ranked):
            marks: list[Mark] = []
            rivals: list[str] = []
            for one in figures.columns:
                gained, judged = one.against[reward.name], one.against[judge.name]
                if gained and judged and one.rival and reward.name in one.optimised:
                    rivals.append(one.rival)
                    marks.append(
                        Mark(one.name, _scaled(reward, gained.difference), _scaled(judge, judged.difference))
                    )
            said = " or ".join(dict.fromkeys(rivals))
            if marks:
                marks.append(Mark(said, _exactly(0.0), _exactly(0.0), "b"))
            title = f"Gained over {said}: {judge.title} by {reward.title}, which steers"
            found.append(mark_chart(title, marks, f"{reward.title} gained", f"{judge.title} gained"))
    return found


def _sweeps(figures: Figures) -> list[str]:
    found = []
    families = dict.fromkeys(one.family for one in figures.columns if one.family)
    for family in families:
        own = [one for one in figures.columns if one.family == family]
        names = list(own[0].swept)
        if len(names) != 1 or not all(isinstance(one.swept[names[0]], (int, float)) for one in own):
            continue
        for metric in figures.metrics:
            points = [(one.swept[names[0]], one.scores[metric.name]) for one in own]
            drawn = sorted((x, _scaled(metric, estimate)) for x, estimate in points if estimate is not None)
            xs = [float(x) for x, _ in drawn]
            series = [Series("mean", xs, [values[0] for _, values in drawn], "a")]
            series += [
                Series(name, xs, [values[index] for _, values in drawn], "a faint")
                for index, name in ((1, "low end of the 95% interval"), (2, "high end"))
            ]
            label = names[0].replace("_", " ")
            found.append(line_chart(f"{heading(metric)} by {label}, {family}", series, x_label=label))
    return found


def _scaled(metric: MetricInfo, estimate: Estimate) -> tuple[float, float, float]:
    return metric.scale * estimate.value, metric.scale * estimate.low, metric.scale * estimate.high


def _exactly(value: float) -> tuple[float, float, float]:
    return value, value, value


def _style(one: Column, metric: MetricInfo) -> str:
    return "b" if metric.name in one.optimised else "a"
