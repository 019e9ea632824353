"""Every metric on what it is known for: values by hand, models' own answers, and what cannot be told."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_consistency import Ball
from test_janus import TWO_FACED, WHOLE, around
from torch import Tensor

from rewardsds.errors import SettingsError
from rewardsds.evaluation.metrics import (
    Answer,
    MetricInfo,
    RPrecision,
    Subject,
    check_reward,
    is_optimised,
    load_metric,
    metric_info,
    ranked_first,
)
from rewardsds.rewards.load import load_reward
from rewardsds.toybox.captions import parse
from rewardsds.toybox.show import look
from rewardsds.toybox.world import build

INFO = MetricInfo("r-precision", "CLIP R-Precision")


def plain(red: float, views: int = 1, size: tuple[int, int] = (8, 8), prompt: str = "a red apple") -> Subject:
    pictures = torch.zeros(views, 3, *size)
    pictures[:, 0] = red
    return Subject(pictures, prompt)


def values(answers: Sequence[Answer]) -> list[float | None]:
    return [answer.value for answer in answers]


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, title, of, higher, unit, scale",
    [
        ("clip", "CLIPScore", "pictures", True, "", 100),
        ("judge", "Judge finds", "pictures", True, "%", 100),
        ("r-precision", "CLIP R-Precision", "pictures", True, "%", 100),
        (
            "r-precision:openai/clip-vit-large-patch14",
            "CLIP R-Precision (clip-l)",
            "pictures",
            True,
            "%",
            100,
        ),
        ("reprojection-error", "Reprojection error", "object", False, "", 1),
        ("models/mine", "mine", "pictures", True, "", 1),
        ("own.rewards:red", "own.rewards:red", "pictures", True, "", 1),
        ("grader:gpt-x", "Grade by gpt-x", "pictures", True, "", 1),
    ],
)
def test_a_metric_is_known_without_its_model(
    name: str, title: str, of: str, higher: bool, unit: str, scale: float
) -> None:
    info = metric_info(name)
    assert (info.name, info.title, info.of, info.unit) == (name, title, of, unit)
    assert (info.higher_is_better, info.scale) == (higher, scale)


@pytest.mark.parametrize(
    "name, told",
    [
        ("", "expected clip, aesthetic"),
        ("  ", "expected clip, aesthetic"),
        ("r-precision:", "names no CLIP"),
        ("grader:", "names no model after 'grader:', as in grader:gpt"),
        ("clip + 0.5 * aesthetic", "give its parts, clip, aesthetic"),
        ("min(clip, aesthetic)", "give its parts, clip, aesthetic"),
        ("2 * clip", "give its parts, clip"),
    ],
)
def test_names_that_are_no_metrics(name: str, told: str) -> None:
    """A sum is standardised over candidates: of a single picture it would always be 0."""
    with pytest.raises(SettingsError, match=told.replace("(", "\\(")):
        metric_info(name)


def test_a_reward_of_a_plan_that_names_no_model_is_refused() -> None:
    check_reward("clip + 0.5 * grader:m")
    with pytest.raises(SettingsError, match="names no model after 'grader:'"):
        check_reward("clip + 0.5 * grader:")


@pytest.mark.parametrize("name", ["juge", "r-precision:nowhere", "gone/model.pt", "no.module:reward"])
def test_a_model_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_metric(name, "cpu")
    assert "\n" not in str(caught.value)
    if name == "juge":
        assert "judge" in str(caught.value)


def test_r_precision_needs_a_clip() -> None:
    with pytest.raises(ValueError, match="needs a CLIP, and image-reward is a ImageReward"):
        load_metric("r-precision:image-reward", "cpu")


@pytest.mark.parametrize(
    "name, source", [("clip", "clip"), ("r-precision", "clip"), ("r-precision:clip-l", "clip-l")]
)
def test_what_measures_is_loaded_in_float32(monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> None:
    """On CUDA, where rewards that steer are in float16: a score is the same wherever it was computed."""
    from rewardsds.evaluation import metrics

    asked: list[Any] = []

    def load(source: str, device: str, dtype: Any = None, **options: Any) -> Any:
        asked.append((source, dtype))
        return load_reward("clip", "cpu")

    monkeypatch.setattr(metrics, "load_reward", load)
    load_metric(name, "cpu")
    assert asked == [(source, torch.float32)]


# --- rewards ------------------------------------------------------------------------------------------------


def test_views_and_sizes_may_differ_and_order_is_kept(redness: str) -> None:
    metric = load_metric(redness, "cpu")
    subjects = [plain(0.2), plain(0.5, views=3), plain(0.7, size=(8, 12)), plain(0.1), plain(0.9, views=3)]
    assert values(metric(subjects)) == pytest.approx([0.2, 0.5, 0.7, 0.1, 0.9])


def test_at_most_64_pictures_are_asked_about_at_a_time(redness: str) -> None:
    metric = load_metric(redness, "cpu")
    reds = torch.linspace(0, 1, 150).tolist()
    assert values(metric([plain(red) for red in reds])) == pytest.approx(reds, abs=1e-6)
    assert [shape[1] for shape in sys.modules["hand"].calls] == [64, 64, 22]
    sys.modules["hand"].calls.clear()
    metric([plain(0.5, views=30)] * 5 + [plain(0.5, views=100)])
    assert [shape[1:3] for shape in sys.modules["hand"].calls] == [(2, 30), (2, 30), (1, 30), (1, 100)]


def test_where_a_reward_fails_the_others_keep_their_scores(redness: str) -> None:
    metric = load_metric("hand:squares_only", "cpu")
    found = metric([plain(0.2), plain(0.7, size=(8, 12)), plain(0.4)])
    assert values(found) == pytest.approx([0.2, None, 0.4])
    assert [answer.failed for answer in found] == [False, True, False]
    assert "only squares" in found[1].why


def test_a_picture_that_a_reward_fails_on_leaves_those_beside_it(redness: str) -> None:
    found = load_metric("hand:not_white", "cpu")([plain(0.2), plain(1.0), plain(0.4), plain(0.6)])
    assert values(found) == pytest.approx([0.2, None, 0.4, 0.6])
    assert [answer.failed for answer in found] == [False, True, False, False]
    assert "too bright" in found[1].why
    assert not found[1].unreachable


def test_a_model_that_is_away_is_not_asked_about_every_picture(redness: str) -> None:
    found = load_metric("hand:gone", "cpu")([plain(0.2)] * 20)
    assert len(found) == 20
    assert all(answer.failed and answer.unreachable and "nobody is there" in answer.why for answer in found)
    assert [shape[1] for shape in sys.modules["hand"].calls] == [20, 1, 1]


def test_a_model_that_is_away_is_not_asked_about_the_next_batches(redness: str) -> None:
    found = load_metric("hand:gone", "cpu")([plain(0.2, views=10)] * 20)
    assert all(answer.unreachable for answer in found)
    assert len(sys.modules["hand"].calls) == 3


def test_a_clip_gives_its_cosines_and_shows_them_times_100(tiny_clip_folder: Path) -> None:
    metric = load_metric(str(tiny_clip_folder), "cpu")
    assert (metric.info.title, metric.info.scale, metric.info.digits) == ("CLIPScore (clip)", 100, 2)
    g = torch.Generator().manual_seed(0)
    subjects = [Subject(torch.rand(3, 3, 16, 16, generator=g), text) for text in ("a red apple", "a car")]
    reward = load_reward(tiny_clip_folder, "cpu")
    own = [float(reward(one.pictures[None, None], [one.prompt])) for one in subjects]
    assert values(metric(subjects)) == pytest.approx(own, abs=1e-6)


def test_what_was_optimised_is_known_by_any_of_its_names(
    tiny_clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_clip_folder.parent)
    assert is_optimised("clip", ["clip", "aesthetic"])
    assert not is_optimised("image-reward", ["clip", "aesthetic"])
    assert not is_optimised("clip", [])
    assert is_optimised(str(tiny_clip_folder), [f"./{tiny_clip_folder.name}/"])
    assert is_optimised("clip-l", ["openai/clip-vit-large-patch14"])
    assert is_optimised("r-precision", ["clip"])  # it ranks by that CLIP
    assert is_optimised("r-precision:clip-l", ["clip-l"])
    assert not is_optimised("r-precision:clip-l", ["clip"])
    assert not is_optimised("judge", ["clip"])


# --- R-precision --------------------------------------------------------------------------------------------


class Axes:
    """A CLIP for pictures and words of known features: a picture's features are its first pixel's colour."""

    words: dict[str, list[float]] = {  # noqa: RUF012 (never changed)
        "red": [1, 0, 0], "green": [0, 1, 0], "blue": [0, 0, 1], "crimson": [1, 0, 0], "Red ": [1, 0, 0],
    }  # fmt: skip

    def __init__(self) -> None:
        self.pictures: list[int] = []
        self.texts: list[str] = []

    def image_features(self, images: Tensor) -> Tensor:
        self.pictures.append(len(images))
        return images[:, :, 0, 0]

    def text_features(self, prompt: str) -> Tensor:
        self.texts.append(prompt)
        return torch.tensor(self.words[prompt], dtype=torch.float32)


def coloured(prompt: str, *views: tuple[float, float, float]) -> Subject:
    return Subject(torch.tensor(views)[:, :, None, None].expand(-1, 3, 4, 4), prompt)


def precision(subjects: list[Subject], distractors: Sequence[str] = ()) -> tuple[list[float | None], Axes]:
    clip: Any = Axes()
    return values(RPrecision(INFO, clip, distractors)(subjects)), clip


def test_the_share_of_views_that_rank_their_own_prompt_first() -> None:
    subjects = [
        coloured("red", (0.9, 0.1, 0.0), (0.2, 0.8, 0.0)),  # first in one view of two
        coloured("green", (0.1, 0.6, 0.3), (0.0, 0.9, 0.8)),  # in both
        coloured("blue", (0.9, 0.0, 0.1)),
    ]
    found, clip = precision(subjects)
    assert found == [0.5, 1.0, 0.0]
    assert sorted(clip.texts) == ["blue", "green", "red"]  # each prompt once
    assert sum(clip.pictures) == 5  # each picture once


def test_a_tie_is_not_first() -> None:
    found, _ = precision([coloured("red", (0.5, 0.5, 0.0)), coloured("green", (0.0, 1.0, 0.0))])
    assert found == [0.0, 1.0]
    found, _ = precision([coloured("red", (0.9, 0.0, 0.1))], ["crimson"])  # the same features
    assert found == [0.0]
    assert ranked_first(torch.tensor([[0.3, 0.2], [0.2, 0.2], [0.1, 0.2]]), 0) == pytest.approx(1 / 3)


def test_distractors_are_ranked_too() -> None:
    subject = coloured("green", (0.1, 0.4, 0.5))
    assert precision([subject], ["red"])[0] == [1.0]
    assert precision([subject], ["red", "blue"])[0] == [0.0]


def test_one_prompt_alone_ranks_nothing() -> None:
    clip: Any = Axes()
    subjects = [
        coloured("red", (1.0, 0.0, 0.0)),
        coloured("Red ", (1.0, 0.0, 0.0)),
    ]  # case and spaces say nothing
    found = RPrecision(INFO, clip)(subjects)
    assert values(found) == [None, None]
    assert "same prompt" in found[0].why
    assert clip.pictures == []


def test_a_real_clip_ranks_as_its_cosines_do(tiny_clip_folder: Path) -> None:
    texts = ["a red apple", "a green car", "the black backpack", "apple"]
    pictures = torch.rand(6, 2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    subjects = [Subject(pictures[i], texts[i % 3]) for i in range(6)]
    reward = load_reward(tiny_clip_folder, "cpu")
    expected = []
    for i in range(6):
        cosines = torch.stack(
            [reward(pictures[i, v][None, None, None], [t])[0, 0] for v in range(2) for t in texts]
        )
        expected.append(float((cosines.reshape(2, 4).argmax(1) == i % 3).float().mean()))
    metric = load_metric(f"r-precision:{tiny_clip_folder}", "cpu", distractors=["apple"])
    assert values(metric(subjects)) == expected
    assert {0.0, 1.0} & set(expected)  # it says something


# --- judges -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def true_views() -> Tensor:
    """Two true views of a red apple and a blue car."""
    spec = parse("a red apple and a blue car").spec
    assert spec is not None
    pictures = look([build(spec, np.random.default_rng(0))], (0.0, 20.0), 64).colour
    return torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2).float() / 255


def test_the_judge_finds_what_is_there_and_not_what_is_not(true_views: Tensor) -> None:
    asked = ["a red apple and a blue car", "a red apple and a green dog", "a pink sheep"]
    subjects = [Subject(true_views, text) for text in asked]
    assert values(load_metric("judge", "cpu")(subjects)) == [1.0, 0.5, 0.0]
    assert values(load_metric("judge-all-right", "cpu")(subjects)) == [1.0, 0.0, 0.0]
    sure = values(load_metric("judge-probability", "cpu")(subjects))
    assert [round(value or 0, 1) for value in sure] == [1.0, 0.5, 0.0]


def test_views_are_judged_one_by_one(true_views: Tensor) -> None:
    half = torch.stack([true_views[0], torch.ones_like(true_views[0])])  # the second shows nothing
    subject = Subject(half, "a red apple and a blue car")
    assert values(load_metric("judge", "cpu")([subject])) == [0.5]


@pytest.mark.parametrize(
    "prompt, why",
    [
        ("a red dragon and a blue car", "does not know: dragon"),
        ("happiness", "does not know: happiness"),
        ("the snow", "names no toy"),
        ("two red cars, a dog and a cat", "does not know: cat"),
        ("two red cars and two blue dogs", "left out: two blue dogs"),
    ],
)
def test_the_judge_says_nothing_of_what_it_does_not_wholly_know(prompt: str, why: str) -> None:
    [answer] = load_metric("judge", "cpu")([plain(0.5, size=(64, 64), prompt=prompt)])
    assert answer.value is None
    assert why in answer.why
    assert not answer.failed


# --- objects ------------------------------------------------------------------------------------------------


def test_measures_of_objects_say_nothing_of_pictures() -> None:
    for name in ("reprojection-error", "back-as-front", "fronts"):
        [answer] = load_metric(name, "cpu")([plain(0.5)])
        assert answer == Answer(None, "only of 3D runs")


def test_reprojection_and_sides_of_an_object() -> None:
    pictures = torch.zeros(1, 3, 8, 8)
    whole, empty = Subject(pictures, "a red dog", Ball()), Subject(pictures, "a red dog", Ball(alpha=0.5))
    found = load_metric("reprojection-error", "cpu")([whole, empty])
    assert found[0].value is not None
    assert found[0].value < 0.01
    assert (found[1].value, found[1].failed) == (None, False)
    assert "empty or transparent" in found[1].why
    [unsided] = load_metric("fronts", "cpu")([Subject(pictures, "a red cube", Ball())])
    assert unsided.value is None
    assert "no front from back of: cube" in unsided.why


class SideJudge:
    """Says which sides it sees, whatever it is shown."""

    kinds = ("dog",)

    def __init__(self, sides: list[int]):
        self.sides = around(sides)

    def probabilities(self, images: Tensor) -> Tensor:
        assert images.shape == (24, 3, 64, 64)
        assert 0 <= images.min() <= images.max() <= 1
        return self.sides


@pytest.mark.parametrize(
    "sides, fronts, back",
    [
        (WHOLE, 1.0, 0.1 / 3),
        (TWO_FACED, 2.0, 0.9),
        ([0] * 24, 4.0, 0.9),
        ([2] * 24, None, None),  # a lump, which would win over a whole toy by having fewer than one
    ],
)
def test_fronts_are_counted_and_the_fewest_are_the_best(
    sides: list[int], fronts: float | None, back: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewardsds.evaluation.metrics.load_view_judge", lambda **options: SideJudge(sides))
    subject = Subject(torch.zeros(1, 3, 8, 8), "a red dog", Ball(amplitude=0.2))
    for name, expected in (("fronts", fronts), ("back-as-front", back)):
        assert metric_info(name).higher_is_better is False
        [answer] = load_metric(name, "cpu")([subject])
        assert not answer.failed
        if expected is None:
            assert answer.value is None
            assert "shows no front from anywhere" in answer.why
        else:
            assert answer.value == pytest.approx(expected)


@pytest.mark.parametrize("name", ["fronts", "back-as-front"])
def test_an_empty_object_has_no_sides(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardsds.evaluation.metrics.load_view_judge", lambda **options: SideJudge(WHOLE))
    empty = Subject(torch.zeros(1, 3, 8, 8), "a red dog", Ball(alpha=0.3, amplitude=0.2))
    broken = Subject(torch.zeros(1, 3, 8, 8), "a red dog", Ball(amplitude=float("nan")))
    first, second = load_metric(name, "cpu")([empty, broken])
    assert first == Answer(None, "the object is empty or transparent: it has no sides")
    assert second == Answer(None, "the object is not finite")
