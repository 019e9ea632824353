"""`rewardsds compare`: methods × prompts × seeds, from a plan to a report.

The plan's folder:

    plan.yaml        the plan as it was read, all names filled in
    runs/            one run folder a unit, named by what it depends on: a changed plan remakes only what it changes
    costs.json       what a result of each method costs, measured before anything is made, and the machine on which it
                     was begun; written first: a folder that has it is a comparison's
    scores.json      answers of the metrics, which are asked once
    comparison.json, comparison.csv, comparison.md, sheet.png, report.html
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from torch import Tensor

from rewardsds.distillation.step import ask
from rewardsds.errors import (
    Interrupted,
    RewardsdsError,
    RunFolderError,
    SettingsError,
    settings_of_file,
    terminable,
)
from rewardsds.evaluation import execute
from rewardsds.evaluation.costs import Cost, measure
from rewardsds.evaluation.metrics import (
    Answer,
    Metric,
    MetricInfo,
    Subject,
    check_reward,
    failure,
    full_precision,
    is_optimised,
    load_metric,
    metric_info,
    reason,
)
from rewardsds.evaluation.plan import GIVEN, Method, Plan, read_plan
from rewardsds.evaluation.prompt_sets import read_prompts
from rewardsds.evaluation.report import write_report
from rewardsds.evaluation.results import Figures, Scored, as_csv, as_json, as_markdown, column, machine_name
from rewardsds.evaluation.sheet import draw_sheet
from rewardsds.evaluation.subjects import Entry, Look, look_at, size_of
from rewardsds.evaluation.tables import json_text
from rewardsds.evaluation.units import Asked, Cell, Made, Unit, asked_of, cells_and_units
from rewardsds.hardware import available_cores, machine_record
from rewardsds.memory import release_memory
from rewardsds.rewards.load import GRADER, load_reward, reward_names
from rewardsds.runs import atomic
from rewardsds.runs.folder import RunFolder, is_free, made_and_locked
from rewardsds.runs.progress import format_seconds, say
from rewardsds.runs.settings import resolved_device
from rewardsds.scenes.export import render_turntable, save_png, turntable_cameras
from rewardsds.tasks.parts import grader_options
from rewardsds.tasks.settings import DistillationSettings, GraderSettings, TextTo3DSettings

COSTS = "costs.json"
AT_ONCE = 32  # results that are looked at together
SHEET_VIEWS, SHEET_SIZE = 4, 96  # of an object in the contact sheet


def _check_plan(plan: Plan) -> None:
    """Raises SettingsError for names of no metric and no reward, and for settings that the task does not have: nothing
    is made or written for them."""
    for name in plan.metrics:
        metric_info(name)
    for name, variant in plan.columns().items():
        method = variant.method
        try:
            settings = _settings_of(plan, method)
            if settings.needs_reward and method.sampling_steps is None:
                check_reward(settings.reward)
        except SettingsError as error:
            raise SettingsError(f"method {name}: {error}") from None
        try:
            if method.picked_by:
                check_reward(method.picked_by)
        except SettingsError as error:
            raise SettingsError(f"picked_by of {name}: {error}") from None


def _settings_of(plan: Plan, method: Method) -> DistillationSettings:
    """Of a run of a method, whatever is asked for."""
    edit = {"picture": Path("picture.png"), "source": "a toy", "target": "a toy"}
    return plan.settings_of(method, **(edit if plan.task == "edit" else {"prompt": "a toy"}))


def _there(device: str) -> str:
    """A device as settings say it; what this machine has in place of a GPU that it has not."""
    try:
        return resolved_device(device)
    except SettingsError:
        return resolved_device("auto")


@dataclass
class Comparison:
    """A plan with its folder, from which everything else follows."""

    plan: Plan
    root: Path
    console: Console
    asked: list[Asked] = field(init=False)
    cells: list[Cell] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    best_of: dict[str, int] = field(default_factory=dict)
    elsewhere: dict[str, Path] = field(
        default_factory=dict
    )  # finished runs of other comparisons, by a unit's key

    def __post_init__(self) -> None:
        _check_plan(self.plan)
        more = self.plan.distractors
        self.distractors = read_prompts(more) if isinstance(more, str) else list(more)
        self.notes = _Notes(self.root / COSTS)
        self.columns = self.plan.columns()
        self.asked = asked_of(self.plan, self._pictures)
        self.answers = _Notes(self.root / "scores.json")

    def _begin(self) -> None:
        """Marks the folder as a comparison's, before anything else is written."""
        if self.notes.get("hardware") is None:
            self.notes.put("hardware", machine_record(_there(self._device)))
        self.notes.write()

    @property
    def _device(self) -> str:
        """The device of the methods; where some are on the CPU and others not, that of the others."""
        said = [_settings_of(self.plan, variant.method).device for variant in self.columns.values()]
        return next((device for device in said if device != "cpu"), "cpu")

    def _pictures(self) -> Path:
        self._begin()
        return self.root / "pictures"

    # --- what is to be made -----------------------------------------------------------------------------

    def lay_out(self) -> dict[str, Cost | str]:
        """Finds the cells and units of every method; returns what a result of each costs, without picking, or why that
        cannot be measured."""
        counts = {name: variant.method.best_of for name, variant in self.columns.items()}
        fixed = {name: count if isinstance(count, int) else 1 for name, count in counts.items()}
        self.cells, _ = cells_and_units(self.plan, self.asked, dict.fromkeys(fixed, 1))
        self._begin()
        costs = {name: self._cost(name) for name in fixed}
        self.best_of = dict(fixed)
        for name, other in counts.items():
            if isinstance(other, str):
                own, theirs = costs[name], costs[other]
                for method, cost in ((name, own), (other, theirs)):
                    if isinstance(cost, str):
                        raise SettingsError(
                            f"best_of of {name} is {other}, but the cost of {method} is unknown: {cost}"
                        )
                assert isinstance(own, Cost)
                assert isinstance(theirs, Cost)
                afford = fixed[other] * theirs.network_evaluations / own.network_evaluations
                self.best_of[name] = max(1, math.floor(afford + 1e-6))
        self.cells, self.units = cells_and_units(self.plan, self.asked, self.best_of)
        return costs

    def _unit_of(self, name: str) -> Unit | None:
        """One of a method's runs; None where its prior can make nothing of any prompt."""
        return next((made.unit for cell in self.cells if cell.method == name for made in cell.made), None)

    def _cost(self, name: str) -> Cost | str:
        unit = self._unit_of(name)
        if unit is None:
            return next(cell.problem for cell in self.cells if cell.method == name)
        known = self.notes.get(unit.key)
        if known is None:
            try:
                known = list(measure(unit))
            except (ValueError, OSError, RuntimeError) as error:
                return " ".join(str(error).split())
            finally:  # after the handler, whose traceback holds what was measured
                release_memory()
            self.notes.put(unit.key, known)
            self.notes.write()
        return Cost(*known)

    def room(self) -> int:
        """How many runs this machine makes at the same time: by their threads, and one on a GPU."""
        devices = {unit.settings.device for unit in self.units}
        if not devices or any(resolved_device(device) != "cpu" for device in devices):
            return 1
        return max(1, available_cores() // max(unit.settings.threads or 1 for unit in self.units))

    def left(self) -> list[Unit]:
        return [
            unit
            for unit in self.units
            if unit.key not in self.elsewhere and not execute.is_made(unit, self.root)
        ]

    def find_elsewhere(self, comparisons: Sequence[Path]) -> None:
        """Finds runs that need not be made, as other comparisons have them."""
        self.elsewhere = execute.made_elsewhere(self.left(), comparisons)

    def take_over(self) -> None:
        """Copies the runs that were found elsewhere."""
        for unit in self.units:
            if unit.key in self.elsewhere:
                execute.take_over(unit, self.root, self.elsewhere.pop(unit.key))

    def say_what_it_costs(self, costs: Mapping[str, Cost | str], workers: int) -> None:
        total, counted = 0.0, set[tuple[str, int]]()  # what methods share is made once
        left = {unit.key for unit in self.left()}
        for name, cost in costs.items():
            if isinstance(cost, str):
                say(self.console, f"{name}: what it costs is unknown: {cost}")
                continue
            made = {
                (one.unit.key, one.index) for cell in self.cells if cell.method == name for one in cell.made
            }
            to_make = sum(key in left for key, _ in made)
            total += cost.seconds * sum(key in left for key, _ in made - counted)
            counted |= made
            each = f" each the best of {self.best_of[name]}," if self.best_of[name] > 1 else ""
            say(
                self.console,
                f"{name}: {len(self.asked) * len(self.plan.seed_list)} results,{each} about "
                f"{cost.network_evaluations * self.best_of[name]:,.0f} network evaluations a result; {to_make} of "
                f"{len(made)} to be made, about {format_seconds(to_make * cost.seconds)} one after the other",
            )
        many = f" with {workers} workers" if workers > 1 else ""
        took = format_seconds(total / workers)
        said = f"all: {len(left)} of {len(self.units)} runs to be made, about {took}{many}"
        if self.elsewhere:
            said += f"; {len(self.elsewhere)} are taken over from other comparisons"
        say(self.console, said)

    # --- making -----------------------------------------------------------------------------------------

    def make(self, outcomes: Iterator[execute.Outcome], count: int) -> dict[str, str]:
        """Follows the units as they are made; returns why some failed, by their key."""
        problems: dict[str, str] = {}
        for index, outcome in enumerate(outcomes, start=1):
            unit = outcome.unit
            (prompt, seed), *others = unit.items
            more = f" and {len(others)} more" if others else ""
            how = f"failed: {outcome.problem}" if outcome.problem else format_seconds(outcome.seconds)
            say(self.console, f"[{index}/{count}] {unit.method}: {prompt}, seed {seed}{more}: {how}")
            if outcome.problem:
                problems[unit.key] = outcome.problem
        return problems

    # --- scoring ----------------------------------------------------------------------------------------

    def score(self, problems: Mapping[str, str]) -> Figures:
        metrics = _Metrics(self.plan, self.ranked)
        picker = _Picker(self)
        scored: list[Scored] = []
        for start in range(0, len(self.cells), AT_ONCE):
            part = [self._placed(cell, problems, picker) for cell in self.cells[start : start + AT_ONCE]]
            scored += self._scored(part, metrics)
            self.answers.write()
        return self._figures(scored, metrics)

    @property
    def ranked(self) -> list[str]:
        """All prompts that R-Precision ranks, whichever cells are asked about together."""
        return list(dict.fromkeys([*(one.prompt for one in self.asked), *self.distractors]))

    def _placed(self, cell: Cell, problems: Mapping[str, str], picker: _Picker) -> _Placed:
        """A cell with the result that is shown of it, and what all of its results cost."""
        if cell.problem:
            return _Placed(cell, None, 0.0, 0.0, cell.problem)
        evaluations = seconds = 0.0
        for made in cell.made:
            results = self.results_of(made.unit)
            if results is None:
                why = problems.get(made.unit.key, "not made")
                return _Placed(cell, None, 0.0, 0.0, why)
            evaluations += results["network_evaluations"] / len(made.unit.items)
            seconds += results["seconds"] / len(made.unit.items)
        try:
            chosen = picker.pick(cell)
        except (ValueError, OSError) as error:
            return _Placed(cell, None, evaluations, seconds, f"nothing could be picked: {error}")
        return _Placed(cell, chosen, evaluations, seconds)

    def _scored(self, part: Sequence[_Placed], metrics: _Metrics) -> list[Scored]:
        found: list[dict[str, Answer]] = [{} for _ in part]
        asked: dict[int, list[str]] = {}
        for index, one in enumerate(part):
            for name in metrics.names if one.made else ():
                known = self.answers.get(self._key(one, name))
                if known is None:
                    asked.setdefault(index, []).append(name)
                else:
                    found[index][name] = Answer(*known)
        entries = {
            index: self.entry_of(one.cell, one.made)
            for index, one in enumerate(part)
            if index in asked and one.made is not None
        }
        look = Look(self.plan.views, self.plan.view_kind)
        seen = dict(zip(entries, look_at(list(entries.values()), look), strict=True))
        for name in metrics.names:
            wanted = [index for index, names in asked.items() if name in names and seen[index][1] is not None]
            subjects = [subject for index in wanted if (subject := seen[index][1]) is not None]
            for index, answer in zip(wanted, metrics.ask(name, subjects) if wanted else (), strict=False):
                found[index][name] = answer
                if not answer.failed:
                    self.answers.put(self._key(part[index], name), [answer.value, answer.why])
        scored = []
        for index, one in enumerate(part):
            error = seen[index][0].error if index in seen else ""
            entry = self.entry_of(one.cell, one.made) if one.made else None
            picture = entry.source.name if entry and entry.particle is None else ""
            scored.append(
                Scored(
                    one.cell,
                    str(one.made.unit.folder) if one.made else "",
                    picture,
                    found[index],
                    round(one.network_evaluations, 3),
                    round(one.seconds, 3),
                    one.problem or error,
                )
            )
        return scored

    def _key(self, one: _Placed, metric: str) -> str:
        """What an answer depends on."""
        assert one.made is not None
        results = self.results_of(one.made.unit)
        assert results is not None
        said = [metric, results["scene_sha256"], one.made.index, one.cell.asked.prompt]
        if self.plan.task == "3d":
            said += [self.plan.views, self.plan.view_kind, one.cell.seed]
        if metric.startswith("r-precision"):
            said.append(self.ranked)
        if metric in ("fronts", "back-as-front"):
            said.append("none without a front")  # answers that were kept before say 0 there
        said += _endpoint(metric, self.plan.metrics_grader)
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:24]

    def results_of(self, unit: Unit) -> dict[str, Any] | None:
        """A unit's `results.json`; None where it is not finished, or was damaged."""
        try:
            return RunFolder(self.root / unit.folder).read_results()
        except (OSError, ValueError):
            return None

    def entry_of(self, cell: Cell, made: Made) -> Entry:
        """The result of an item of a unit as something to look at."""
        folder, settings = self.root / made.unit.folder, made.unit.settings
        label = f"{cell.method}: {cell.asked.label}, seed {cell.seed}"
        base = Entry(label, cell.method, folder, cell.asked.prompt, cell.seed, prior=settings.prior)
        if isinstance(settings, TextTo3DSettings):
            return replace(base, particle=0, size=size_of(settings))
        if self.plan.task == "edit":
            return replace(base, source=folder / "image.png")
        results = self.results_of(made.unit) or {"files": []}
        names = [name for name in results["files"] if name.endswith(".png")]
        if len(names) != len(made.unit.items):
            return replace(
                base, error=f"{folder} says {len(names)} pictures, expected {len(made.unit.items)}"
            )
        return replace(base, source=folder / names[made.index])

    # --- reporting --------------------------------------------------------------------------------------

    def _figures(self, scored: Sequence[Scored], metrics: _Metrics) -> Figures:
        of = {name: [one for one in scored if one.cell.method == name] for name in self.columns}
        infos, rivals = metrics.infos, self.plan.rivals()
        made = {unit.key: one for unit in self.units if (one := self.results_of(unit)) is not None}
        columns = []
        for name, variant in self.columns.items():
            rival = rivals[name]
            columns.append(
                column(
                    name,
                    of[name],
                    None if rival is None else of[rival],
                    infos,
                    rival=rival,
                    best_of=self.best_of[name],
                    optimised=tuple(
                        info.name
                        for info in infos
                        if is_optimised(info.name, self._steered_by(name, variant.method))
                    ),
                    swept=variant.swept,
                    family=variant.family,
                )
            )
        return Figures(
            title=self.plan.title or "Comparison",
            size=self.plan.size,
            task=self.plan.task,
            prompts=len(self.asked),
            seeds=self.plan.seed_list,
            metrics=infos,
            columns=columns,
            scored=scored,
            gaps=metrics.gaps,
            machines=dict(Counter(machine_name(one.get("hardware")) for one in made.values())),
            hardware=dict(sorted((self.notes.get("hardware") or {}).items())),
            left_out=self._left_out(made),
        )

    def _left_out(self, made: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], tuple[int, int]]:
        """In how many steps of how many a reward failed and was left out, by method and reward."""
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for name in self.columns:
            keys = {one.unit.key for cell in self.cells if cell.method == name for one in cell.made}
            results = [one for key, one in made.items() if key in keys]
            counts: Counter[str] = Counter()
            for one in results:
                counts.update(one.get("rewards_left_out") or {})
            steps = sum(one.get("steps", 0) for one in results)
            found.update({(name, reward): (count, steps) for reward, count in counts.items()})
        return found

    def _steered_by(self, name: str, method: Method) -> tuple[str, ...]:
        """The rewards that a method follows or picks by."""
        unit = self._unit_of(name)
        if unit is None:
            return ()
        settings = unit.settings
        steered = settings.needs_reward and method.sampling_steps is None
        rewards = reward_names(settings.reward) if steered else ()
        if self.best_of[name] > 1:
            rewards += reward_names(method.picked_by or settings.reward)
        return rewards

    def pictures(self, scored: Sequence[Scored]) -> dict[tuple[str, str], Path]:
        """A picture of every method and prompt, of the first seed: (method, label) → file; of edits what was given
        too."""
        found: dict[tuple[str, str], Path] = {}
        first = self.plan.seed_list[0]
        by_folder = {str(unit.folder): unit for unit in self.units}
        for one in scored:
            if one.cell.seed != first or one.problem or not one.result:
                continue
            given = self.root / one.result / "before.png"
            if self.plan.task == "edit" and given.is_file():
                found[GIVEN, one.cell.asked.label] = given
            if one.picture:
                found[one.cell.method, one.cell.asked.label] = self.root / one.result / one.picture
                continue
            unit = by_folder[one.result]
            path = self.root / "sheet" / f"{unit.key}.png"
            if not path.is_file():
                self._draw_object(one, Made(unit, 0), path)
            if path.is_file():
                found[one.cell.method, one.cell.asked.label] = path
        return found

    def _draw_object(self, one: Scored, made: Made, path: Path) -> None:
        """Views of an object, beside each other."""
        ((_, subject),) = look_at([self.entry_of(one.cell, made)], Look(1, "even"))
        if subject is not None and subject.object is not None:
            cameras = turntable_cameras(SHEET_VIEWS).to(subject.object.device)
            views = render_turntable(subject.object.render_images, cameras, SHEET_SIZE)
            save_png(torch.cat(list(views), dim=-1), path)


@dataclass(frozen=True)
class _Placed:
    """A cell and the result that is shown of it; None with a problem, where there is none."""

    cell: Cell
    made: Made | None
    network_evaluations: float
    seconds: float
    problem: str = ""


class _Picker:
    """Picks of several results the one that a reward likes best."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self._rewards: dict[tuple[str, str, GraderSettings], Any] = {}

    def pick(self, cell: Cell) -> Made:
        first, *others = cell.made
        if not others:
            return first
        comparison = self.comparison
        method = comparison.columns[cell.method].method
        settings = cell.made[0].unit.settings
        name, grader = method.picked_by or settings.reward, comparison.plan.grader or settings.grader
        shas = [(comparison.results_of(made.unit) or {}).get("scene_sha256") for made in cell.made]
        said = ["pick", name, cell.asked.prompt, shas, [made.index for made in cell.made]]
        said += _endpoint(name, grader)
        key = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:24]
        known = comparison.answers.get(key)
        if known is None:
            known = self._best(cell, name, settings.device, grader)
            comparison.answers.put(key, known)
        return cell.made[known]

    def _best(self, cell: Cell, name: str, device: str, grader: GraderSettings) -> int:
        """By four even views of an object, which are others than those that it is judged by."""
        entries = [self.comparison.entry_of(cell, made) for made in cell.made]
        pictures: list[Tensor] = []
        for entry, subject in look_at(entries, Look(4, "even")):
            if subject is None:
                raise ValueError(entry.error)
            pictures.append(subject.pictures)
        own = name, device, grader
        if own not in self._rewards:
            self._rewards[own] = load_reward(
                name, _there(device), torch.float32, chunk="auto", grader=grader_options(grader)
            )
        with torch.no_grad(), full_precision():
            scores = ask(self._rewards[own], torch.stack(pictures)[:, None], [cell.asked.prompt])
        return int(scores[:, 0].argmax())


def _endpoint(reward: str, grader: GraderSettings) -> list[str | None]:
    """Where a grader is asked, on which its answers depend; nothing of other rewards."""
    url = grader.url or os.environ.get("OPENAI_BASE_URL")
    return [url] if any(name.startswith(GRADER) for name in reward_names(reward)) else []


class _Metrics:
    """The plan's metrics, loaded when they are first asked; those whose model is not there or cannot be reached leave a
    gap. One that fails on some results leaves gaps of these alone."""

    def __init__(self, plan: Plan, distractors: Sequence[str]) -> None:
        self.names = list(plan.metrics)
        self.gaps: dict[str, str] = {}
        self._infos = {name: metric_info(name) for name in self.names}
        self._loaded: dict[str, Metric] = {}
        self._distractors = distractors
        self._grader = grader_options(plan.metrics_grader)

    @property
    def infos(self) -> list[MetricInfo]:
        return [self._loaded[name].info if name in self._loaded else self._infos[name] for name in self.names]

    def ask(self, name: str, subjects: Sequence[Subject]) -> list[Answer]:
        if name in self.gaps:
            return []
        try:
            if name not in self._loaded:
                self._loaded[name] = load_metric(name, distractors=self._distractors, grader=self._grader)
        except (ValueError, OSError, RuntimeError) as error:
            self.gaps[name] = reason(error)
            return []
        try:
            with full_precision():
                answers = self._loaded[name](subjects)
        except (ValueError, OSError, RuntimeError) as error:
            answers = [failure(error)] * len(subjects)
        if len(answers) > 1 and all(answer.unreachable for answer in answers):
            self.gaps[name] = answers[-1].why
        return answers


class _Notes:
    """A JSON file of things that are found out once; `write` puts changes on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: dict[str, Any] = {}
        self._changed = False
        with suppress(OSError, ValueError):
            found = json.loads(path.read_text(encoding="utf-8"))
            self._values = found if isinstance(found, dict) else {}

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def put(self, key: str, value: Any) -> None:
        self._values[key] = value
        self._changed = True

    def forget(self) -> None:
        self._values.clear()
        self._changed = True

    def write(self) -> None:
        if self._changed:
            atomic.write_text(self.path, json.dumps(self._values, indent=0, sort_keys=True) + "\n")
            self._changed = False


# --- the command --------------------------------------------------------------------------------------------


def compare(
    plan_path: Path,
    out: Path | None = None,
    *,
    size: str | None = None,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float = 0.0,
    reuse: Sequence[Path] = (),
    dry_run: bool = False,
    rescore: bool = False,
    console: Console | None = None,
) -> tuple[Figures | None, list[Path]]:
    """Does what a plan says, as far as it is not done; returns its figures and the files that show them.

    out: the plan's folder; runs/compare-<name of the plan> unless said otherwise, with the size behind it.
    workers: processes; as many as have cores, and one on a GPU, unless said otherwise.
    ray: address of a Ray cluster that shares the folder, in their place; gpus: of each run there, fractions share one;
    0: one where the cluster has any and the run's device is not cpu.
    reuse: folders of other comparisons, or of several, whose finished runs are copied where they are the same.
    dry_run: only say what it costs. rescore: ask the metrics again.

    Raises RewardsdsError, in one line, for a plan or a folder that cannot be used, and where another process is on it.
    """
    console = console or Console(stderr=True, highlight=False)
    if ray is not None and workers is not None:
        raise SettingsError("workers are processes of this machine, ray is a cluster: give one of them")
    for folder in reuse:
        if not folder.is_dir():
            raise SettingsError(f"reuse is {folder}: there is no such folder")
    plan = read_plan(plan_path, size)
    name = "-".join(part for part in ("compare", plan_path.stem, size or "") if part)
    root = out or Path("runs") / name
    with _claimed(root):
        with settings_of_file(plan_path):
            comparison = Comparison(plan, root, console)
            costs = comparison.lay_out()
        comparison.find_elsewhere(reuse)
        if ray is not None:
            workers = 1  # how many a cluster makes at the same time is not known yet
        workers = workers or comparison.room()
        comparison.say_what_it_costs(costs, workers)
        if dry_run:
            return None, []
        _write(root / "plan.yaml", _as_yaml(plan))
        comparison.take_over()
        problems = _make(comparison, workers, ray, gpus)
        if rescore:
            comparison.answers.forget()
        say(console, "scoring")
        figures = comparison.score(problems)
        files = _write_all(comparison, figures)
        for problem in figures.problems:
            say(console, f"missing: {problem}")
        return figures, files


@contextmanager
def _claimed(root: Path) -> Iterator[None]:
    """The plan's folder, made and locked. Raises RunFolderError for one that holds anything else."""
    if not is_free(root) and (RunFolder(root).is_run or not (root / COSTS).is_file()):
        raise RunFolderError(
            f"{root} is not empty and holds no comparison, so it is left alone; choose another folder with --out"
        )
    with made_and_locked(root):
        yield


def _make(comparison: Comparison, workers: int, ray: str | None, gpus: float) -> dict[str, str]:
    left, root = comparison.left(), comparison.root
    if not left:
        return {}
    if ray is not None:
        outcomes = execute.on_ray(left, root, ray, gpus, lambda text: say(comparison.console, text))
    elif workers > 1 and len(left) > 1:
        outcomes = execute.in_processes(left, root, min(workers, len(left)))
    else:
        outcomes = execute.here(left, root)
    with terminable():
        try:
            return comparison.make(outcomes, len(left))
        except (KeyboardInterrupt, Interrupted) as stopped:
            number = signal.SIGINT if isinstance(stopped, KeyboardInterrupt) else stopped.exit_code - 128
            made = len(comparison.units) - len(comparison.left())
            raise Interrupted(
                f"stopped with {made} of {len(comparison.units)} runs made; the same command goes on", number
            ) from None


def _write_all(comparison: Comparison, figures: Figures) -> list[Path]:
    root = comparison.root
    made = [one for one in figures.scored if not one.problem]
    if not made:
        reasons = "; ".join(figures.problems[:3])
        raise RewardsdsError(
            f"there is nothing to report: none of {len(figures.scored)} results is finished ({reasons})"
        )
    pictures = comparison.pictures(figures.scored)
    labels, columns = [one.label for one in comparison.asked], list(comparison.columns)
    if comparison.plan.task == "edit":
        columns = [GIVEN, *columns]
    _write(root / "comparison.json", json_text(as_json(figures)))
    _write(root / "comparison.csv", as_csv(figures))
    _write(root / "comparison.md", as_markdown(figures))
    sheet = root / "sheet.png"
    _anew(sheet, lambda path: draw_sheet(pictures, labels, columns, path))
    _anew(
        root / "report.html",
        lambda path: write_report(figures, pictures, labels, columns, _as_yaml(comparison.plan), path),
    )
    return [
        root / name
        for name in ("report.html", "comparison.md", "comparison.csv", "comparison.json", "sheet.png")
    ]


def _as_yaml(plan: Plan) -> str:
    values = plan.model_dump(mode="json", exclude={"sizes"}, exclude_defaults=True)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def _write(path: Path, text: str) -> None:
    """Leaves a file that says the same as it is."""
    with suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == text:
            return
    atomic.write_text(path, text)


def _anew(path: Path, write: Callable[[Path], None]) -> None:
    """`_write` for what writes a file itself."""
    new = path.with_name(f".{path.stem}.new{path.suffix}")
    write(new)
    if path.is_file() and path.read_bytes() == new.read_bytes():
        new.unlink()
    else:
        new.replace(path)
