"""Captions and scenes: hand-written readings, and every valid scene read back from its own caption."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsds.toybox.captions import (
    WORDS,
    benchmark_prompts,
    describe,
    parse,
    sample_spec,
    split_of,
    split_words,
)
from rewardsds.toybox.specification import (
    COLOURS,
    GROUNDS,
    KINDS,
    RELATIONS,
    STANDS,
    WEARERS,
    Group,
    SceneSpec,
)


def one(kind, colour=None, count=1):
    return Group(kind, colour, count)


PAPER_PROMPTS = {
    "a green apple and a black backpack": SceneSpec(
        (one("apple", "green"), one("backpack", "black")), ("and",)
    ),
    "A penguin with a brown bag in the snow": SceneSpec(
        (one("penguin"), one("bag", "brown")), ("with",), "snow"
    ),
    "a white car and a red sheep": SceneSpec((one("car", "white"), one("sheep", "red")), ("and",)),
    "a banana on the left of an apple": SceneSpec((one("banana"), one("apple")), ("left of",)),
    "Two dogs in the park": SceneSpec((one("dog", None, 2),), (), "grass"),
    "a white couch next to a brown wooden table": SceneSpec(
        (one("couch", "white"), one("table", "brown")), ("next to",)
    ),
    "A white sofa next to a brown wooden table": SceneSpec(
        (one("couch", "white"), one("table", "brown")), ("next to",)
    ),
    "A skyscraper that reaches the clouds, high quality, realistic": SceneSpec((one("skyscraper"),)),
}


@pytest.mark.parametrize("prompt", PAPER_PROMPTS)
def test_the_papers_prompts_are_understood(prompt):
    parsed = parse(prompt)
    assert parsed.spec == PAPER_PROMPTS[prompt]
    assert parsed.unknown == []
    assert parsed.dropped == []


PENGUIN_IN_HAT = SceneSpec((one("penguin"), one("hat", "red")), ("wearing",))


@pytest.mark.parametrize(
    "prompt, spec",
    [
        ("a red apple", SceneSpec((one("apple", "red"),))),
        ("an orange", None),
        ("a banana to the left of an apple", SceneSpec((one("banana"), one("apple")), ("left of",))),
        ("a banana right of an apple", SceneSpec((one("banana"), one("apple")), ("right of",))),
        ("a penguin wearing a red hat", PENGUIN_IN_HAT),
        ("a penguin with a red hat on", PENGUIN_IN_HAT),
        ("a penguin with a red hat on, realistic, 4K", PENGUIN_IN_HAT),
        ("a penguin with a red hat", SceneSpec((one("penguin"), one("hat", "red")), ("with",))),
        (
            "a penguin with a red hat on a blue cube",
            SceneSpec((one("penguin"), one("hat", "red"), one("cube", "blue")), ("with", "on top of")),
        ),
        (
            "a penguin with a red hat on in the snow",
            SceneSpec((one("penguin"), one("hat", "red")), ("wearing",), "snow"),
        ),
        (
            "a penguin with a red hat on on the sand",
            SceneSpec((one("penguin"), one("hat", "red")), ("wearing",), "sand"),
        ),
        (
            "a blue cube on top of a yellow cylinder",
            SceneSpec((one("cube", "blue"), one("cylinder", "yellow")), ("on top of",)),
        ),
        ("a ball on a wooden table", SceneSpec((one("ball"), one("table", "brown")), ("on top of",))),
        ("a ball on a wooden floor", SceneSpec((one("ball"),), (), "wooden-floor")),
        (
            "a red ball, a blue cone and a green vase",
            SceneSpec((one("ball", "red"), one("cone", "blue"), one("vase", "green")), ("and", "and")),
        ),
        (
            "a penguin wearing a red hat with a brown bag",
            SceneSpec((one("penguin"), one("hat", "red"), one("bag", "brown")), ("wearing", "with")),
        ),
        (
            "two red apples next to a blue vase",
            SceneSpec((one("apple", "red", 2), one("vase", "blue")), ("next to",)),
        ),
        ("three sheep", SceneSpec((one("sheep", None, 3),))),
        ("a render of two puppies at the beach, 8K", SceneSpec((one("dog", None, 2),), (), "sand")),
        ("There are TWO grey towers!", SceneSpec((one("skyscraper", "grey", 2),))),
        ("a gray mug beside a doughnut", SceneSpec((one("cup", "grey"), one("donut")), ("next to",))),
        (
            "a rucksack together with a handbag",
            SceneSpec((one("backpack"), one("bag")), ("and",)),
        ),
        ("a dog carrying a purple sphere", SceneSpec((one("dog"), one("ball", "purple")), ("with",))),
        # text relates neighbours; the group that the others relate to becomes the first
        (
            "a ball and a penguin wearing a red hat",
            SceneSpec((one("penguin"), one("hat", "red"), one("ball")), ("wearing", "and")),
        ),
        (
            "a penguin with a bag, wearing a red hat",
            SceneSpec((one("penguin"), one("hat", "red"), one("bag")), ("wearing", "with")),
        ),
        (
            "a ball to the left of a dog with a bag",
            SceneSpec((one("dog"), one("bag"), one("ball")), ("with", "right of")),
        ),
        (
            "a car and a cone on top of a book",
            SceneSpec((one("cone"), one("book"), one("car")), ("on top of", "and")),
        ),
        # what cannot be is read as the nearest thing that can
        ("a car wearing a red hat", SceneSpec((one("car"), one("hat", "red")), ("with",))),
        ("two dogs on top of a cube", SceneSpec((one("dog", None, 2), one("cube")), ("next to",))),
    ],
)
def test_prompts_read_by_hand(prompt, spec):
    parsed = parse(prompt)
    assert parsed.spec == spec
    assert parsed.unknown == []


@pytest.mark.parametrize(
    "prompt, unknown, spec",
    [
        ("a dragon and a red apple", ["dragon"], SceneSpec((one("apple", "red"),))),
        ("a green dragon on top of a cube", ["dragon"], SceneSpec((one("cube"),))),
        (
            "Shiny gothic dog, shiny cat's bowl, dog",
            ["shiny", "gothic", "cat", "bowl"],
            SceneSpec((one("dog"), one("dog")), ("and",)),
        ),
        ("a penguin in deep snow", ["deep"], SceneSpec((one("penguin"),), (), "snow")),
        ("a penguin on deep snow", ["deep"], SceneSpec((one("penguin"),), (), "snow")),
        ("An astronaut riding a horse", ["astronaut", "riding", "horse"], None),
        ("дракон 龍", ["дракон", "龍"], None),
        ("", [], None),
        ("?!, - _ …", [], None),
    ],
)
def test_unknown_words_are_reported_in_order(prompt, unknown, spec):
    parsed = parse(prompt)
    assert parsed.unknown == unknown
    assert parsed.spec == spec


def test_what_does_not_fit_is_reported():
    parsed = parse("two red dogs and three green apples and a ball and an orange vase")
    assert parsed.spec == SceneSpec((one("dog", "red", 2), one("ball")), ("and",))
    assert parsed.dropped == ["three green apples", "an orange vase"]


@pytest.mark.parametrize(
    "spec, caption",
    [
        (SceneSpec((one("apple"),)), "an apple"),
        (SceneSpec((one("apple", "red"),)), "a red apple"),
        (SceneSpec((one("ball", "orange"),)), "an orange ball"),
        (SceneSpec((one("couch", "red", 2),)), "two red couches"),
        (SceneSpec((one("mushroom", None, 3),)), "three mushrooms"),
        (SceneSpec((one("sheep", None, 2),)), "two sheep"),
        (SceneSpec((one("snowman", None, 2),), (), "snow"), "two snowmen in the snow"),
        (
            SceneSpec((one("ball", "red"), one("cone", "blue"), one("vase")), ("and", "and"), "sand"),
            "a red ball, a blue cone and a vase on sand",
        ),
        (SceneSpec((one("cup"), one("table", "brown")), ("on top of",)), "a cup on top of a brown table"),
        (
            SceneSpec((one("penguin"), one("hat", "red"), one("bag", "brown")), ("wearing", "with")),
            "a penguin wearing a red hat with a brown bag",
        ),
    ],
)
def test_canonical_captions(spec, caption):
    assert describe(spec) == caption


@st.composite
def scenes(draw) -> SceneSpec:
    """Any scene that SceneSpec allows: shapes are drawn freely, and those that it refuses are drawn again."""
    group = st.builds(
        Group,
        st.sampled_from(KINDS) | st.sampled_from((*WEARERS, "hat")),
        st.none() | st.sampled_from(COLOURS),
        st.sampled_from((1, 1, 1, 2, 3)),
    )
    count = draw(st.integers(1, 3))
    groups = tuple(draw(group) for _ in range(count))
    relations = tuple(draw(st.sampled_from(RELATIONS)) for _ in range(count - 1))
    ground = draw(st.sampled_from(GROUNDS))
    try:
        return SceneSpec(groups, relations, ground)
    except ValueError:
        return SceneSpec(groups[:1], (), ground)


@settings(max_examples=400, deadline=None)
@given(scenes(), st.integers(0, 2**32 - 1))
def test_every_scene_is_read_back_from_its_captions(spec, seed):
    rng = np.random.default_rng(seed)
    for caption in (describe(spec), describe(spec, rng)):
        parsed = parse(caption)
        assert parsed.spec == spec, caption
        assert parsed.unknown == []
        assert parsed.dropped == []
        assert len(caption.split()) <= 22
    assert SceneSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from((*WORDS, ",", "dragon", "'s")), max_size=40))
def test_any_words_in_any_order_are_read(words):
    parsed = parse(" ".join(words))
    assert parsed.unknown == (["dragon"] if "dragon" in words else [])
    if parsed.spec is not None:
        assert parse(describe(parsed.spec)).spec == parsed.spec


@given(st.text())
def test_any_text_is_read(text):
    parsed = parse(text)
    assert not set(parsed.unknown) & set(WORDS)


def test_a_very_long_prompt_is_read():
    parsed = parse("a red apple next to a blue vase " * 400)
    assert parsed.spec is not None
    assert parsed.spec.groups[:2] == (one("apple", "red"), one("vase", "blue"))
    assert len(parsed.dropped) == 797


@pytest.fixture(scope="module")
def drawn() -> list[SceneSpec]:
    rng = np.random.default_rng(0)
    return [sample_spec(rng) for _ in range(20_000)]


def test_drawn_scenes_are_read_back_and_use_every_word(drawn):
    rng = np.random.default_rng(1)
    said: set[str] = set()
    plain = 0
    for spec in drawn:
        caption = describe(spec, rng)
        assert parse(caption).spec == spec, caption
        words = [word for word in split_words(caption) if word != ","]
        said |= set(words)
        plain += not {"photo", "picture", "image", "render", "there", "toy", "quality", "realistic"} & set(
            words
        )
    assert said == set(WORDS)
    assert 0.7 < plain / len(drawn) < 0.85


def test_drawn_scenes_have_the_stated_shares(drawn):
    def share(condition):
        return sum(map(condition, drawn)) / len(drawn)

    # four standard deviations of 20,000 draws are at most 0.0142
    assert share(lambda s: s.toys == 1) == pytest.approx(0.35, abs=0.015)
    assert share(lambda s: s.toys == 2 and len(s.groups) == 2) == pytest.approx(0.45, abs=0.015)
    assert share(lambda s: len(s.groups) == 1 and s.toys > 1) == pytest.approx(0.08, abs=0.015)
    assert share(lambda s: s.toys == 3 and len(s.groups) > 1) == pytest.approx(0.12, abs=0.015)
    assert share(lambda s: s.ground == "none") == pytest.approx(0.5, abs=0.015)
    for ground in GROUNDS[1:]:
        assert share(lambda s, g=ground: s.ground == g) == pytest.approx(0.125, abs=0.015)

    groups = [group for spec in drawn for group in spec.groups]
    assert sum(group.colour is None for group in groups) / len(groups) == pytest.approx(0.2, abs=0.015)
    colours = Counter(group.colour for group in groups if group.colour is not None)
    for colour in COLOURS:
        assert colours[colour] / colours.total() == pytest.approx(1 / 11, abs=0.01)
    kinds = Counter(spec.groups[0].kind for spec in drawn if spec.toys == 1)
    for kind in KINDS:
        assert kinds[kind] / kinds.total() == pytest.approx(1 / 27, abs=0.01)

    pairs = [spec for spec in drawn if spec.toys == 2 and len(spec.groups) == 2]
    relations = Counter(spec.relations[0] for spec in pairs)
    assert relations["and"] / len(pairs) == pytest.approx(0.5, abs=0.025)
    for relation in set(RELATIONS) - {"and"}:
        assert relations[relation] / len(pairs) == pytest.approx(1 / 12, abs=0.015)
    assert all(spec.groups[1].kind in STANDS for spec in pairs if spec.relations == ("on top of",))


def test_scenes_of_some_kinds_only():
    rng = np.random.default_rng(0)
    kinds = ("apple", "cube", "hat")
    specs = [sample_spec(rng, kinds) for _ in range(500)]
    assert {group.kind for spec in specs for group in spec.groups} == set(kinds)
    assert not any("wearing" in spec.relations for spec in specs)  # nothing there can wear the hat


def test_a_seed_gives_the_same_scenes_and_captions():
    def captions(seed):
        rng = np.random.default_rng(seed)
        return [describe(sample_spec(rng), rng) for _ in range(50)]

    assert captions(3) == captions(3)
    assert captions(3) != captions(4)


# ---- splits ----


def test_splits_of_the_papers_pairs_and_of_single_groups():
    for prompt, spec in PAPER_PROMPTS.items():
        assert split_of(spec) == ("test" if len(spec.groups) == 2 else "train"), prompt
    assert split_of(SceneSpec((one("apple", "red", 3),))) == "train"


@pytest.mark.parametrize(
    "prompt, split",
    # the first 16 hex digits of `printf "blue car + red apple" | sha256sum`, modulo 100, and so on
    [
        ("a red apple and a blue car", "validation"),  # 91
        ("a green hat and a pink vase", "train"),  # 18
        ("a dog and a yellow ball", "train"),  # 71
        ("a red vase next to a dog", "test"),  # 95
    ],
)
def test_splits_never_move(prompt, split):
    spec = parse(prompt).spec
    assert spec is not None
    assert split_of(spec) == split


def pair_split(first: Group, second: Group) -> str:
    return split_of(SceneSpec((first, second), ("and",)))


def test_splits_ignore_order_relation_count_and_ground():
    rng = np.random.default_rng(0)
    for _ in range(300):
        first, second = sample_spec(rng).groups[0], sample_spec(rng).groups[0]
        first, second = one(first.kind, first.colour), one(second.kind, second.colour)
        split = pair_split(first, second)
        assert pair_split(second, first) == split
        assert split_of(SceneSpec((first, second), ("left of",), "snow")) == split
        assert split_of(SceneSpec((one(first.kind, first.colour, 2), second), ("and",))) == split


def test_splits_have_the_stated_shares_and_no_training_scene_shows_a_held_out_pair(drawn):
    splits = Counter(split_of(spec) for spec in drawn if len(spec.groups) == 2)
    for split, share in (("train", 0.9), ("validation", 0.05), ("test", 0.05)):
        assert splits[split] / splits.total() == pytest.approx(share, abs=0.015)
    triples = [spec for spec in drawn if len(spec.groups) == 3]
    assert len(triples) > 1000
    for spec in triples:
        pairs = {pair_split(*pair) for pair in combinations(spec.groups, 2)}
        assert split_of(spec) == next(s for s in ("test", "validation", "train") if s in pairs)


def test_benchmark_prompts():
    prompts = benchmark_prompts(200)
    assert prompts[:3] == [
        "a purple penguin and an orange hat",
        "a grey mushroom and a pink dog",
        "a grey donut and an orange cylinder",
    ]
    assert prompts[:32] == benchmark_prompts(32)
    assert not set(prompts[:32]) & set(benchmark_prompts(32, seed=1))
    groups = set()
    for prompt in prompts:
        spec = parse(prompt).spec
        assert spec is not None
        first, second = spec.groups
        assert prompt == describe(spec)
        assert spec.relations == ("and",)
        assert first.kind != second.kind
        assert first.colour != second.colour
        assert None not in (first.colour, second.colour)
        assert split_of(spec) == "test"
        groups.add(frozenset(spec.groups))
    assert len(groups) == 200
    assert not set(benchmark_prompts(500, "train")) & set(prompts)
    for prompt in benchmark_prompts(20, kinds=("apple", "car", "dog", "vase")):
        spec = parse(prompt).spec
        assert spec is not None
        assert {group.kind for group in spec.groups} <= {"apple", "car", "dog", "vase"}
    with pytest.raises(ValueError, match="at least 1"):
        benchmark_prompts(0)
    with pytest.raises(ValueError, match="pairs of these kinds, 1000 were asked for"):
        benchmark_prompts(1000, kinds=("apple", "car"))


# ---- what a scene may be ----


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Group("dragon"), "kind 'dragon' is not a toy"),
        (lambda: Group("apple", "teal"), "colour 'teal' is not known"),
        (lambda: Group("apple", None, 0), "count must be an integer from 1 to 3, got 0"),
        (lambda: Group("apple", None, 4), "got 4"),
        (lambda: Group("apple", None, 1.5), "got 1.5"),  # pyright: ignore[reportArgumentType]
        (lambda: SceneSpec(()), "1 to 3 toys, got 0"),
        (lambda: SceneSpec((one("apple", None, 2), one("vase", None, 2)), ("and",)), "1 to 3 toys, got 4"),
        (lambda: SceneSpec((one("apple"), one("vase"))), "2 groups need 1 relations, got 0"),
        (lambda: SceneSpec((one("apple"),), (), "lava"), "ground 'lava'"),
        (
            lambda: SceneSpec((one("apple"), one("vase")), ("under",)),  # pyright: ignore[reportArgumentType]
            "relation 'under'",
        ),
        (lambda: SceneSpec((one("car"), one("hat")), ("wearing",)), "'car' cannot be wearing 'hat'"),
        (lambda: SceneSpec((one("dog"), one("bag")), ("wearing",)), "'dog' cannot be wearing 'bag'"),
        (lambda: SceneSpec((one("dog", None, 2), one("hat")), ("wearing",)), "single toys"),
        (lambda: SceneSpec((one("dog"), one("cube", None, 2)), ("on top of",)), "single toys"),
        (lambda: SceneSpec((one("dog"), one("bag"), one("hat")), ("with", "wearing")), "must be the first"),
        (
            lambda: SceneSpec((one("dog"), one("bag"), one("car")), ("and", "next to")),
            "read in two ways",
        ),
        (lambda: SceneSpec.from_dict({}), "not a scene"),
        (lambda: SceneSpec.from_dict({"groups": [{"name": "dog"}]}), "not a scene"),
        (lambda: SceneSpec.from_dict({"groups": [3]}), "not a scene"),
    ],
)
def test_impossible_scenes_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_world_is_as_large_as_promised():
    assert len(set(KINDS)) == len(KINDS) >= 24
    assert len(set(COLOURS)) == 11
    assert set(WEARERS) | set(STANDS) <= set(KINDS)
    assert list(WORDS) == sorted(set(WORDS))


def test_kinds_that_are_not_allowed_are_reported_like_any_unknown_word():
    parsed = parse("a blue sofa next to a green apple", kinds=("apple", "penguin"))
    assert parsed.unknown == ["sofa"]
    assert parsed.spec == SceneSpec((Group("apple", "green"),))
    assert parse("two puppies", kinds=("apple",)).spec is None
