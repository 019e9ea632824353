"""Metrics of pictures and objects under one roof: the rewards, the toybox's judges, R-precision, measures of 3D.

`metric_info` knows a metric by its name without a model; `load_metric` loads what it needs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from rewardsds.catalogue import find
from rewardsds.distillation.step import ask
from rewardsds.errors import SettingsError
from rewardsds.evaluation.consistency import Consistency, reprojection_error
from rewardsds.evaluation.janus import Janus, measure_janus
from rewardsds.rewards.base import Reward, is_unreachable
from rewardsds.rewards.clip import CLIPReward
from rewardsds.rewards.load import EXAMPLES, GRADER, TOYBOX_REWARDS, load_reward, reward_names
from rewardsds.runs.settings import resolved_device
from rewardsds.scenes.object3d import Object3D
from rewardsds.toybox.captions import parse
from rewardsds.toybox.judge import Judge, load_judge
from rewardsds.toybox.specification import SceneSpec
from rewardsds.toybox.view_judge import ViewJudge, load_view_judge

PICTURES_AT_ONCE = 64


@dataclass(frozen=True)
class MetricInfo:
    """name: as given, the key everywhere. title, unit, digits, scale: how tables show it, as scale × value.

    of: what it looks at. Values themselves are never scaled: a share is 0 to 1, a cosine −1 to 1.
    """

    name: str
    title: str
    of: Literal["pictures", "object"] = "pictures"
    higher_is_better: bool = True
    unit: Literal["", "%"] = ""
    digits: int = 3
    scale: float = 1.0


@dataclass(frozen=True)
class Subject:
    """What is scored. pictures: (V, 3, H, W) in [0, 1], the views of one thing. object: it itself, of 3D runs."""

    pictures: Tensor
    prompt: str
    object: Object3D | None = None

    @cached_property
    def consistency(self) -> Consistency:
        """Of neighbouring views of the object, rendered once for all metrics. Raises as `reprojection_error`."""
        assert self.object is not None
        return reprojection_error(self.object)


@dataclass(frozen=True)
class Answer:
    """value: None where it cannot be told. why: says why not. failed: because the metric itself failed. unreachable:
    failed, and because its model is not there or cannot be reached, so that it will hardly answer anything else."""

    value: float | None
    why: str = ""
    failed: bool = False
    unreachable: bool = False


class Metric(Protocol):
    """Answers of a metric, one for each subject."""

    @property
    def info(self) -> MetricInfo: ...

    def __call__(self, subjects: Sequence[Subject]) -> list[Answer]: ...


def failure(error: Exception) -> Answer:
    """The answer of a metric that raised an error."""
    return Answer(None, reason(error), failed=True, unreachable=is_unreachable(error))


def reason(error: Exception) -> str:
    """An error in one line; errors other than ValueError are told with their class."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


R_PRECISION = "r-precision"
_KNOWN = {
    info.name: info
    for info in (
        MetricInfo("clip", "CLIPScore", digits=2, scale=100),
        MetricInfo("aesthetic", "Aesthetic", digits=2),
        MetricInfo("image-reward", "ImageReward"),
        MetricInfo("judge", "Judge finds", unit="%", digits=1, scale=100),
        MetricInfo("judge-probability", "Judge's probability"),
        MetricInfo("judge-all-right", "Judge finds all", unit="%", digits=1, scale=100),
        MetricInfo(R_PRECISION, "CLIP R-Precision", unit="%", digits=1, scale=100),
        MetricInfo("reprojection-error", "Reprojection error", "object", higher_is_better=False, digits=4),
        MetricInfo(
            "relative-reprojection-error",
            "Reprojection error over contrast",
            "object",
            higher_is_better=False,
            digits=4,
        ),
        MetricInfo("back-as-front", "Back as front", "object", higher_is_better=False),
        # 1 and up, as an object without a front has no value: the fewer the nearer to one
        MetricInfo("fronts", "Fronts (whole: 1)", "object", higher_is_better=False, digits=2),
    )
}
NAMES = (*_KNOWN, f"{R_PRECISION}:CLIP")
"""Metrics by name. Any single reward that `load_reward` knows is one too."""


def metric_info(name: str) -> MetricInfo:
    """What a metric is, without loading it. Raises SettingsError where the name cannot be one's."""
    if not name.strip():
        raise SettingsError(f"a metric has no name: expected {', '.join(NAMES)}, or a reward")
    if name in _KNOWN:
        return _KNOWN[name]
    kind, _, source = name.partition(":")
    if kind == R_PRECISION:
        if not source:
            raise SettingsError(f"{name} names no CLIP: expected for example {R_PRECISION}:clip-l")
        return replace(_KNOWN[kind], name=name, title=f"CLIP R-Precision ({_short(source)})")
    if reward_names(name) != (name.strip(),):
        raise SettingsError(
            f"the metric {name} is made of several rewards, which are comparable only between candidates of one step: "
            f"give its parts, {', '.join(reward_names(name))}"
        )
    if name.startswith(GRADER):
        if name.strip() == GRADER:
            raise SettingsError(f"the metric {name} names no model: expected for example {GRADER}gpt-4o-mini")
        return MetricInfo(name, f"Grade by {name.removeprefix(GRADER)}", digits=2)
    if not _may_be_a_reward(name):
        raise SettingsError(
            f"no metric {name!r}: expected {', '.join(NAMES)}, or a reward: a folder or file, a hub id, "
            f"package.module:function or {GRADER}MODEL"
        )
    return MetricInfo(name, _short(name))


def check_reward(text: str) -> None:
    """Raises SettingsError where a text names no reward, as far as that is told without loading it."""
    for name in reward_names(text):
        if not _may_be_a_reward(name) or name == GRADER:
            raise SettingsError(f"no reward {name!r}: expected {EXAMPLES}")


def _may_be_a_reward(name: str) -> bool:
    """A single word is the name of one, or a file."""
    is_word = re.fullmatch(r"[\w-]+", name) is not None
    return not is_word or name in TOYBOX_REWARDS or find(name) is not None or Path(name).exists()


def load_metric(
    name: str,
    device: str = "auto",
    *,
    distractors: Sequence[str] = (),
    grader: Mapping[str, Any] | None = None,
) -> Metric:
    """A metric with its model on a device (auto, cpu, cuda, cuda:N).

    distractors: prompts that R-precision ranks beside those of the subjects. grader: options of `GraderReward`.

    Raises ValueError, in one line, where the model is not there.
    """
    info = metric_info(name)
    device = resolved_device(device)
    if name in _JUDGED:
        return JudgeMetric(info, load_judge(device=device), _JUDGED[name])
    if name in _REPROJECTED:
        return ObjectMetric(info, partial(_reprojection, _REPROJECTED[name]))
    if name in _SIDED:
        return ObjectMetric(info, _Sides(load_view_judge(device=device), _SIDED[name]))
    if info.name.partition(":")[0] == R_PRECISION:
        source = name.partition(":")[2] or "clip"
        clip = load_reward(source, device, torch.float32, chunk="auto")
        if not isinstance(clip, CLIPReward):
            raise ValueError(f"{name} needs a CLIP, and {source} is a {type(clip).__name__}")
        return RPrecision(info, clip, distractors)
    reward = load_reward(name, device, torch.float32, chunk="auto", grader=grader)
    return RewardMetric(_shown_as(info, reward), reward, device)


def is_optimised(name: str, rewards: Sequence[str]) -> bool:
    """Whether a metric was one of a run's rewards, or ranks by the model of one, so that it can no longer judge it."""
    if not rewards:
        return False
    kind, _, source = name.partition(":")
    own = (source or "clip") if kind == R_PRECISION else name
    return _canonical(own) in {_canonical(reward) for reward in rewards}


def _canonical(reward: str) -> str:
    """One text for one reward: folders in full, models of the hub by their name in the catalogue."""
    text = reward.strip()
    model = None if text in TOYBOX_REWARDS else find(text)
    path = Path(text).expanduser()
    if model is not None:
        return model.name
    return str(path.resolve()) if text not in TOYBOX_REWARDS and path.exists() else text


def _short(source: str) -> str:
    """A reward's name for tables: the catalogue's, that of a function, or the last part of a path or id."""
    model = find(source)
    return model.name if model is not None else Path(source).name or source


def _shown_as(info: MetricInfo, reward: Reward) -> MetricInfo:
    """Cosines are shown times 100, as the field has them."""
    if not isinstance(reward, CLIPReward) or reward.scale != 1 or info.name in _KNOWN:
        return info
    title = info.title if reward.fit == "pad" else f"CLIPScore ({info.title})"  # HPS is a CLIP that pads
    return replace(info, title=title, digits=2, scale=100)


@contextmanager
def full_precision() -> Iterator[None]:
    """What measures says the same on every device: convolutions of a GPU in float32, not TF32, inside the block."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


# --- rewards ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class RewardMetric:
    """A reward, asked once about all views of a subject: it says itself how they become one score.

    Where it fails on several subjects together, it is asked about each alone; where its model cannot be reached twice
    in a row, the rest are not asked about.
    """

    info: MetricInfo
    reward: Reward
    device: str = "cpu"

    @torch.no_grad()
    def __call__(self, subjects: Sequence[Subject]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        for batch in batches(subjects):
            before = list(answers.values())
            answers |= zip(batch, self._of_one_shape([subjects[index] for index in batch], before))
        return [answers[index] for index in range(len(subjects))]

    def _of_one_shape(self, subjects: Sequence[Subject], before: Sequence[Answer]) -> list[Answer]:
        """before: the answers so far."""
        if _is_lost(before):
            return [before[-1]] * len(subjects)
        pictures = torch.stack([one.pictures for one in subjects]).to(self.device)
        try:
            scores = ask(self.reward, pictures[None], [one.prompt for one in subjects])[0]
            return [Answer(float(score)) for score in scores]
        except ValueError as error:
            if len(subjects) == 1:
                return [failure(error)]
        found: list[Answer] = []
        for one in subjects:
            found += self._of_one_shape([one], [*before, *found])
        return found


def _is_lost(answers: Sequence[Answer]) -> bool:
    """Whether a model could not be reached twice in a row."""
    return len(answers) > 1 and all(answer.unreachable for answer in answers[-2:])


def batches(subjects: Sequence[Subject], most: int = PICTURES_AT_ONCE) -> Iterator[list[int]]:
    """Indices of subjects whose pictures have one shape, together at most `most` pictures, at least one subject."""
    by_shape: dict[torch.Size, list[int]] = {}
    for index, subject in enumerate(subjects):
        by_shape.setdefault(subject.pictures.shape, []).append(index)
    for shape, same in by_shape.items():
        length = max(1, most // shape[0])
        for start in range(0, len(same), length):
            yield same[start : start + length]


@dataclass(frozen=True, eq=False)
class RPrecision:
    """CLIP R-Precision (Park et al. 2021, NeurIPS datasets; DreamFusion, arXiv 2209.14988, section 4).

    The share of a subject's pictures for which CLIP ranks its prompt before all other prompts of the subjects and the
    distractors. A tie is not first. Texts that differ only in case and spaces are one prompt.
    """

    info: MetricInfo
    clip: CLIPReward
    distractors: Sequence[str] = ()

    @torch.no_grad()
    def __call__(self, subjects: Sequence[Subject]) -> list[Answer]:
        candidates: dict[str, str] = {}
        for text in (*(subject.prompt for subject in subjects), *self.distractors):
            candidates.setdefault(_plain(text), text)
        if len(candidates) < 2:
            return [Answer(None, "all have the same prompt: nothing to rank it against")] * len(subjects)
        rows = {key: row for row, key in enumerate(candidates)}
        texts = torch.stack([self.clip.text_features(text) for text in candidates.values()])  # P C
        answers: dict[int, Answer] = {}
        for batch in batches(subjects):
            pictures = torch.stack([subjects[index].pictures for index in batch])
            features = self.clip.image_features(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
            for index, views in zip(batch, features):
                share = ranked_first(views @ texts.T, rows[_plain(subjects[index].prompt)])
                answers[index] = Answer(share)
        return [answers[index] for index in range(len(subjects))]


def ranked_first(similarities: Tensor, own: int) -> float:
    """The share of rows of (V, P) in which column `own` is larger than all others."""
    others = similarities.clone()
    others[:, own] = -torch.inf
    return float((similarities[:, own] > others.amax(dim=1)).float().mean())


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


# --- judges -------------------------------------------------------------------------------------------------


Verdict = Callable[[Judge, Tensor, list[SceneSpec]], Tensor]
"""(judge, pictures (V, 3, H, W), their scenes) → (V,)"""

_JUDGED: dict[str, Verdict] = {
    "judge": lambda judge, pictures, specs: judge.finds(pictures, specs),
    "judge-probability": lambda judge, pictures, specs: judge.score(pictures, specs),
    "judge-all-right": lambda judge, pictures, specs: judge.all_right(pictures, specs),
}


@dataclass(frozen=True, eq=False)
class JudgeMetric:
    """The toybox's judge on every view, and the mean over views. It knows only what the toybox's grammar knows."""

    info: MetricInfo
    judge: Judge
    verdict: Verdict

    def __call__(self, subjects: Sequence[Subject]) -> list[Answer]:
        return [self._answer(subject) for subject in subjects]

    def _answer(self, subject: Subject) -> Answer:
        spec, why = asked_for(subject.prompt)
        if spec is None:
            return Answer(None, why)
        found = self.verdict(self.judge, subject.pictures, [spec] * len(subject.pictures))
        return Answer(float(found.mean()))


def asked_for(prompt: str) -> tuple[SceneSpec | None, str]:
    """The scene of a prompt that the toybox's grammar knows wholly; else None and why."""
    parsed = parse(prompt)
    if parsed.notes:
        return None, "; ".join(parsed.notes)
    return parsed.spec, "" if parsed.spec else "the prompt names no toy"


# --- objects ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ObjectMetric:
    """A measure of the object itself, not of the pictures of it."""

    info: MetricInfo
    measure: Callable[[Subject], Answer]
    """Of a subject that is an object."""

    def __call__(self, subjects: Sequence[Subject]) -> list[Answer]:
        return [
            Answer(None, "only of 3D runs") if one.object is None else self.measure(one) for one in subjects
        ]


def _reprojection(part: Callable[[Consistency], float], one: Subject) -> Answer:
    try:
        value = part(one.consistency)
    except ValueError as error:
        return Answer(None, str(error))
    return Answer(value) if math.isfinite(value) else Answer(None, "the object has one colour everywhere")


_REPROJECTED: dict[str, Callable[[Consistency], float]] = {
    "reprojection-error": lambda found: found.error,
    "relative-reprojection-error": lambda found: found.relative_error,
}


_SIDED: dict[str, Callable[[Janus], float]] = {
    "back-as-front": lambda found: found.back_as_front,
    "fronts": lambda found: float(found.fronts),
}


@dataclass(frozen=True, eq=False)
class _Sides:
    """A measure by the judge of views, of toys whose sides it tells apart."""

    judge: ViewJudge
    part: Callable[[Janus], float]

    def __call__(self, one: Subject) -> Answer:
        assert one.object is not None
        spec, why = asked_for(one.prompt)
        if spec is None:
            return Answer(None, why)
        unknown = sorted({group.kind for group in spec.groups} - set(self.judge.kinds))
        if unknown:
            return Answer(None, f"the judge of views tells no front from back of: {', '.join(unknown)}")
        try:
            return Answer(self.part(measure_janus(one.object, self.judge)))
        except ValueError as error:
            return Answer(None, str(error))
