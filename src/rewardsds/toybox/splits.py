"""Which scenes may be trained on, and the prompts that are measured with."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import combinations, permutations
from typing import Literal

from rewardsds.toybox.specification import COLOURS, KINDS, Group, SceneSpec
from rewardsds.toybox.writing import describe

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

# Pairs that published prompts ask for (arXiv 2503.09601 among them): never trained on, so a fair test.
_HELD_OUT: tuple[tuple[str, str], ...] = (
    ("black backpack", "green apple"),
    ("brown bag", "natural penguin"),
    ("red sheep", "white car"),
    ("natural apple", "natural banana"),
    ("brown table", "white couch"),
)


def _pair_split(pair: tuple[str, str]) -> Split:
    """pair: "colour kind" twice, sorted. 90% train, 5% validation, 5% test, by SHA-256."""
    if pair in _HELD_OUT:
        return "test"
    bucket = int.from_bytes(sha256(" + ".join(pair).encode()).digest()[:8], "big") % 100
    return "train" if bucket < 90 else "validation" if bucket < 95 else "test"


def split_of(spec: SceneSpec) -> Split:
    """Which split a scene belongs to; the same on every machine.

    It depends on which (kind, colour) groups meet, not on counts, relations or ground. Scenes of one group
    are always "train". A scene of three groups is in "test" if any of its pairs is, else in "validation" if
    any is: no training scene shows a pair that is held out.
    """
    names = sorted(f"{group.colour or 'natural'} {group.kind}" for group in spec.groups)
    splits = {_pair_split(pair) for pair in combinations(names, 2)}
    return "test" if "test" in splits else "validation" if "validation" in splits else "train"


def benchmark_prompts(
    n: int, split: Split = "test", seed: int = 0, kinds: Sequence[str] = KINDS
) -> list[str]:
    """n different prompts "a red apple and a blue car": two kinds, two colours, all of one split.

    Stable for a seed, on every machine; a smaller n gives the beginning of a larger one's list. Raises
    ValueError if the split has fewer than n pairs of these kinds.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    ranked = []
    for first, second in combinations(sorted(set(kinds)), 2):
        for colour, other_colour in permutations(COLOURS, 2):
            rank = sha256(f"{seed}: {colour} {first} + {other_colour} {second}".encode()).digest()
            ranked.append((rank, Group(first, colour), Group(second, other_colour)))
    ranked.sort(key=lambda entry: entry[0])
    prompts: list[str] = []
    for rank, one, two in ranked:
        # which of the two is named first is the rank's last bit
        spec = SceneSpec((one, two) if rank[-1] % 2 else (two, one), ("and",))
        if split_of(spec) == split:
            prompts.append(describe(spec))
            if len(prompts) == n:
                return prompts
    raise ValueError(f"the {split} split has {len(prompts)} pairs of these kinds, {n} were asked for")
