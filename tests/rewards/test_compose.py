"""Compositions by hand, and rewards given as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewardsds.rewards.base import Reward, RewardError
from rewardsds.rewards.compose import Minimum, WeightedSum
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
    monkeypatch.chdir(tmp_path)
    return "own_rewards:green"


def test_a_function_by_its_name(module: str):
    green = IMAGES[:, :, :, 1].mean(dim=(-3, -2, -1))
    torch.testing.assert_close(load_reward(module)(IMAGES, PROMPTS), green)
    torch.testing.assert_close(load_reward(f"-1 * {module}")(IMAGES, PROMPTS), -z(green))
    torch.testing.assert_close(load_reward(f"{module} + 0.5 * {module}")(IMAGES, PROMPTS), 1.5 * z(green))
    torch.testing.assert_close(load_reward(f"min({module}, {module})")(IMAGES, PROMPTS), z(green))


@pytest.mark.parametrize(
    "name, reason",
    [
        ("own_rewards:purple", "has nothing of that name"),
        ("own_rewards:number", "a int, not a function"),
        ("no_such_module_here:green", "there is no module no_such_module_here"),
        ("broken_rewards:green", r"importing broken_rewards failed \(no luck\)"),
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

    with pytest.raises(OSError, match="gone"):
        kind([red, broken], False)(images, ["a", "b"])
    with pytest.warns(UserWarning, match="without the reward broken, which failed: the endpoint is gone"):
        found = kind([red, broken], True)(images, ["a", "b"])
    torch.testing.assert_close(found, kind([red], False)(images, ["a", "b"]))
    gone = pytest.warns(UserWarning, match="without the reward broken")
    with gone, pytest.raises(RewardError, match="all of the rewards failed"):
        kind([broken, broken], True)(images, ["a", "b"])
