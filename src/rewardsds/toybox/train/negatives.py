"""Scenes that are wrong in one respect: what the CLIP has to tell from the true one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from rewardsds.toybox.specification import COLOURS, KINDS, WEARERS, Group, SceneSpec

_MIRRORED = {"left of": "right of", "right of": "left of"}


def swap_colours(spec: SceneSpec) -> SceneSpec | None:
    """The same scene with the colours of two of its groups exchanged; None where no two named colours
    differ.
    """
    groups = spec.groups
    for first in range(len(groups)):
        for second in range(first + 1, len(groups)):
            a, b = groups[first], groups[second]
            if a.colour and b.colour and a.colour != b.colour and a.kind != b.kind:
                changed = list(groups)
                changed[first], changed[second] = replace(a, colour=b.colour), replace(b, colour=a.colour)
                return replace(spec, groups=tuple(changed))
    return None


def wrong_colour(spec: SceneSpec, toys: list[tuple[str, str]], rng: np.random.Generator) -> SceneSpec:
    """One group in a colour that no toy of its kind has in the scene."""
    place = int(rng.integers(len(spec.groups)))
    group = spec.groups[place]
    shown = {colour for kind, colour in toys if kind == group.kind}
    return _with(spec, place, replace(group, colour=_other(COLOURS, shown, rng)))


def wrong_kind(
    spec: SceneSpec, toys: list[tuple[str, str]], rng: np.random.Generator, kinds: tuple[str, ...] = KINDS
) -> SceneSpec | None:
    """One group of a kind that the scene lacks; None where the grammar has no other kind in that place."""
    place = int(rng.integers(len(spec.groups)))
    choices = kinds
    if "wearing" in spec.relations:
        if place == spec.relations.index("wearing") + 1:
            return None
        choices = tuple(kind for kind in WEARERS if kind in kinds) if place == 0 else kinds
    try:
        return _with(
            spec, place, replace(spec.groups[place], kind=_other(choices, {kind for kind, _ in toys}, rng))
        )
    except ValueError:  # a stand that nothing stands on, and the like
        return None


def mirrored(spec: SceneSpec) -> SceneSpec | None:
    """Left for right; None where the scene does not say."""
    if not any(relation in _MIRRORED for relation in spec.relations):
        return None
    return replace(spec, relations=tuple(_MIRRORED.get(relation, relation) for relation in spec.relations))


def hard_negatives(
    spec: SceneSpec,
    toys: list[tuple[str, str]],
    front: bool,
    rng: np.random.Generator,
    kinds: tuple[str, ...] = KINDS,
) -> tuple[SceneSpec, SceneSpec]:
    """Two wrong scenes: colours swapped where that is possible, and another fault; sides only for front
    views.
    """
    faults: list[Callable[[], SceneSpec | None]] = [
        lambda: wrong_kind(spec, toys, rng, kinds),
        lambda: mirrored(spec) if front else None,
    ]
    fault = faults[int(rng.integers(len(faults)))]() if rng.random() < 0.6 else None
    return swap_colours(spec) or wrong_colour(spec, toys, rng), fault or wrong_colour(spec, toys, rng)


def _with(spec: SceneSpec, place: int, group: Group) -> SceneSpec:
    return replace(spec, groups=(*spec.groups[:place], group, *spec.groups[place + 1 :]))


def _other(choices: tuple[str, ...], taken: set[str], rng: np.random.Generator) -> str:
    free = [choice for choice in choices if choice not in taken]
    return free[int(rng.integers(len(free)))] if free else choices[int(rng.integers(len(choices)))]
