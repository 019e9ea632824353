"""The figures of a comparison, from the scores of its cells; as JSON, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewardsds.evaluation.metrics import Answer, MetricInfo
from rewardsds.evaluation.statistics import Comparison, Estimate, by_prompt, compare, interval_of_mean
from rewardsds.evaluation.tables import DAGGER, GAP, cell, counted, csv_text, heading, markdown
from rewardsds.evaluation.units import Cell

FEWEST_PROMPTS = 6
"""Below, a bootstrapped interval is much too narrow, and nothing is called certain."""
NOT_RECORDED = "not recorded"
"""The machine of runs that were made before machines were written down."""


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
    by. scores: means over prompts by metric, None where nothing could be scored. rival: the method that it is compared
    with, None for the baseline. against: compared with it, on the prompts that both have. n: prompts by metric. swept:
    the values of a sweep."""

    name: str
    cells: int
    made: int
    best_of: int
    optimised: tuple[str, ...]
    scores: Mapping[str, Estimate | None]
    n: Mapping[str, int]
    rival: str | None
    against: Mapping[str, Comparison | None]
    network_evaluations: float | None
    seconds: float | None
    swept: Mapping[str, Any] = field(default_factory=dict)
    family: str = ""


@dataclass(frozen=True)
class Figures:
    """All that a report shows. gaps: metrics that could not be asked, and why. machines: how many runs each has made,
    by its name. hardware: of the machine on which the comparison was begun. left_out: by method and reward, in how many
    steps of how many the reward failed and was left out."""

    title: str
    size: str
    task: str
    prompts: int
    seeds: Sequence[int]
    metrics: Sequence[MetricInfo]
    columns: Sequence[Column]
    scored: Sequence[Scored]
    gaps: Mapping[str, str] = field(default_factory=dict)
    machines: Mapping[str, int] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    @property
    def unsteered(self) -> list[str]:
        """Methods whose reward failed in some steps, which then went on without it."""
        return [
            f"{method}: the reward {reward} failed and was left out in {count} of {steps} steps"
            for (method, reward), (count, steps) in self.left_out.items()
        ]

    @property
    def problems(self) -> list[str]:
        """What is missing, each thing once."""
        found = [f"{one.cell.method}: {one.cell.asked.label}, seed {one.cell.seed}: {one.problem}"
                 for one in self.scored if one.problem]  # fmt: skip
        gaps = [f"{name}: {why}" for name, why in self.gaps.items()]
        return [*gaps, *self.failures, *dict.fromkeys(found)]

    @property
    def failures(self) -> list[str]:
        """Metrics that failed on some results, and why."""
        found = []
        for metric in self.metrics:
            answers = self._answers(metric)
            reasons = [one.why for one in answers if one.failed]
            if reasons:
                found.append(
                    f"{metric.name}: failed on {len(reasons)} of {len(answers)} results: {counted(reasons)}"
                )
        return found

    @property
    def unanswered(self) -> list[str]:
        """Metrics that had an answer for no result although they could be asked, and why."""
        found = []
        for metric in self.metrics:
            answers = [one for one in self._answers(metric) if not one.failed]
            if answers and all(one.value is None for one in answers):
                reasons = "; ".join(dict.fromkeys(one.why for one in answers if one.why))
                found.append(f"{metric.title} is known of no result: {reasons}")
        return found

    def _answers(self, metric: MetricInfo) -> list[Answer]:
        """Of a metric that could be asked."""
        if metric.name in self.gaps:
            return []
        return [one.scores[metric.name] for one in self.scored if metric.name in one.scores]


def column(
    name: str,
    scored: Sequence[Scored],
    theirs: Sequence[Scored] | None,
    metrics: Sequence[MetricInfo],
    **known: Any,
) -> Column:
    """The figures of a method from its cells; theirs: the cells that it is compared with, in any order."""
    values = {metric.name: _means(scored, metric.name) for metric in metrics}
    rivals = {} if theirs is None else {metric.name: _means(theirs, metric.name) for metric in metrics}
    against: dict[str, Comparison | None] = {}
    for metric in metrics:
        own, rival = values[metric.name], rivals.get(metric.name, {})
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


def as_markdown(figures: Figures) -> str:
    """Two tables, means and differences, and below them what is missing."""
    heads = [heading(metric) for metric in figures.metrics]
    means = [
        [named(one), *(_mean_cell(one, metric) for metric in figures.metrics), *cost_cells(one)]
        for one in figures.columns
    ]
    lines = [f"# {figures.title}", "", f"{summary(figures)} {made_on(figures)}".rstrip(), ""]
    lines += markdown(["method", *heads, "network evaluations", "seconds"], means)
    compared = [one for one in figures.columns if one.rival]
    if compared:
        differences = [
            [named(one), one.rival, *(_difference_cell(one, metric) for metric in figures.metrics)]
            for one in compared
        ]
        lines += ["", "Differences, paired by prompt; in brackets 95% intervals, then prompts won:", ""]
        lines += markdown(["method", "against", *heads], differences)
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


def machine_name(record: Mapping[str, Any] | None) -> str:
    """What a record of `hardware` says in short."""
    if record is None:
        return NOT_RECORDED
    return f"{record.get('gpu', record['processor'])}, {record['cores']} cores"


def made_on(figures: Figures) -> str:
    """The machine, or the machines, of all runs."""
    counts = figures.machines
    if len(counts) < 2:
        return "".join(f"Machine: {name}." for name in counts)
    said = ", ".join(f"{name} ({count} run{'s' if count > 1 else ''})" for name, count in counts.items())
    several = len(set(counts) - {NOT_RECORDED}) > 1
    return f"{'Several machines' if several else 'Machine'}: {said}."


def notes(figures: Figures) -> list[str]:
    lines = []
    if figures.prompts < FEWEST_PROMPTS:
        lines.append(
            f"- {figures.prompts} prompts are too few for intervals that mean something: take {FEWEST_PROMPTS} or more"
        )
    if any(one.optimised for one in figures.columns):
        lines.append("† the method was steered or picked by this metric, which therefore cannot judge it")
    lines += [f"- {said}" for said in (*figures.unanswered, *figures.unsteered)]
    lines += [f"- missing: {problem}" for problem in figures.problems]
    return lines


def named(one: Column) -> str:
    """A method, and how much of it there is where something is missing."""
    return one.name if one.made == one.cells else f"{one.name} ({one.made} of {one.cells})"


def _mean_cell(one: Column, metric: MetricInfo) -> str:
    return marked(cell(one.scores[metric.name], metric), one, metric)


def _difference_cell(one: Column, metric: MetricInfo) -> str:
    found = one.against[metric.name]
    if found is None:
        return GAP
    text = cell(found.difference, metric, sign=True)
    if is_certain(found):
        text = f"**{text}**"
    return marked(f"{text}, {100 * found.wins:.0f}% won", one, metric)


def marked(text: str, one: Column, metric: MetricInfo) -> str:
    """With † where the method was steered or picked by the metric."""
    return f"{text} {DAGGER}" if metric.name in one.optimised and text != GAP else text


def cost_cells(one: Column) -> list[str]:
    if one.network_evaluations is None or one.seconds is None:
        return [GAP, GAP]
    return [f"{one.network_evaluations:,.0f}", f"{one.seconds:.1f}"]


def as_csv(figures: Figures) -> str:
    """One row a cell, with the metrics' own values."""
    names = [metric.name for metric in figures.metrics]
    rows = [
        [one.cell.method, one.cell.asked.label, one.cell.seed,
         *(one.scores[name].value if name in one.scores else None for name in names),
         one.network_evaluations, one.seconds, one.result, one.picture, one.problem]
        for one in figures.scored
    ]  # fmt: skip
    costs = ["network_evaluations", "seconds"]
    return csv_text(["method", "prompt", "seed", *names, *costs, "result", "picture", "problem"], rows)


def as_json(figures: Figures) -> dict[str, Any]:
    """All figures, for other programs."""

    def difference(found: Comparison | None) -> dict[str, Any] | None:
        if found is None:
            return None
        return {"difference": found.difference._asdict(), "wins": found.wins, "prompts": found.n}

    return {
        "title": figures.title,
        "size": figures.size,
        "task": figures.task,
        "prompts": figures.prompts,
        "seeds": list(figures.seeds),
        "machines": dict(figures.machines),
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
                "against": one.rival,
                "differences": {name: difference(found) for name, found in one.against.items()},
            }
            for one in figures.columns
        },
        "problems": [*figures.unsteered, *figures.problems],
    }
