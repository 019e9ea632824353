"""Fronts of made-up objects, of which it is known how many they have."""

import pytest
import torch
from torch import Tensor

from rewardsds.evaluation.janus import from_sides


def around(sides: list[int], sure: float = 0.9) -> Tensor:
    """(V, 4): view v shows side sides[v] for sure, the rest evenly."""
    shares = torch.full((len(sides), 4), (1 - sure) / 3)
    shares[torch.arange(len(sides)), torch.tensor(sides)] = sure
    return shares


WHOLE = [0] * 3 + [1] * 6 + [2] * 6 + [3] * 6 + [0] * 3  # the front is cut by where the turn begins
TWO_FACED = [0] * 3 + [1] * 6 + [0] * 6 + [3] * 6 + [0] * 3


def test_a_whole_toy_has_one_front():
    found = from_sides(around(WHOLE))
    assert found.fronts == 1
    assert found.back_as_front == pytest.approx(0.1 / 3)


def test_a_second_face_is_found():
    found = from_sides(around(TWO_FACED))
    assert found.fronts == 2
    assert found.back_as_front == pytest.approx(0.9)


def test_fronts_everywhere_are_four():
    assert from_sides(around([0] * 24)).fronts == 4


def test_no_front_is_none():
    found = from_sides(around([2] * 24))
    assert found.fronts == 0
    assert found.back_as_front == pytest.approx(0.1 / 3)


def test_a_single_odd_view_is_no_face():
    sides = list(WHOLE)
    sides[12] = 0
    assert from_sides(around(sides, sure=0.6)).fronts == 1


@pytest.mark.parametrize("turn", range(24))
def test_it_does_not_matter_where_the_turn_begins(turn: int):
    assert from_sides(around(TWO_FACED).roll(turn, 0)) == from_sides(around(TWO_FACED))


@pytest.mark.parametrize("views", [2, 5])
def test_views_must_have_opposites(views: int):
    with pytest.raises(ValueError, match="even number"):
        from_sides(around([0] * views))
