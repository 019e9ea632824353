"""Compositions by hand, and rewards given as text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from rewardsds.prompts import OfViews
from rewardsds.rewards.base import Reward, RewardError, UnreachableError, noting_left_out, standardised
from rewardsds.rewards.compose import Minimum, WeightedSum, without_graders
from rewardsds.rewards.grader import GraderReward
from rewardsds.rewards.load import load_reward
from rewardsds.rewards.views import OverViews, score

IMAGES = torch.rand(3, 2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
PROMPTS = ["red", "blue"]


def red(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images[:, :, :, 0].mean(dim=(-3, -2, -1))


def blue(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return 1000 * images[:, :, :, 2].mean(dim=(-3, -2, -1))


def as_prompted(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Redness where the prompt says red, else blueness."""
    channel = [0 if prompt == "red" else 2 for prompt in prompts]
    return torch.stack([images[:, b, :, c].mean(dim=(-3, -2, -1)) for b, c in enumerate(channel)], dim=1)


def z(scores: Tensor) -> Tensor:
    return (scores - scores.mean(0)) / scores.std(0, correction=0)


def test_a_weighted_sum_does_not_depend_on_the_rewards_scales():
    composed = WeightedSum([red, blue], [2.0, -0.5])(IMAGES, PROMPTS)
    torch.testing.assert_close(composed, 2 * z(red(IMAGES, PROMPTS)) - 0.5 * z(blue(IMAGES, PROMPTS)))
    raw = WeightedSum([red, blue], [2.0, -0.5], standardise=False)(IMAGES, PROMPTS)
    torch.testing.assert_close(raw, 2 * red(IMAGES, PROMPTS) - 0.5 * blue(IMAGES, PROMPTS))


def test_a_reward_that_cannot_tell_has_no_say():
    def same(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.full(images.shape[:2], 0.7)

    torch.testing.assert_close(
        WeightedSum([red, same], [1.0, 100.0])(IMAGES, PROMPTS), z(red(IMAGES, PROMPTS))
    )


def test_the_minimum_is_the_weakest_side():
    composed = Minimum([red, blue])(IMAGES, PROMPTS)
    torch.testing.assert_close(composed, torch.minimum(z(red(IMAGES, PROMPTS)), z(blue(IMAGES, PROMPTS))))


@pytest.mark.parametrize("views", [None, [0], [1, 3]])
@pytest.mark.parametrize("how", ["mean", "min"])
def test_views_by_hand(how: str, views: list[int] | None):
    chosen = IMAGES if views is None else IMAGES[:, :, views]
    each = torch.stack([as_prompted(chosen[:, :, v : v + 1], PROMPTS) for v in range(chosen.shape[2])])
    expected = each.mean(0) if how == "mean" else each.amin(0)
    scores = OverViews(as_prompted, how, views)(IMAGES, PROMPTS)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize("reward", [as_prompted, OverViews(as_prompted, "together"), OverViews(as_prompted)])
def test_views_with_prompts_of_their_own_are_scored_with_them(reward: Reward):
    prompts = [["red", "blue", "blue", "red"], ["blue", "blue", "red", "red"]]
    channel = torch.tensor([[0 if text == "red" else 2 for text in own] for own in prompts])
    means = IMAGES.mean(dim=(-2, -1))  # N, B, V, 3
    each = means.gather(3, channel.expand(3, 2, 4)[..., None])[..., 0]
    torch.testing.assert_close(score(reward, IMAGES, prompts), each.mean(dim=2))
    weakest = OverViews(as_prompted, "min", [1, 2])
    torch.testing.assert_close(score(weakest, IMAGES, prompts), each[:, :, 1:3].amin(dim=2))
    with pytest.raises(ValueError, match="4 views need as many prompts, got 4, 3"):
        score(reward, IMAGES, [["red"] * 4, ["red"] * 3])


def test_wrong_compositions_are_refused():
    with pytest.raises(ValueError, match="2 rewards and 1 weights"):
        WeightedSum([red, blue], [1.0])
    with pytest.raises(ValueError, match="'mean' or 'min', got 'max'"):
        OverViews(red, "max")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"there are 4 views.*asked for \[4\]"):
        OverViews(red, views=[0, 4])(IMAGES, PROMPTS)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, which is not on the path."""
    (tmp_path / "own_rewards.py").write_text(
        "def green(images, prompts):\n    return images[:, :, :, 1].mean(dim=(-3, -2, -1))\n\nnumber = 3\n"
    )
    (tmp_path / "broken_rewards.py").write_text("raise RuntimeError('no luck')\n")
    (tmp_path / "hungry_rewards.py").write_text("import not_installed_at_all\n")
    (tmp_path / "ending_rewards.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "lazy_rewards.py").write_text(
        "def green(images, prompts):\n    import lazy_helper\n    return lazy_helper.green(images)\n"
    )
    (tmp_path / "lazy_helper.py").write_text(
        "def green(images):\n    return images[:, :, :, 1].mean(dim=(-3, -2, -1))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    return "own_rewards:green"


def test_a_function_by_its_name(module: str):
    green = IMAGES[:, :, :, 1].mean(dim=(-3, -2, -1))
    torch.testing.assert_close(load_reward(module)(IMAGES, PROMPTS), green)
    torch.testing.assert_close(load_reward(f"-1 * {module}")(IMAGES, PROMPTS), -z(green))
    torch.testing.assert_close(load_reward(f"{module} + 0.5 * {module}")(IMAGES, PROMPTS), 1.5 * z(green))
    torch.testing.assert_close(load_reward(f"min({module}, {module})")(IMAGES, PROMPTS), z(green))


def test_a_function_may_import_when_it_is_called(module: str):
    green = IMAGES[:, :, :, 1].mean(dim=(-3, -2, -1))
    torch.testing.assert_close(load_reward("lazy_rewards:green")(IMAGES, PROMPTS), green)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("own_rewards:purple", "has nothing of that name"),
        ("own_rewards:number", "a int, not a function"),
        ("no_such_module_here:green", "there is no module no_such_module_here"),
        ("broken_rewards:green", r"importing broken_rewards failed \(no luck\)"),
        ("ending_rewards:green", r"importing ending_rewards ends the program \(sys.exit\)"),
        ("hungry_rewards:green", "hungry_rewards needs not_installed_at_all"),
    ],
)
def test_a_function_that_cannot_be_loaded_says_why(module: str, name: str, reason: str):
    with pytest.raises(ValueError, match=f"the reward '{name}' cannot be loaded: .*{reason}"):
        load_reward(name)


def broken(images: Tensor, prompts: Sequence[str]) -> Tensor:
    raise OSError("the endpoint is gone")


@pytest.mark.parametrize("kind", [lambda r, s: WeightedSum(r, [2.0] * len(r), skip_failures=s),
                                  lambda r, s: Minimum(r, skip_failures=s)])  # fmt: skip
def test_a_reward_that_fails_is_left_out_where_that_is_allowed(kind: Any):
    images = torch.rand(4, 2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def red(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images[:, :, :, 0].mean(dim=(2, 3, 4))

    with pytest.raises(RewardError, match="the reward broken failed with OSError: the endpoint is gone"):
        kind([red, broken], False)(images, ["a", "b"])
    with pytest.warns(
        UserWarning, match="without the reward broken: .*failed with OSError: the endpoint is gone"
    ):
        found = kind([red, broken], True)(images, ["a", "b"])
    torch.testing.assert_close(found, kind([red], False)(images, ["a", "b"]))
    gone = pytest.warns(UserWarning, match="without the reward broken")
    with (
        gone,
        pytest.raises(RewardError, match=r"all of the rewards failed, the last: .*the endpoint is gone"),
    ):
        kind([broken, broken], True)(images, ["a", "b"])


class Moody:
    """Redness, but where the next of its moods is an error."""

    def __init__(self, *moods: Exception | None) -> None:
        self.moods, self.asked = list(moods), 0

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        self.asked += 1
        mood = self.moods.pop(0) if self.moods else None
        if mood is not None:
            raise mood
        return red(images, prompts)


AWAY, BAD = UnreachableError("nobody is there"), RewardError("nonsense")


@pytest.mark.parametrize("kind", [lambda r: WeightedSum(r, [2.0] * len(r), skip_failures=True),
                                  lambda r: Minimum(r, skip_failures=True)])  # fmt: skip
def test_a_reward_that_is_away_is_given_up_with_a_warning(kind: Any):
    moody = Moody(AWAY, BAD, AWAY, AWAY, None, AWAY, OSError("gone"), AWAY)
    composed = OverViews(kind([blue, moody]), "together")

    def left_out() -> str:
        with noting_left_out() as names:
            score(composed, IMAGES, PROMPTS)
        return ",".join(names)

    with pytest.warns(UserWarning, match="going on without the reward Moody") as told:
        noted = [left_out() for _ in range(12)]
    assert moody.asked == 8
    assert sum("Moody for good, 3 times in a row" in str(one.message) for one in told) == 1
    assert noted == ["Moody"] * 4 + [""] + ["Moody"] * 7
    torch.testing.assert_close(composed(IMAGES, PROMPTS), kind([blue])(IMAGES, PROMPTS))


def half_nan(images: Tensor, prompts: Sequence[str]) -> Tensor:
    scores = red(images, prompts)
    scores[0, 0] = torch.nan
    return scores


def column(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return red(images, prompts)[:, :1]


def words(images: Tensor, prompts: Sequence[str]) -> Any:
    return "good"


@pytest.mark.parametrize(
    "bad, told",
    [
        (half_nan, "the reward half_nan returned NaN or infinity for 1 of 6 previews"),
        (column, r"the reward column returned shape \(3, 1\).*= \(3, 2\)"),
        (words, "the reward words returned str"),
    ],
)
@pytest.mark.parametrize("kind", [lambda r, s: WeightedSum(r, [2.0] * len(r), skip_failures=s),
                                  lambda r, s: Minimum(r, skip_failures=s)])  # fmt: skip
def test_what_is_no_score_fails_by_its_name_or_is_left_out(kind: Any, bad: Any, told: str):
    with pytest.raises(RewardError, match=told):
        kind([blue, bad], False)(IMAGES, PROMPTS)
    with pytest.warns(UserWarning, match=told):
        found = kind([blue, bad], True)(IMAGES, PROMPTS)
    torch.testing.assert_close(found, kind([blue], False)(IMAGES, PROMPTS))
    with (
        pytest.warns(UserWarning, match=told),
        pytest.raises(RewardError, match=f"all of the rewards failed.*{told}"),
    ):
        kind([bad], True)(IMAGES, PROMPTS)


def test_full_memory_is_no_failure_of_a_reward():
    def large(images: Tensor, prompts: Sequence[str]) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        score(WeightedSum([red, large], [1.0, 1.0], skip_failures=True), IMAGES, PROMPTS)


@dataclass(frozen=True)
class Together:
    """As Reward3D: it needs four views. Redness of the first view where the prompt is red, else of the last."""

    needs_views_together: ClassVar[bool] = True

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        assert images.shape[2] == 4
        view = [0 if prompt == "red" else 3 for prompt in prompts]
        return torch.stack([images[:, b, v, 0].mean(dim=(-2, -1)) for b, v in enumerate(view)], dim=1)


def test_a_reward_that_needs_all_views_is_asked_with_the_items_own_prompt():
    texts = [OfViews(text, [f"{text}, front view", "red", "blue", f"{text}, back view"]) for text in PROMPTS]
    plain = Together()(IMAGES, PROMPTS)
    torch.testing.assert_close(score(Together(), IMAGES, texts), plain)
    torch.testing.assert_close(score(OverViews(Together(), "together"), IMAGES, texts), plain)
    each = torch.stack([as_prompted(IMAGES[:, :, v : v + 1], [own[v] for own in texts]) for v in range(4)])
    together = WeightedSum([as_prompted, Together()], [1.0, 0.5])
    torch.testing.assert_close(score(together, IMAGES, texts), z(each.mean(0)) + 0.5 * z(plain))
    with pytest.raises(RewardError, match=r"Together looks at an item's views together.*give one prompt"):
        score(Together(), IMAGES, [["red"] * 4, ["blue"] * 4])


def test_functions_may_change_their_pictures() -> None:
    def darkened(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return red(images.zero_(), prompts)

    pictures = IMAGES.clone()
    composed = WeightedSum([darkened, red], [1.0, 1.0], standardise=False)(pictures, PROMPTS)
    torch.testing.assert_close(composed, red(IMAGES, PROMPTS))
    assert torch.equal(pictures, IMAGES)


def leaving(images: Tensor, prompts: Sequence[str]) -> Tensor:
    raise SystemExit(0)


@pytest.mark.parametrize(
    "reward, told",
    [
        (lambda images, prompts: red(images, prompts).to_sparse(), "torch.sparse_coo: scores are plain real"),
        (lambda images, prompts: red(images, prompts).to("meta"), "that is meta"),
        (lambda images, prompts: red(images, prompts).to(torch.complex64), "that is torch.complex64"),
        (leaving, "leaving failed with SystemExit"),
    ],
)
def test_what_is_no_score_is_told(reward: Reward, told: str) -> None:
    with pytest.raises(RewardError, match=told):
        score(reward, IMAGES, PROMPTS)
    with pytest.warns(UserWarning, match="going on without"):
        kept = WeightedSum([red, reward], [1.0, 1.0], skip_failures=True)(IMAGES, PROMPTS)
    torch.testing.assert_close(kept, z(red(IMAGES, PROMPTS)))


def test_rounding_is_no_difference() -> None:
    scores = torch.tensor([0.5, 0.5, 0.5 + 2.4e-7])[:, None]
    assert torch.equal(standardised(scores), torch.zeros(3, 1))
    assert standardised(scores + torch.tensor([[0.0], [0.0], [1e-5]]))[2] > 1


def test_graders_can_be_left_out_of_what_they_are_part_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    grader = GraderReward("m", url="http://127.0.0.1:9/v1", retries=0)
    weakest = Minimum([grader, red], standardise=False)
    made = OverViews(WeightedSum([red, weakest], [1.0, 1.0], standardise=False))
    with pytest.raises(RewardError, match="cannot be reached"):
        made(IMAGES, PROMPTS)
    without = without_graders(made)(IMAGES, PROMPTS)
    torch.testing.assert_close(without, red(IMAGES, PROMPTS))  # which is never below zero
