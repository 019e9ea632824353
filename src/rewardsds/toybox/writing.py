"""Writing captions: from a scene to a text that `parse` reads back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewardsds.toybox.lexicon import (
    COLOUR_SYNONYMS,
    GROUND_PHRASES,
    LONGEST_CAPTION,
    NUMBERS,
    PREFIXES,
    RELATION_PHRASES,
    SKYSCRAPER_BOAST,
    SUFFIXES,
    SYNONYMS,
    WOODEN_KINDS,
    plural,
)
from rewardsds.toybox.specification import WEARERS, Group, SceneSpec


def _pick(rng: np.random.Generator, choices: Sequence[str], first: float = 0.5) -> str:
    """The first choice with probability `first`, else one of the others evenly."""
    if len(choices) == 1 or rng.random() < first:
        return choices[0]
    return choices[1 + int(rng.integers(len(choices) - 1))]


def noun_phrase(group: Group, rng: np.random.Generator | None = None, toy: bool = False) -> str:
    """A group as the caption names it, such as "a red apple", "two dogs", "a toy car"."""
    noun, words = group.kind, [] if group.colour is None else [group.colour]
    if rng is not None:
        noun = _pick(rng, (group.kind, *SYNONYMS.get(group.kind, ())), 0.9)
        if group.colour is not None:
            words = [_pick(rng, (group.colour, *COLOUR_SYNONYMS.get(group.colour, ())), 0.8)]
        if group.colour == "brown" and group.kind in WOODEN_KINDS:
            words = _pick(rng, ("brown", "brown wooden", "wooden")).split()
    if toy:
        words = ["toy", *words]
    words.append(noun if group.count == 1 else plural(noun))
    if group.count > 1:
        start = NUMBERS[group.count]
    elif rng is not None and rng.random() < 0.03:
        start = NUMBERS[1]
    else:
        start = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([start, *words])


def _related(spec: SceneSpec, index: int, rng: np.random.Generator | None) -> str:
    """groups[index + 1] with its relation, such as "wearing a red hat"."""
    relation = spec.relations[index]
    toys = noun_phrase(spec.groups[index + 1], rng)
    phrase = RELATION_PHRASES[relation][0]
    if rng is not None:
        if relation == "wearing" and rng.random() < 0.3:
            return f"with {toys} on"
        # only what has a head is said to hold or to carry something
        if relation != "with" or spec.groups[0].kind in WEARERS:
            phrase = _pick(rng, RELATION_PHRASES[relation])
    return f"{phrase} {toys}"


def _sentence(spec: SceneSpec, rng: np.random.Generator | None, adorned: bool) -> str:
    """The caption without prefix and suffix; `adorned` may add words that do not change the scene."""
    text = noun_phrase(spec.groups[0], rng, toy=adorned and rng is not None and rng.random() < 0.2)
    if spec.relations == ("and", "and") and (rng is None or rng.random() < 0.8):
        text += f", {noun_phrase(spec.groups[1], rng)} and {noun_phrase(spec.groups[2], rng)}"
    else:
        for index in range(len(spec.relations)):
            text += " " + _related(spec, index, rng)
    if adorned and len(spec.groups) == 1 and spec.groups[0].kind == "skyscraper":
        text += " " + SKYSCRAPER_BOAST
    if spec.ground != "none":
        phrases = GROUND_PHRASES[spec.ground]
        text += " " + (phrases[0] if rng is None else _pick(rng, phrases))
    return text


def _paraphrase(spec: SceneSpec, rng: np.random.Generator) -> str:
    plain = rng.random() < 0.7
    text = _sentence(spec, rng, adorned=not plain and rng.random() < 0.5)
    if plain:
        return text
    if rng.random() < 0.6:
        leads = (*PREFIXES, "there is" if spec.groups[0].count == 1 else "there are")
        text = f"{leads[int(rng.integers(len(leads)))]} {text}"
    if rng.random() < 0.5:
        order = rng.permutation(len(SUFFIXES))[: int(rng.integers(1, 4))]
        text = ", ".join([text, *(SUFFIXES[i] for i in order)])
    return text


def describe(spec: SceneSpec, rng: np.random.Generator | None = None) -> str:
    """A caption of at most 22 words: the canonical one, or with `rng` a random paraphrase.

    70% of the paraphrases are plain: no "a photo of", no "high quality".
    """
    if rng is not None:
        for _ in range(8):
            text = _paraphrase(spec, rng)
            if len(text.split()) <= LONGEST_CAPTION and " on on " not in text:
                return text
    return _sentence(spec, None, adorned=False)
