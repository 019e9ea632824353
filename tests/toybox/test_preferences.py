"""What the rewards of quality are trained on: damages, ladders, and which picture is preferred."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rewardsds.toybox.specification import COLOURS, KINDS, Group, SceneSpec
from rewardsds.toybox.train.aesthetic import RATING, ladder
from rewardsds.toybox.train.common import Draws
from rewardsds.toybox.train.damage import DAMAGES, damage, draw_damage
from rewardsds.toybox.train.image_reward import MARGIN, alignment, ranking_loss


def pictures(count: int = 6) -> torch.Tensor:
    """Smooth colours with an edge."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((count, 3, 1, 1), generator=generator).expand(-1, -1, 64, 64).clone()
    images[..., 20:44, 20:44] = torch.rand((count, 3, 1, 1), generator=generator)
    return 0.2 + 0.6 * images


@pytest.mark.parametrize("kind", range(len(DAMAGES)))
def test_damage_grows_with_severity_and_stays_a_picture(kind: int) -> None:
    images = pictures()
    kinds = torch.full((6,), kind)
    changes = []
    for severity in (0.0, 0.3, 0.6, 1.0):
        damaged = damage(images, torch.full((6,), severity), kinds, Draws.of(0, 0))
        assert damaged.shape == images.shape
        assert damaged.min() >= 0
        assert damaged.max() <= 1
        changes.append((damaged - images).square().mean(dim=(1, 2, 3)).sqrt())
    assert changes[0].max() < 1e-6
    mean = torch.stack(changes).mean(dim=1)
    assert (mean.diff() > 0.005).all(), mean


def test_each_picture_gets_its_own_damage() -> None:
    images = pictures()
    mixed = damage(images, torch.full((6,), 0.5), torch.tensor([0, 1, 2, 3, 0, 1]), Draws.of(0, 0))
    blurred = damage(images, torch.full((6,), 0.5), torch.zeros(6), Draws.of(0, 0))
    assert torch.equal(mixed[[0, 4]], blurred[[0, 4]])
    assert not torch.equal(mixed[1], blurred[1])


def test_blur_softens_edges_and_oversaturation_parts_colours() -> None:
    images, full = pictures(), torch.ones(6)
    edge = (images[..., 1:] - images[..., :-1]).abs().amax(dim=(1, 2, 3))
    soft = damage(images, full, torch.zeros(6), Draws.of(0, 0))
    assert ((soft[..., 1:] - soft[..., :-1]).abs().amax(dim=(1, 2, 3)) < 0.3 * edge).all()
    vivid = damage(images, full, torch.full((6,), 2), Draws.of(0, 0))
    assert (vivid.amax(1) - vivid.amin(1)).mean() > 1.5 * (images.amax(1) - images.amin(1)).mean()


def test_a_ladder_goes_down() -> None:
    versions, ratings = ladder(pictures(), Draws.of(0, 3))
    assert torch.equal(versions[0], pictures())
    assert (ratings[0] == RATING).all()
    assert (ratings.diff(dim=0) < 0).all()
    assert (ratings >= 0).all()


def test_severities_are_spread() -> None:
    severity, kinds = draw_damage(4000, Draws.of(0, 0))
    assert 0.15 <= severity.min() < 0.16
    assert 0.99 < severity.max() <= 1
    assert kinds.bincount().min() > 800


def shows(*toys: tuple[str, str]) -> torch.Tensor:
    present = torch.zeros(1, len(KINDS), len(COLOURS))
    for kind, colour in toys:
        present[0, KINDS.index(kind), COLOURS.index(colour)] = 1
    return present


@pytest.mark.parametrize(
    "toys, share",
    [
        ([("car", "red"), ("dog", "blue")], 1.0),
        ([("car", "blue"), ("dog", "red")], 0.5),  # both kinds, in each other's colours
        ([("car", "red")], 0.5),
        ([("car", "green")], 0.25),
        ([("tree", "red")], 0.0),
    ],
)
def test_alignment_by_hand(toys: list[tuple[str, str]], share: float) -> None:
    asked = SceneSpec((Group("car", "red"), Group("dog", "blue")), ("and",))
    assert alignment([asked], shows(*toys)).item() == share


def test_a_colour_that_is_not_asked_does_not_count() -> None:
    assert alignment([SceneSpec((Group("car"),))], shows(("car", "green"))).item() == 1.0


def test_ranking_loss_by_hand() -> None:
    """Three pictures of one caption; the second and third are too close to be compared."""
    scores = torch.tensor([[1.0], [0.0], [3.0]])
    utilities = torch.tensor([[1.0], [0.5], [0.5 - MARGIN / 2]])
    value, right = ranking_loss(scores, utilities)
    pairs = [1.0 - 0.0, 1.0 - 3.0]
    assert value.item() == pytest.approx(np.mean([np.log1p(np.exp(-x)) for x in pairs]), rel=1e-6)
    assert right.item() == 0.5


@given(order=st.permutations(range(4)))
def test_the_order_of_the_pictures_does_not_matter(order: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    scores, utilities = torch.rand((2, 4, 5), generator=generator)
    one, other = ranking_loss(scores, utilities), ranking_loss(scores[order], utilities[order])
    torch.testing.assert_close(one, other)
