"""Pictures and runs against their prompts, by any set of metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from rewardsds import __version__
from rewardsds.errors import SettingsError
from rewardsds.evaluation.metrics import (
    PICTURES_AT_ONCE,
    Answer,
    Metric,
    MetricInfo,
    Subject,
    failure,
    full_precision,
    is_optimised,
    load_metric,
    metric_info,
    reason,
)
from rewardsds.evaluation.settings import DEFAULT_METRICS, VIEW_KINDS, VIEWS, ViewKind
from rewardsds.evaluation.statistics import Estimate, by_prompt, interval_of_mean
from rewardsds.evaluation.subjects import Entry, Look, find_entries, look_at
from rewardsds.evaluation.tables import DAGGER, GAP, cell, counted, csv_text, heading, json_text, markdown
from rewardsds.rewards.load import TOYBOX_REWARDS
from rewardsds.runs.progress import say
from rewardsds.runs.settings import resolved_device

BYTES_AT_ONCE = 2**29
"""Of pictures that wait for the metrics."""


@dataclass(frozen=True)
class Mean:
    """estimate: over prompts, whose seeds are averaged first; None where no entry has a value.

    n: entries with a value, of so many. optimised: the metric was the reward of a run among them.
    """

    estimate: Estimate | None
    n: int
    of: int
    optimised: bool


@dataclass(frozen=True)
class Row:
    """An entry with what each metric says of it, by name; without answers where the entry has an error."""

    entry: Entry
    answers: Mapping[str, Answer] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreSheet:
    """metrics: in the order asked for. failed: why a metric could not be loaded, or failed on some entries."""

    metrics: Sequence[MetricInfo]
    rows: Sequence[Row]
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def errors(self) -> list[Entry]:
        """Entries that could not be scored."""
        return [row.entry for row in self.rows if row.entry.error]

    @property
    def is_whole(self) -> bool:
        """Whether everything that was asked for could be scored; what a metric cannot tell does not count."""
        return not self.errors and not self.failed

    def values(self, metric: str, group: str | None = None) -> list[tuple[Entry, float | None]]:
        """What a metric says of the entries of a group, or of all."""
        return [
            (row.entry, row.answers[metric].value if metric in row.answers else None)
            for row in self.rows
            if group in (None, row.entry.group)
        ]

    @cached_property
    def groups(self) -> dict[str, dict[str, Mean]]:
        """Means by group and metric; groups in the order of their first entries."""
        names = dict.fromkeys(row.entry.group for row in self.rows)
        return {group: {info.name: self._mean(info.name, group) for info in self.metrics} for group in names}

    def _mean(self, metric: str, group: str) -> Mean:
        found = self.values(metric, group)
        prompts, values = [entry.prompt for entry, _ in found], [value for _, value in found]
        samples = list(by_prompt(prompts, values).values())
        return Mean(
            interval_of_mean(samples) if samples else None,
            n=sum(value is not None for value in values),
            of=len(found),
            optimised=any(is_optimised(metric, entry.rewards) for entry, _ in found),
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON. Values are as the metrics gave them, intervals are 95%."""
        return {
            "version": __version__,
            "metrics": {info.name: self._described(info) for info in self.metrics},
            "groups": {
                group: {metric: _mean_as_dict(mean) for metric, mean in means.items()}
                for group, means in self.groups.items()
            },
            "entries": [self._entry(row) for row in self.rows],
        }

    def _described(self, info: MetricInfo) -> dict[str, Any]:
        fields = ("title", "of", "higher_is_better", "unit", "digits", "scale")
        failed = {"failed": self.failed[info.name]} if info.name in self.failed else {}
        return {name: getattr(info, name) for name in fields} | failed

    def _entry(self, row: Row) -> dict[str, Any]:
        entry = row.entry
        return {
            "name": entry.name,
            "group": entry.group,
            "prompt": entry.prompt or None,
            "seed": entry.seed,
            "source": str(entry.source),
            "scores": self._scores(row),
            "optimised": self._optimised(entry),
            "notes": {name: answer.why for name, answer in row.answers.items() if answer.why},
            "note": entry.note or None,
            "error": entry.error or None,
        }

    def _scores(self, row: Row) -> dict[str, float | None]:
        values = {name: answer.value for name, answer in row.answers.items()}
        return {info.name: values.get(info.name) for info in self.metrics}

    def _optimised(self, entry: Entry) -> list[str]:
        """Metrics that were the reward of the entry's run."""
        return [info.name for info in self.metrics if is_optimised(info.name, entry.rewards)]

    def to_json(self) -> str:
        return json_text(self.to_dict())

    def to_csv(self) -> str:
        """A row an entry; values as the metrics gave them."""
        head = ["name", "group", "prompt", "seed", "source", *(info.name for info in self.metrics)]
        rows = []
        for row in self.rows:
            entry = row.entry
            notes = [
                entry.note,
                *(f"{name}: {answer.why}" for name, answer in row.answers.items() if answer.why),
            ]
            rows.append(
                [
                    entry.name, entry.group, entry.prompt, entry.seed, entry.source, *self._scores(row).values(),
                    "; ".join(self._optimised(entry)), "; ".join(note for note in notes if note), entry.error,
                ]
            )  # fmt: skip
        return csv_text([*head, "optimised", "notes", "error"], rows)

    def to_markdown(self) -> str:
        """The means by group and metric; below them what they leave out, and what could not be scored."""
        head = ["group", "entries", *(heading(info) for info in self.metrics)]
        rows = [
            [
                group,
                str(next(iter(means.values())).of),
                *(_shown(means[info.name], info) for info in self.metrics),
            ]
            for group, means in self.groups.items()
        ]
        lines = markdown(head, rows)
        for title, notes in (("", self._footnotes()), ("Not scored:", self._error_lines())):
            if notes:
                lines += ["", *([title, ""] if title else []), *(f"- {note}" for note in notes)]
        return "\n".join(lines) + "\n"

    def _footnotes(self) -> list[str]:
        notes = []
        varies = any(
            mean.estimate and mean.estimate.low != mean.estimate.high
            for means in self.groups.values()
            for mean in means.values()
        )
        if varies:
            notes.append("Means over prompts; in brackets 95% intervals, bootstrapped over prompts.")
        if any(mean.optimised for means in self.groups.values() for mean in means.values()):
            notes.append(
                f"{DAGGER} The runs, or some of them, were optimised by this: it says little about them."
            )
        foreign = [info.name for info in self.metrics if info.name in TOYBOX_REWARDS]
        if foreign and any(row.entry.prior not in (None, "toybox") for row in self.rows):
            notes.append(
                f"{', '.join(foreign)}: the toybox's, which have seen its toys alone; not all runs are of them."
            )
        notes += [
            f"{info.name}: {self.failed[info.name]}" for info in self.metrics if info.name in self.failed
        ]
        for info in self.metrics:
            answers = [row.answers[info.name] for row in self.rows if info.name in row.answers]
            whys = [answer.why for answer in answers if answer.why and not answer.failed]
            if whys:
                notes.append(
                    f"{info.title}: not told of {len(whys)} of {len(self.rows)} entries: {counted(whys)}"
                )
        said = Counter(row.entry.note for row in self.rows if row.entry.note)
        return notes + [note if count == 1 else f"{note} ({count} entries)" for note, count in said.items()]

    def _error_lines(self) -> list[str]:
        return [f"{entry.name}: {entry.error}" for entry in self.errors]


def _shown(mean: Mean, info: MetricInfo) -> str:
    """A mean in a table, marked where it was optimised, with how many it leaves out."""
    text = cell(mean.estimate, info)
    if mean.estimate is None:
        return GAP
    text += f" {DAGGER}" if mean.optimised else ""
    return text + (f", {mean.n} of {mean.of}" if mean.n < mean.of else "")


def _mean_as_dict(mean: Mean) -> dict[str, Any]:
    found = mean.estimate
    return {
        "mean": None if found is None else found.value,
        "interval": None if found is None else [found.low, found.high],
        "n": mean.n,
        "of": mean.of,
        "optimised": mean.optimised,
    }


def score(
    paths: Sequence[Path | str],
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    prompts: Path | None = None,
    groups: Sequence[str] = (),
    views: int = VIEWS,
    view_kind: ViewKind = "random",
    seed: int = 0,
    size: int | None = None,
    distractors: Sequence[str] = (),
    device: str = "auto",
    grader: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> ScoreSheet:
    """Scores what lies at some paths: pictures, folders of them, run folders, folders with runs below.

    prompts: file with the prompts of pictures that belong to no run, see `read_prompt_file`; without one a picture's
    name is read. groups: see `find_entries`. views, view_kind, seed, size: how objects are looked at, see `Look`.
    distractors: prompts that R-precision ranks beside those that are scored. grader: options of `GraderReward`.

    What is wrong with a picture, a run or a metric is told in the sheet, the rest is scored. Raises SettingsError for
    paths, files and names that cannot be used, before any model is loaded.
    """
    infos = _infos(metrics)
    _check(views, view_kind, seed, size)
    device = resolved_device(device)
    console = console or Console(stderr=True, highlight=False)
    entries = find_entries([Path(path) for path in paths], prompts, groups)
    asked = [entry.prompt for entry in entries if not entry.error]
    ready: dict[str, Metric] = {}
    failed: dict[str, str] = {}
    for name in metrics if asked else ():
        try:
            ready[name] = load_metric(name, device, distractors=[*asked, *distractors], grader=grader)
        except Exception as error:
            failed[name] = reason(error)
    rows: list[Row] = []
    for part in _in_parts(look_at(entries, Look(views, view_kind, seed, size, device))):
        rows += _answered(part, ready)
        if len(part) < len(entries):
            say(console, f"scored {len(rows)} of {len(entries)}")
    for name in ready:
        whys = [row.answers[name].why for row in rows if name in row.answers and row.answers[name].failed]
        if whys:
            failed[name] = f"failed on {len(whys)} of {len(rows)} entries: {counted(whys)}"
    shown = [ready[info.name].info if info.name in ready else info for info in infos]
    return ScoreSheet(_told_apart(shown), rows, {name: failed[name] for name in metrics if name in failed})


def _infos(metrics: Sequence[str]) -> list[MetricInfo]:
    if not metrics:
        raise SettingsError("no metric is named")
    for index, name in enumerate(metrics):
        if name in metrics[:index]:
            raise SettingsError(f"the metric {name} is named twice")
    return [metric_info(name) for name in metrics]


def _told_apart(infos: Sequence[MetricInfo]) -> list[MetricInfo]:
    """Metrics of the same title are shown by their names."""
    count = Counter(info.title for info in infos)
    return [replace(info, title=info.name) if count[info.title] > 1 else info for info in infos]


def _check(views: int, view_kind: str, seed: int, size: int | None) -> None:
    if not 1 <= views <= 360:
        raise SettingsError(f"views is {views}: expected 1 to 360")
    if view_kind not in VIEW_KINDS:
        raise SettingsError(f"view_kind is {view_kind!r}: expected {' or '.join(VIEW_KINDS)}")
    if not 0 <= seed < 2**53:
        raise SettingsError(f"seed is {seed}: expected 0 to 2^53 − 1")
    if size is not None and not 16 <= size <= 4096:
        raise SettingsError(f"size is {size}: expected 16 to 4096 pixels")


Seen = tuple[Entry, Subject | None]


def _in_parts(seen: Iterator[Seen]) -> Iterator[list[Seen]]:
    """As many entries at a time as fit into BYTES_AT_ONCE, at most so many as a model sees pictures at once."""
    part: list[Seen] = []
    held = 0
    for entry, subject in seen:
        part.append((entry, subject))
        held += 0 if subject is None else subject.pictures.nbytes
        if len(part) >= PICTURES_AT_ONCE or held >= BYTES_AT_ONCE:
            yield part
            part, held = [], 0
    if part:
        yield part


def _answered(part: Sequence[Seen], metrics: Mapping[str, Metric]) -> list[Row]:
    """Asks every metric once about all that was seen."""
    subjects = [subject for _, subject in part if subject is not None]
    answers: dict[str, Iterator[Answer]] = {}
    for name, metric in metrics.items() if subjects else ():
        try:
            with full_precision():
                found = metric(subjects)
        except Exception as error:
            found = [failure(error)] * len(subjects)
        assert len(found) == len(subjects)
        answers[name] = iter(found)
    return [
        Row(entry, {} if subject is None else {name: next(own) for name, own in answers.items()})
        for entry, subject in part
    ]
