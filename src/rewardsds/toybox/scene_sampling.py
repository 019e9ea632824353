"""Drawing scenes for training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewardsds.toybox.specification import (
    COLOURS,
    GROUNDS,
    KINDS,
    MOST_TOYS,
    STANDS,
    WEARERS,
    Group,
    Relation,
    SceneSpec,
)


def _draw_group(rng: np.random.Generator, kinds: Sequence[str], count: int = 1) -> Group:
    colour = COLOURS[int(rng.integers(len(COLOURS)))] if rng.random() < 0.8 else None
    return Group(kinds[int(rng.integers(len(kinds)))], colour, count)


def _draw_other(rng: np.random.Generator, kinds: Sequence[str], groups: Sequence[Group]) -> Group:
    """A single toy unlike those already there: what is alike is counted, not listed."""
    taken = {(group.kind, group.colour) for group in groups}
    while True:
        group = _draw_group(rng, kinds)
        if (group.kind, group.colour) not in taken:
            return group


def sample_spec(rng: np.random.Generator, kinds: Sequence[str] = KINDS) -> SceneSpec:
    """A scene for training, of the given kinds only.

    35% a single toy, 45% two toys, 8% two or three of a kind, 12% three toys in two or three groups. 80% of
    groups have a colour that is said. Two toys: half "and", else evenly one of the other relations. Half of
    the scenes have a ground. Kinds are drawn evenly except where a relation asks for certain ones. Raises
    ValueError if kinds is empty.
    """
    if not kinds:
        raise ValueError("kinds is empty; give at least one of KINDS")
    hats = [kind for kind in kinds if kind == "hat"]
    wearers = [kind for kind in kinds if kind in WEARERS]
    stands = [kind for kind in kinds if kind in STANDS]
    ground = "none" if rng.random() < 0.5 else GROUNDS[1 + int(rng.integers(len(GROUNDS) - 1))]
    size = rng.random()
    if size < 0.35:
        return SceneSpec((_draw_group(rng, kinds),), (), ground)
    if size < 0.43:
        return SceneSpec((_draw_group(rng, kinds, int(rng.integers(2, MOST_TOYS + 1))),), (), ground)

    relations: list[Relation] = ["next to", "left of", "right of", "with"]
    if size < 0.88:
        if stands:
            relations.append("on top of")
        if hats and wearers:
            relations.append("wearing")
        relation: Relation = "and" if rng.random() < 0.5 else relations[int(rng.integers(len(relations)))]
        first = _draw_group(rng, wearers if relation == "wearing" else kinds)
        others = {"wearing": hats, "on top of": stands}.get(relation, kinds)
        return SceneSpec((first, _draw_other(rng, others, [first])), (relation,), ground)

    form = rng.random()
    relation = "and" if rng.random() < 0.5 else relations[int(rng.integers(len(relations)))]
    if form < 0.3:
        first = _draw_group(rng, kinds, 2)
        return SceneSpec((first, _draw_other(rng, kinds, [first])), (relation,), ground)
    if form < 0.5 and hats and wearers:
        groups = [_draw_group(rng, wearers), _draw_group(rng, hats)]
        groups.append(_draw_other(rng, kinds, groups))
        return SceneSpec(tuple(groups), ("wearing", relation), ground)
    groups = [_draw_group(rng, kinds)]
    while len(groups) < 3:
        groups.append(_draw_other(rng, kinds, groups))
    return SceneSpec(tuple(groups), ("and", "and"), ground)
