"""The figures of a comparison, from the scores of its cells; as JSON, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewardsds.evaluation.metrics import Answer, MetricInfo
from rewardsds.evaluation.statistics import Comparison, Estimate, by_prompt, compare, interval_of_mean
from rewardsds.evaluation.units import Cell

FEWEST_PROMPTS = 6
"""Below, a bootstrapped interval is much too narrow, and nothing is called certain."""


@dataclass(frozen=True)
class Scored:
    """A cell with its figures. result: folder of the run that is shown, below the plan's. picture: file in it, where it
    is one. problem: why there is no result. network_evaluations, seconds: of all that was made for it."""

    cell: Cell
    result: str = ""
    picture: str = ""
    scores: Mapping[str, Answer] = field(default_factory=dict)
    network_evaluations: float = 0.0
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Column:
    """A method's figures. best_of: results that were picked from. optimised: metrics that it was steered by, or picked
    by. scores: means over prompts by metric, None where nothing could be scored. against: compared with the baseline,
    on the prompts that both have, None for the baseline itself. n: prompts by metric. swept: the values of a sweep."""

    name: str
    cells: int
    made: int
    best_of: int
    optimised: tuple[str, ...]
    scores: Mapping[str, Estimate | None]
    n: Mapping[str, int]
    against: Mapping[str, Comparison | None]
    network_evaluations: float | None
    seconds: float | None
    swept: Mapping[str, Any] = field(default_factory=dict)
    family: str = ""


@dataclass(frozen=True)
class Figures:
    """All that a report shows. gaps: metrics that could not be asked, and why."""

    title: str
    size: str
    task: str
    prompts: int
    seeds: Sequence[int]
    baseline: str
    metrics: Sequence[MetricInfo]
    columns: Sequence[Column]
    scored: Sequence[Scored]
    gaps: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """What is missing, each thing once."""
        found = [f"{one.cell.method}: {one.cell.asked.label}, seed {one.cell.seed}: {one.problem}"
                 for one in self.scored if one.problem]  # fmt: skip
        return [*(f"{name}: {why}" for name, why in self.gaps.items()), *dict.fromkeys(found)]


def column(
    name: str,
    scored: Sequence[Scored],
    baseline: Sequence[Scored] | None,
    metrics: Sequence[MetricInfo],
    **known: Any,
) -> Column:
    """The figures of a method from its cells; baseline: the cells that it is compared with, in any order."""
    values = {metric.name: _means(scored, metric.name) for metric in metrics}
    theirs = {} if baseline is None else {metric.name: _means(baseline, metric.name) for metric in metrics}
    against: dict[str, Comparison | None] = {}
    for metric in metrics:
        own, rival = values[metric.name], theirs.get(metric.name, {})
        both = [label for label in own if label in rival]
        against[metric.name] = (
            compare(
                [own[label] for label in both],
                [rival[label] for label in both],
                higher_is_better=metric.higher_is_better,
            )
            if both
            else None
        )
    made = [one for one in scored if not one.problem]
    return Column(
        name=name,
        cells=len(scored),
        made=len(made),
        scores={name: interval_of_mean(list(own.values())) if own else None for name, own in values.items()},
        n={name: len(own) for name, own in values.items()},
        against=against,
        network_evaluations=sum(one.network_evaluations for one in made) / len(made) if made else None,
        seconds=sum(one.seconds for one in made) / len(made) if made else None,
        **known,
    )


def _means(scored: Sequence[Scored], metric: str) -> dict[str, float]:
    """A method's mean over seeds, by prompt."""
    answers = [one.scores.get(metric) for one in scored]
    return by_prompt(
        [one.cell.asked.label for one in scored], [None if one is None else one.value for one in answers]
    )


# --- as text ------------------------------------------------------------------------------------------------


def shown(metric: MetricInfo, value: float, signed: bool = False) -> str:
    """A value as tables show it: scaled, rounded, with its unit."""
    text = f"{metric.scale * value:{'+' if signed else ''}.{metric.digits}f}".replace("-", "−")
    return f"{text}{metric.unit}"


def interval_text(metric: MetricInfo, estimate: Estimate, signed: bool = False) -> str:
    """28.3 (27.1 to 29.4)"""
    low, high = (shown(metric, bound).removesuffix("%") for bound in (estimate.low, estimate.high))
    return f"{shown(metric, estimate.value, signed)} ({low} to {high})"


def heading(metric: MetricInfo) -> str:
    return metric.title if metric.higher_is_better else f"{metric.title} ↓"


def markdown(figures: Figures) -> str:
    """Two tables, means and differences to the baseline, and below them what is missing."""
    lines = [f"# {figures.title}", "", summary(figures), ""]
    heads = [heading(metric) for metric in figures.metrics]
    lines += _table(
        ["method", *heads, "network evaluations", "seconds"],
        [[mark(one), *(_mean_cell(one, metric) for metric in figures.metrics), *cost_cells(one)]
         for one in figures.columns],
    )  # fmt: skip
    others = [one for one in figures.columns if one.name != figures.baseline]
    if others:
        lines += [
            "",
            f"Against {figures.baseline}, paired by prompt; in brackets 95% intervals, then prompts won:",
            "",
        ]
        lines += _table(
            ["method", *heads],
            [[mark(one), *(_difference_cell(one, metric) for metric in figures.metrics)] for one in others],
        )
    lines += ["", *notes(figures)]
    return "\n".join(lines).rstrip() + "\n"


def is_certain(found: Comparison) -> bool:
    """Whether the interval leaves out zero, of enough prompts for an interval to mean something."""
    return found.difference.leaves_out_zero and found.n >= FEWEST_PROMPTS


def summary(figures: Figures) -> str:
    seeds = f"{len(figures.seeds)} seed{'s' if len(figures.seeds) > 1 else ''}"
    what = {"image": "pictures", "3d": "objects", "edit": "edits"}[figures.task]
    size = f", size {figures.size}" if figures.size else ""
    return (
        f"{figures.prompts} prompts × {seeds}, {what}{size}. Means over prompts, whose seeds are averaged first, with "
        "95% bootstrap intervals over prompts; costs are per result."
    )


def notes(figures: Figures) -> list[str]:
    lines = []
    if figures.prompts < FEWEST_PROMPTS:
        lines.append(
            f"- {figures.prompts} prompts are too few for intervals that mean something: take {FEWEST_PROMPTS} or more"
        )
    if any(one.optimised for one in figures.columns):
        lines.append("† the method was steered or picked by this metric, which therefore cannot judge it")
    lines += [f"- missing: {problem}" for problem in figures.problems]
    return lines


def mark(one: Column) -> str:
    parts = [one.name]
    if one.made < one.cells:
        parts.append(f"({one.made} of {one.cells})")
    return " ".join(parts)


def _mean_cell(one: Column, metric: MetricInfo) -> str:
    estimate = one.scores[metric.name]
    if estimate is None:
        return "–"
    text = interval_text(metric, estimate)
    return f"{text} †" if metric.name in one.optimised else text


def _difference_cell(one: Column, metric: MetricInfo) -> str:
    found = one.against[metric.name]
    if found is None:
        return "–"
    text = interval_text(metric, found.difference, signed=True)
    if is_certain(found):
        text = f"**{text}**"
    text = f"{text}, {100 * found.wins:.0f}% won"
    return f"{text} †" if metric.name in one.optimised else text


def cost_cells(one: Column) -> list[str]:
    if one.network_evaluations is None or one.seconds is None:
        return ["–", "–"]
    return [f"{one.network_evaluations:,.0f}", f"{one.seconds:.1f}"]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return [line(heads), f"|{'---|' * len(heads)}", *map(line, rows)]


def as_csv(figures: Figures) -> str:
    """One row a cell, with the metrics' own values."""
    text = io.StringIO()
    names = [metric.name for metric in figures.metrics]
    heads = [
        "method",
        "prompt",
        "seed",
        *names,
        "network_evaluations",
        "seconds",
        "result",
        "picture",
        "problem",
    ]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    for one in figures.scored:
        values = [one.scores[name].value if name in one.scores else None for name in names]
        writer.writerow([
            one.cell.method, one.cell.asked.label, one.cell.seed, *("" if value is None else value for value in values),
            one.network_evaluations, one.seconds, one.result, one.picture, one.problem,
        ])  # fmt: skip
    return text.getvalue()


def as_json(figures: Figures) -> dict[str, Any]:
    """All figures, for other programs."""

    def against(found: Comparison | None) -> dict[str, Any] | None:
        if found is None:
            return None
        return {"difference": found.difference._asdict(), "wins": found.wins, "prompts": found.n}

    return {
        "title": figures.title,
        "size": figures.size,
        "task": figures.task,
        "prompts": figures.prompts,
        "seeds": list(figures.seeds),
        "baseline": figures.baseline,
        "hardware": dict(figures.hardware),
        "metrics": {
            metric.name: {
                "title": metric.title,
                "higher_is_better": metric.higher_is_better,
                **({"failed": figures.gaps[metric.name]} if metric.name in figures.gaps else {}),
            }
            for metric in figures.metrics
        },
        "methods": {
            one.name: {
                "results": one.made,
                "of": one.cells,
                "best_of": one.best_of,
                "swept": dict(one.swept),
                "optimised": list(one.optimised),
                "network_evaluations": one.network_evaluations,
                "seconds": one.seconds,
                "scores": {
                    name: None if estimate is None else {**estimate._asdict(), "prompts": one.n[name]}
                    for name, estimate in one.scores.items()
                },
                "against the baseline": {name: against(found) for name, found in one.against.items()},
            }
            for one in figures.columns
        },
        "problems": figures.problems,
    }
