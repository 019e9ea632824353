"""A comparison as a file: which methods, on which prompts and seeds, measured by what. Nothing heavy is imported here.

task: image
prompts: toybox:test:25           # a set, a file, or a list (see `prompt_sets`)
seeds: 3                          # 0, 1, 2; or a list
settings: {steps: 160}            # of all methods; `rewardsds settings image` lists them
methods:
  SDS: {weighting: none}
  RewardSDS: {}
  SDS, best of 4: {weighting: none, best_of: 4}
  sampling: {sampling_steps: 50}
  N: {sweep: {candidates: [2, 4, 8]}}
baseline: SDS
metrics: [clip, aesthetic, image-reward, judge]
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from rewardsds.errors import SettingsError, describe_os_error, did_you_mean, setting_names, settings_of_file
from rewardsds.evaluation.prompt_sets import read_prompts
from rewardsds.evaluation.settings import DEFAULT_METRICS, VIEWS, ViewKind
from rewardsds.runs.settings import Settings, over
from rewardsds.tasks.presets import PresetName, preset
from rewardsds.tasks.settings import TASKS, DistillationSettings, GraderSettings

PLANNED = ("prompt", "prompts", "seed", "out", "particles", "picture", "source", "target", "task")
"""Settings that the plan itself gives."""

GIVEN = "given"
"""The contact sheet's column of what was edited, beside those of the methods."""


class Method(Settings):
    """One column of a comparison."""

    preset: PresetName | None = Field(
        default=None, description="Named settings; those below count before them."
    )
    best_of: int | str = Field(
        default=1,
        description="Results that are made, of which picked_by takes one; the name of a method: as many as its cost "
        "allows, in network evaluations.",
    )
    picked_by: str = Field(default="", description="The reward that picks. Empty: the method's own `reward`.")
    sampling_steps: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Plain sampling from the prior (DDIM) in so many steps, in place of any optimisation.",
    )
    against: str | None = Field(
        default=None, description="The method that this one is compared with; without it the plan's baseline."
    )
    sweep: dict[str, list[Any]] = Field(
        default_factory=dict,
        description="Settings with several values each; the method becomes one for each combination.",
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="What else the task has.")

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any) -> Any:
        """What is no name of this class is a setting of the task."""
        if values is None:
            return {}
        if not isinstance(values, Mapping):
            return values
        own = {key: value for key, value in values.items() if key in cls.model_fields}
        others = {key: value for key, value in values.items() if key not in cls.model_fields}
        inner = own.get("settings", {})
        return {**own, "settings": over(inner, others) if isinstance(inner, Mapping) else inner}

    @field_validator("best_of")
    @classmethod
    def _check_best_of(cls, count: int | str) -> int | str:
        if isinstance(count, int) and not 1 <= count <= 1000:
            raise ValueError("expected 1 to 1000, or the name of a method")
        return count

    @field_validator("sweep")
    @classmethod
    def _check_sweep(cls, values: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for name, several in values.items():
            if not several:
                raise ValueError(f"{name} has no values")
            if len({str(value) for value in several}) < len(several):
                raise ValueError(f"{name} has a value twice")
        return values

    def variants(self, name: str) -> Iterator[tuple[str, Variant]]:
        """(its own name, the variant) of each combination of what is swept; the method itself where nothing is."""
        if not self.sweep:
            yield name, Variant(self)
            return
        for values in itertools.product(*self.sweep.values()):
            chosen = dict(zip(self.sweep, values))
            label = ", ".join(f"{setting.replace('_', ' ')} {value}" for setting, value in chosen.items())
            settings = over(self.settings, nested(chosen))
            method = self.model_copy(update={"sweep": {}, "settings": settings})
            yield f"{name} {label}", Variant(method, name, chosen)


@dataclass(frozen=True)
class Variant:
    """A column of a comparison. family: the swept method that it is of, and swept: its values there; else empty."""

    method: Method
    family: str = ""
    swept: Mapping[str, Any] = field(default_factory=dict)


class Edit(Settings):
    """One edit of a plan of the task edit."""

    picture: Path
    source: str
    target: str


class Plan(Settings):
    """What is compared. A wrong value raises SettingsError with a one-line message."""

    title: str = ""
    task: Literal["image", "3d", "edit"] = "image"
    prompts: str | list[str] | list[Edit] = Field(
        description="A set such as toybox:test:25, a file, or a list; of edits toybox-edits:N, or a list of picture, "
        "source and target."
    )
    limit: int | None = Field(
        default=None, ge=1, description="Only so many of the prompts, from the first on."
    )
    seeds: int | list[int] = Field(default=1, description="How many, counted from 0, or a list.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the task, of all methods."
    )
    preset: PresetName | None = Field(default=None, description="Named settings, of all methods.")
    methods: dict[str, Method] = Field(min_length=1, description="By name.")
    baseline: str | None = Field(
        default=None,
        description="The method that the others are compared with; the first, where none is named.",
    )
    metrics: list[str] = Field(
        default=list(DEFAULT_METRICS), min_length=1, description="As of `rewardsds score`."
    )
    grader: GraderSettings | None = Field(
        default=None,
        description="Of a grader that is a metric or picks, with a budget for each. null: as settings have it; of one "
        "that picks, those of its method.",
    )
    distractors: str | list[str] = Field(
        default_factory=list, description="More prompts among which r-precision looks for the right one."
    )
    views: int = Field(default=VIEWS, ge=1, le=360, description="Views by which an object is judged.")
    view_kind: ViewKind = "random"
    batch: int = Field(
        default=16, ge=1, le=4096, description="Pictures of a method that are made side by side."
    )
    sizes: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Named variants: other values of limit, seeds, settings and so on. The first is taken where none "
        "is asked for.",
    )
    size: str = Field(default="", description="The variant that this is.")

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, seeds: int | list[int]) -> int | list[int]:
        if isinstance(seeds, int) and not 1 <= seeds <= 10_000:
            raise ValueError("expected 1 to 10000 seeds, or a list")
        if isinstance(seeds, list) and (not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds)):
            raise ValueError("expected different whole numbers, none negative")
        return seeds

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        columns = self.columns()
        names = list(columns)
        if self.baseline is not None and self.baseline not in names:
            raise ValueError(
                f"baseline is {self.baseline!r}, which is no method: expected {', '.join(names)}"
            )
        if self.task == "edit" and GIVEN in names:
            raise ValueError(
                f"no method can be named {GIVEN!r}: the contact sheet shows under it what was edited"
            )
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError("a metric is named twice")
        for name, method in ((name, variant.method) for name, variant in columns.items()):
            other = method.best_of
            if isinstance(other, str) and (other not in names or other == name):
                raise ValueError(f"best_of of {name} is {other!r}: expected a number, or another method")
            if isinstance(other, str) and isinstance(columns[other].method.best_of, str):
                raise ValueError(
                    f"best_of of {name} is {other!r}, whose own best_of is a method: give a number"
                )
            if method.against is not None and (method.against not in names or method.against == name):
                raise ValueError(f"against of {name} is {method.against!r}: expected another method")
            if method.sampling_steps is not None and self.task != "image":
                raise ValueError(f"{name} samples from the prior, which makes pictures: task is {self.task}")
        return self

    def columns(self) -> dict[str, Variant]:
        """The methods by name, sweeps taken apart."""
        found: dict[str, Variant] = {}
        for name, method in self.methods.items():
            for own, variant in method.variants(name):
                if own in found:
                    raise ValueError(f"two methods are named {own!r}")
                found[own] = variant
        return found

    def rivals(self) -> dict[str, str | None]:
        """The method that each is compared with; None for the baseline, which is compared with nothing."""
        columns = self.columns()
        baseline = self.baseline or next(iter(columns))
        return {
            name: variant.method.against or (None if name == baseline else baseline)
            for name, variant in columns.items()
        }

    @property
    def seed_list(self) -> list[int]:
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)

    @property
    def metrics_grader(self) -> GraderSettings:
        """How a grader is asked that is a metric."""
        return self.grader or GraderSettings(**self.settings.get("grader", {}))

    def texts(self) -> list[str]:
        """The prompts of a plan that makes from texts. Raises SettingsError for files and sets that are not there."""
        if isinstance(self.prompts, str):
            found = list(dict.fromkeys(read_prompts(self.prompts)))
        else:
            found = [prompt for prompt in self.prompts if isinstance(prompt, str)]
        if not found:
            raise SettingsError("the plan has no prompts")
        if len(set(found)) < len(found):
            twice = next(prompt for index, prompt in enumerate(found) if prompt in found[:index])
            raise SettingsError(f"the plan has the prompt {twice!r} twice")
        return found[: self.limit]

    def settings_of(self, method: Method, **given: Any) -> DistillationSettings:
        """The settings of a run of a method. given: what the plan decides, such as prompt and seed."""
        kind = TASKS[self.task]
        values: dict[str, Any] = {"threads": 1, "previews_every": 0, "candidate_previews": 0}
        if self.task == "3d":
            values |= {"video_frames": 24, "video_size": 128}
        for name in (self.preset, method.preset):
            if name is not None:
                values = over(values, preset(name, kind))
        values = over(over(values, self.settings), method.settings)
        for name in PLANNED:
            if name in values:
                raise SettingsError(
                    f"settings have {name}, which a plan gives itself: by prompts, seeds and best_of"
                )
        for name in method.settings:
            if name not in kind.model_fields:
                known = [*setting_names(kind), *Method.model_fields]
                raise SettingsError(f"unknown setting {name}{did_you_mean(name, known)}")
        settings = kind(**values, **given)
        # counted: methods that say the same K as a share and as a number owe the same runs
        return settings.model_copy(update={"reward_steps": settings.resolved_reward_steps})


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"nerf.levels": 4} → {"nerf": {"levels": 4}}"""
    result: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        inner = result
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return result


def read_plan(path: Path, size: str | None = None) -> Plan:
    """The plan in a YAML file; paths in it are relative to it. Raises SettingsError, in one line.

    size: one of its variants, the first unless said otherwise.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except FileNotFoundError:
        raise SettingsError(f"no plan {path}") from None
    except OSError as error:
        raise SettingsError(f"cannot read the plan ({describe_os_error(error, path)})") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"cannot read the plan {path}: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(values, dict):
        raise SettingsError(
            f"{path} holds no plan: expected lines such as `methods:` and `prompts: toybox:test:25`"
        )
    with settings_of_file(path):
        return make_plan(values, size, path.parent)


def make_plan(values: Mapping[str, Any], size: str | None = None, folder: Path | None = None) -> Plan:
    """A plan from a mapping. folder: what relative paths of prompts and pictures are relative to."""
    given = dict(values)
    sizes = given.get("sizes") or {}
    if not isinstance(sizes, Mapping) or not all(isinstance(one, Mapping) for one in sizes.values()):
        raise SettingsError("sizes of a plan are names with values of their own, such as `full: {limit: 25}`")
    if size is not None and size not in sizes:
        known = f"expected {', '.join(sizes)}" if sizes else "it has none"
        raise SettingsError(f"the plan has no size {size!r}: {known}")
    chosen = size or next(iter(sizes), None)
    if chosen is not None:
        given = {**over(given, sizes[chosen]), "size": chosen}
    if "prompts" not in given:
        raise SettingsError("the plan has no prompts: give a set such as toybox:test:25, a file, or a list")
    for name in ("prompts", "distractors"):
        if name in given:
            given[name] = _located(given[name], folder)
    if given["prompts"] == []:
        raise SettingsError("the plan has no prompts: its list is empty")
    return Plan(**given)


def _located(prompts: Any, folder: Path | None) -> Any:
    if folder is None:
        return prompts
    if isinstance(prompts, str) and (folder / prompts).is_file():
        return str(folder / prompts)
    if isinstance(prompts, list):
        return [
            {**one, "picture": folder / str(one["picture"])}
            if isinstance(one, Mapping) and "picture" in one
            else one
            for one in prompts
        ]
    return prompts


class _UniqueKeys(yaml.SafeLoader):
    """A mapping that says the same name twice is a mistake, not a replacement."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def file_name(text: str) -> str:
    """A name of a method as a part of a path."""
    return re.sub(r"[^\w.+-]+", "-", text.lower()).strip("-.") or "method"
