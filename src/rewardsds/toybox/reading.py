"""Reading captions: from text to the scene it asks for, as far as it is understood."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rewardsds.pretrained import installed_weights
from rewardsds.priors.base import Prior
from rewardsds.toybox.lexicon import LONGEST_PHRASE, PHRASES, split_words
from rewardsds.toybox.specification import KINDS, MOST_TOYS, WEARERS, Group, Relation, SceneSpec
from rewardsds.toybox.writing import noun_phrase


@dataclass(frozen=True)
class Parsed:
    """What was understood of a prompt.

    spec: the scene, or None if no toy was named. unknown: the words outside WORDS and of kinds
    that were not allowed, in order, each once.
    dropped: the groups that no longer fitted into a scene of three toys, as captions ("two red dogs").
    """

    spec: SceneSpec | None
    unknown: list[str]
    dropped: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """What the user should know: words that are not known, toys left out."""
        notes = [f"the toybox does not know: {', '.join(self.unknown)}"] if self.unknown else []
        if self.dropped:
            notes.append(f"the toybox shows at most three toys; left out: {', '.join(self.dropped)}")
        return notes


def parse(prompt: str, kinds: Collection[str] = KINDS) -> Parsed:
    """Reads any string; never raises. Words for kinds of toy that are not in `kinds` count as unknown.

    Case, accents and punctuation do not matter. What cannot be shown is read as the nearest thing that can:
    a car "wearing" a hat is a car "with" a hat, two dogs "on top of" a cube are "next to" it.
    """
    words = split_words(prompt)
    reader, unknown = _Reader(), dict[str, None]()
    position = 0
    while position < len(words):
        for length in range(min(LONGEST_PHRASE, len(words) - position), 0, -1):
            item = PHRASES.get(tuple(words[position : position + length]))
            if item is not None and not (item[0] == "kind" and item[1][0] not in kinds):
                reader.take(*item)
                position += length
                break
        else:
            if words[position].isalnum():
                unknown[words[position]] = None
            else:
                reader.end_phrase()
            position += 1
    reader.end_phrase()

    kept: list[tuple[Relation, Group]] = []
    dropped: list[str] = []
    for relation, group in reader.found:
        if sum(other.count for _, other in kept) + group.count <= MOST_TOYS:
            kept.append((relation, group))
        else:
            dropped.append(noun_phrase(group))
    return Parsed(_assemble(kept, reader.ground) if kept else None, list(unknown), dropped)


class _Reader:
    """Takes phrases one by one and collects groups, each with its relation to the group before it."""

    def __init__(self) -> None:
        self.found: list[tuple[Relation, Group]] = []
        self.ground = "none"
        self.relation: Relation | Literal["on"] | None = None  # said, and waiting for its second group
        self._start_group()

    def _start_group(self, count: int | None = None) -> None:
        self.colour: str | None = None
        self.wooden = False
        self.count = count

    def take(self, what: str, value: Any) -> None:
        match what:
            case "colour":
                self.colour = self.colour or value
            case "wooden":
                self.wooden = True
            case "count":
                self._start_group(value)
            case "lead":
                self._start_group()
            case "kind":
                self._take_kind(*value)
            case "relation":
                self.end_phrase()
                if self.relation is None or value != "and":  # "and next to" is "next to"
                    self.relation = value
                self._start_group()
            case "ground" | "ground noun":
                if what == "ground":
                    self.end_phrase()
                elif self.relation == "on":  # "on deep snow"
                    self.relation = None
                if self.ground == "none":
                    self.ground = value
                self._start_group()
            case _:
                assert what == "filler", what

    def _take_kind(self, kind: str, is_plural: bool) -> None:
        relation = "on top of" if self.relation == "on" else self.relation or "and"
        colour = self.colour or ("brown" if self.wooden else None)
        count = self.count or (2 if is_plural else 1)
        self.found.append((relation, Group(kind, colour, count)))
        self.relation = None
        self._start_group()

    def end_phrase(self) -> None:
        """An "on" with nothing to stand on belongs to the hat before it: "a penguin with a red hat on"."""
        if self.relation == "on":
            self.relation = None
            if self.found and self.found[-1][0] == "with" and self.found[-1][1].kind == "hat":
                self.found[-1] = ("wearing", self.found[-1][1])


_SEEN_FROM_THE_OTHER: dict[Relation, Relation] = {
    "next to": "next to",
    "left of": "right of",
    "right of": "left of",
}


def known_kinds(prior: Prior) -> tuple[str, ...]:
    """Kinds of toy that a prior has words for: the world may hold more than it has been trained on."""
    return tuple(kind for kind in KINDS if not prior.unknown_words(kind))


def embedded_kinds() -> tuple[str, ...]:
    """`known_kinds` of the embedded prior, from its vocabulary alone. Raises ValueError where it is not installed."""
    file = Path("tokenizer") / "tokenizer.json"
    folder = installed_weights("prior", str(file), "prior", "prompts of your own")
    vocabulary = json.loads((folder / file).read_text(encoding="utf-8"))["model"]["vocab"]
    return tuple(kind for kind in KINDS if kind in vocabulary)


def _feasible(relation: Relation, first: Group, other: Group) -> Relation:
    """The relation itself, or the nearest one that these two groups can have."""
    single = first.count == other.count == 1
    if relation == "wearing" and not (single and first.kind in WEARERS and other.kind == "hat"):
        return "with"
    if relation == "on top of" and not single:
        return "next to"
    return relation


def _assemble(found: list[tuple[Relation, Group]], ground: str) -> SceneSpec:
    """Relations in text hold between neighbours; a SceneSpec relates every group to its first."""
    if len(found) == 1:
        return SceneSpec((found[0][1],), (), ground)
    (_, a), (left, b), *rest = found
    if not rest:
        return SceneSpec((a, b), (_feasible(left, a, b),), ground)
    ((right, c),) = rest
    groups, relations = _root(a, b, c, left, right)
    return SceneSpec(groups, relations, ground)


def _root(
    a: Group, b: Group, c: Group, left: Relation, right: Relation
) -> tuple[tuple[Group, Group, Group], tuple[Relation, Relation]]:
    """Groups and relations of "a left b right c", the group that the others are related to first."""
    back = _SEEN_FROM_THE_OTHER.get(left, "and")
    left = _feasible(left, a, b)
    if right == "wearing":
        if _feasible(right, b, c) == right:  # "a ball next to a penguin wearing a hat"
            return (b, c, a), (right, back)
        if _feasible(right, a, c) == right and left != "wearing":  # "a penguin with a bag, wearing a hat"
            return (a, c, b), (right, left)
        right = "with"
    if left in ("wearing", "with"):  # "a penguin wearing a hat next to a ball"
        return (a, b, c), (left, _feasible(right, a, c))
    if right == "with":  # "a ball next to a dog with a bag"
        return (b, c, a), (right, back)
    if right != "and" and (left == "and" or right == "on top of"):  # "a ball and a cube on top of a book"
        return (b, c, a), (_feasible(right, b, c), "and")
    return (a, b, c), (left, "and")
