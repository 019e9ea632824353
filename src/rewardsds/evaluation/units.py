"""From a plan to runs: which pictures and objects each method owes, and which runs make them."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rewardsds.errors import RewardsdsError, SettingsError
from rewardsds.evaluation.plan import Edit, Method, Plan, file_name
from rewardsds.tasks.prompts import toybox_prompt
from rewardsds.tasks.settings import DistillationSettings, EditSettings, GenerationSettings, slug
from rewardsds.toybox.captions import embedded_kinds

MOST_PARTICLES = 64  # of a run


@dataclass(frozen=True)
class Asked:
    """What is to be made. label: what tells it apart. prompt: by which it is judged. settings: of the task, that say
    it."""

    label: str
    prompt: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """One run: some items of one method, made side by side.

    items: (prompt, seed), in the order of the run's results. sampling_steps: of plain sampling, or None for a run.
    """

    method: str
    settings: DistillationSettings
    items: tuple[tuple[str, int], ...]
    sampling_steps: int | None = None

    @cached_property
    def key(self) -> str:
        """What the result depends on, as 12 hexadecimal digits: units with the same key make the same."""
        said = {
            "task": self.settings.task,
            "sampling_steps": self.sampling_steps,
            **self.settings.model_dump(mode="json", exclude={"out"}),
        }
        if isinstance(self.settings, EditSettings):  # by what it shows: wherever it lies
            with suppress(OSError):
                said["picture"] = hashlib.sha256(self.settings.picture.read_bytes()).hexdigest()
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        """Below the plan's folder."""
        prompt, seed = self.items[0]
        return Path("runs") / file_name(self.method) / f"{slug(prompt, 32)}-{seed}-{self.key}"


@dataclass(frozen=True)
class Made:
    """The result of an item of a unit."""

    unit: Unit
    index: int


@dataclass(frozen=True)
class Cell:
    """A method's result for what was asked and a seed: one, or of `made` the one that a reward picks.

    problem: why nothing can be made of it.
    """

    method: str
    asked: Asked
    seed: int
    made: tuple[Made, ...]
    problem: str = ""


def asked_of(plan: Plan, pictures: Callable[[], Path]) -> list[Asked]:
    """The plan's prompts, or its edits. pictures: gives the folder for pictures of the toybox's own edits.

    Raises SettingsError where there are none.
    """
    if plan.task != "edit":
        return [Asked(prompt, prompt, {"prompt": prompt}) for prompt in plan.texts()]
    edits = _edits(plan, pictures)
    if not edits:
        raise SettingsError(
            "the plan has no edits: prompts is a list of picture, source and target, or toybox-edits:N"
        )
    return [
        Asked(
            f"{edit.source} → {edit.target}",
            edit.target,
            {"picture": edit.picture, "source": edit.source, "target": edit.target},
        )
        for edit in edits
    ][: plan.limit]


def _edits(plan: Plan, pictures: Callable[[], Path]) -> list[Edit]:
    if isinstance(plan.prompts, list):
        return [edit for edit in plan.prompts if isinstance(edit, Edit)]
    name, _, count = plan.prompts.partition(":")
    if name != "toybox-edits" or not (count or "48").isdigit() or int(count or "48") < 1:
        raise SettingsError(
            f"prompts of edits are {plan.prompts!r}: expected a list of picture, source and target, or toybox-edits:N"
        )
    from rewardsds.evaluation.edits import write_edits

    return [
        Edit(picture=picture, source=source, target=target)
        for picture, source, target in write_edits(min(int(count or 48), plan.limit or 10_000), pictures())
    ]


def cells_and_units(
    plan: Plan, asked: Sequence[Asked], best_of: Mapping[str, int]
) -> tuple[list[Cell], list[Unit]]:
    """Every method's cells, prompts outermost, and the units that make them.

    best_of: how many results each method may pick from, by its name. Where methods owe the same run, it is there once.
    Raises SettingsError, with the method's name, for settings that a task does not have.
    """
    cells: list[Cell] = []
    units: dict[str, Unit] = {}
    refused: dict[str, list[str]] = {}  # by prior
    for name, variant in plan.columns().items():
        try:
            prior = plan.settings_of(variant.method, **asked[0].settings).prior
            if prior not in refused:
                refused[prior] = _refused(prior, asked)
            problems = refused[prior]
            able = [index for index, problem in enumerate(problems) if not problem]
            own = list(_units(plan, name, variant.method, [asked[index] for index in able], best_of[name]))
        except SettingsError as error:
            raise SettingsError(f"method {name}: {error}") from None
        made = {
            (able[index], seed): Made(units.setdefault(unit.key, unit), position)
            for unit, places in own
            for position, (index, seed) in enumerate(places)
        }
        for index, seed in itertools.product(range(len(asked)), plan.seed_list):
            seeds = () if problems[index] else seeds_of(seed, best_of[name])
            several = tuple(made[index, candidate] for candidate in seeds)
            cells.append(Cell(name, asked[index], seed, several, problems[index]))
    return cells, list(units.values())


def _refused(prior: str, asked: Sequence[Asked]) -> list[str]:
    """Why a prior can make nothing of what is asked, of each; empty where it can.

    Told of the toybox, which says so before anything is made: in a batch one prompt would take the others with it.
    """
    problems = [""] * len(asked)
    if prior != "toybox":
        return problems
    kinds = embedded_kinds()
    for index, one in enumerate(asked):
        try:
            for text in (one.prompt, one.settings.get("source", one.prompt)):
                toybox_prompt(text, kinds)
        except RewardsdsError as error:
            problems[index] = str(error)
    return problems


def seeds_of(seed: int, best_of: int) -> list[int]:
    """The seeds of the results from which a cell picks: those of no two cells are the same."""
    return [seed * best_of + index for index in range(best_of)]


def _units(
    plan: Plan, name: str, method: Method, asked: Sequence[Asked], best_of: int
) -> Iterator[tuple[Unit, list[tuple[int, int]]]]:
    """Units, each with the places of its items: (index of what was asked, seed)."""
    if not asked:
        return
    seeds = [candidate for seed in plan.seed_list for candidate in seeds_of(seed, best_of)]
    if plan.task != "image":  # an object or an edit is a run of its own
        for (index, one), seed in itertools.product(enumerate(asked), seeds):
            settings = plan.settings_of(method, seed=seed, **one.settings)
            yield Unit(name, settings, ((one.prompt, seed),)), [(index, seed)]
        return
    for first, count in runs_of(seeds, min(plan.batch, MOST_PARTICLES)):
        probe = plan.settings_of(method, prompt=asked[0].prompt, seed=first, particles=count)
        at_once = 1 if isinstance(probe, GenerationSettings) and probe.loss == "vsd" else plan.batch // count
        for start in range(0, len(asked), max(1, at_once)):
            prompts = [one.prompt for one in asked[start : start + max(1, at_once)]]
            said = {"prompts": tuple(prompts)} if len(prompts) > 1 else {"prompt": prompts[0]}
            settings = plan.settings_of(method, seed=first, particles=count, **said)
            places = list(itertools.product(range(start, start + len(prompts)), range(first, first + count)))
            items = tuple((asked[index].prompt, seed) for index, seed in places)
            yield Unit(name, settings, items, method.sampling_steps), places


def runs_of(numbers: Sequence[int], longest: int) -> list[tuple[int, int]]:
    """(first, count) of the stretches of whole numbers that follow each other, none longer than asked."""
    stretches: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if stretches and number == sum(stretches[-1]) and stretches[-1][1] < longest:
            stretches[-1] = (stretches[-1][0], stretches[-1][1] + 1)
        else:
            stretches.append((number, 1))
    return stretches
