"""What a toybox scene holds, as data: which toys, how they stand to each other, and on what ground."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

# fmt: off
KINDS: tuple[str, ...] = (
    "apple", "backpack", "bag", "ball", "banana", "book", "car", "chair", "cloud", "cone", "couch", "cube",
    "cup", "cylinder", "dog", "donut", "hat", "house", "mushroom", "penguin", "rocket", "sheep", "skyscraper",
    "snowman", "table", "tree", "vase",
)
COLOURS: tuple[str, ...] = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey",
)
# fmt: on
GROUNDS: tuple[str, ...] = ("none", "snow", "grass", "sand", "wooden-floor")

Relation = Literal["and", "next to", "on top of", "left of", "right of", "wearing", "with"]
RELATIONS: tuple[Relation, ...] = get_args(Relation)

MOST_TOYS = 3
WEARERS: tuple[str, ...] = ("penguin", "dog", "sheep", "snowman")  # kinds with a head that a hat fits on
STANDS: tuple[str, ...] = ("cube", "cylinder", "book", "table", "couch", "chair", "car")  # steady flat tops


@dataclass(frozen=True)
class Group:
    """`count` toys of one kind and colour. colour None: the natural look of the kind, left unsaid."""

    kind: str
    colour: str | None = None
    count: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} is not a toy; choose one of {', '.join(KINDS)}")
        if self.colour is not None and self.colour not in COLOURS:
            raise ValueError(
                f"colour {self.colour!r} is not known; choose None or one of {', '.join(COLOURS)}"
            )
        if type(self.count) is not int or not 1 <= self.count <= MOST_TOYS:
            raise ValueError(f"count must be an integer from 1 to {MOST_TOYS}, got {self.count!r}")


@dataclass(frozen=True)
class SceneSpec:
    """One to three toys in all. relations[i] relates groups[0] to groups[i + 1].

    "wearing" puts one hat on one toy that can wear it (WEARERS) and is always relations[0];
    "on top of" puts one toy on one other. Where a scene has two relations, the second is "and", or the first
    is "wearing" or "with" ("a penguin wearing a red hat next to a blue ball"): every other combination has no
    caption that reads one way only. Raises ValueError for anything else.
    """

    groups: tuple[Group, ...]
    relations: tuple[Relation, ...] = ()
    ground: str = "none"

    def __post_init__(self) -> None:
        if not isinstance(self.groups, tuple) or not all(isinstance(group, Group) for group in self.groups):
            raise ValueError("groups must be a tuple of Group")
        if not isinstance(self.relations, tuple):
            raise ValueError("relations must be a tuple of strings")
        if not 1 <= self.toys <= MOST_TOYS:
            raise ValueError(f"a scene holds 1 to {MOST_TOYS} toys, got {self.toys}")
        if len(self.relations) != len(self.groups) - 1:
            raise ValueError(
                f"{len(self.groups)} groups need {len(self.groups) - 1} relations, got {len(self.relations)}"
            )
        if self.ground not in GROUNDS:
            raise ValueError(f"ground {self.ground!r} is not known; choose one of {', '.join(GROUNDS)}")
        for index, relation in enumerate(self.relations):
            self._check_relation(index, relation)
        if len(self.relations) == 2:
            first, second = self.relations
            if second != "and" and first not in ("wearing", "with"):
                raise ValueError(
                    f'relations ("{first}", "{second}") can be read in two ways; '
                    'make the second "and", or the first "wearing" or "with"'
                )

    def _check_relation(self, index: int, relation: str) -> None:
        first, other = self.groups[0], self.groups[index + 1]
        if relation not in RELATIONS:
            raise ValueError(f"relation {relation!r} is not known; choose one of {', '.join(RELATIONS)}")
        if relation == "wearing":
            if first.kind not in WEARERS or other.kind != "hat":
                raise ValueError(
                    f"{first.kind!r} cannot be wearing {other.kind!r}; a hat fits on {', '.join(WEARERS)}"
                )
            if index > 0:
                raise ValueError('"wearing" must be the first relation; put the hat second in groups')
        if relation in ("wearing", "on top of") and (first.count > 1 or other.count > 1):
            raise ValueError(f'"{relation}" relates single toys, got counts {first.count} and {other.count}')

    @property
    def toys(self) -> int:
        """How many toys there are in all."""
        return sum(group.count for group in self.groups)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, strings and numbers for JSON; `from_dict` reads them back."""
        return {
            "groups": [asdict(group) for group in self.groups],
            "relations": list(self.relations),
            "ground": self.ground,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SceneSpec:
        """The scene that `to_dict` wrote. Raises ValueError if it is not one."""
        try:
            groups = tuple(Group(**group) for group in data["groups"])
            return cls(groups, tuple(data.get("relations", ())), data.get("ground", "none"))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"not a scene: {error!r}; expected the dictionary of SceneSpec.to_dict"
            ) from error
