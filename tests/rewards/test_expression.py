"""Rewards as text, taken apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardsds.errors import SettingsError
from rewardsds.rewards.compose import Minimum, WeightedSum
from rewardsds.rewards.expression import Expression, Sum, Weakest, names, parse
from rewardsds.rewards.load import load_reward, reward_names


@pytest.mark.parametrize(
    "name",
    [
        "clip",
        "openai/clip-vit-large-patch14",
        "/data/my models/a+b, c (1)/clip",
        "clip+aesthetic",
        "clip +",
        "own.rewards:green",
        "grader:org/model:7b",
        "minimum(clip",
        "1e-3 * clip",
        "2 clip",
        "C:\\models\\clip",
    ],
)
def test_a_name_is_what_it_is(name: str) -> None:
    assert parse(f"  {name}\n") == name
    assert reward_names(name) == (name,)


AB = Weakest(("a", "b"))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("clip + aesthetic", Sum(((1.0, "clip"), (1.0, "aesthetic")))),
        ("clip  +  -0.5*my folder/x", Sum(((1.0, "clip"), (-0.5, "my folder/x")))),
        (".5 * a + 3. * b+c", Sum(((0.5, "a"), (3.0, "b+c")))),
        ("2*own:green", Sum(((2.0, "own:green"),))),
        ("0.5 * 2 * a", Sum(((0.5, Sum(((2.0, "a"),))),))),
        ("0 * a", Sum(((0.0, "a"),))),
        ("min(a)", Weakest(("a",))),
        ("min(a,b)", AB),
        ("min( a , b )", AB),
        ("min(a + 2 * b, c)", Weakest((Sum(((1.0, "a"), (2.0, "b"))), "c"))),
        ("0.5 * min(a, b)", Sum(((0.5, AB),))),
        ("min(a, b) + 0.5 * min(a, c)", Sum(((1.0, AB), (0.5, Weakest(("a", "c")))))),
        ("min(c, min(a, b))", Weakest(("c", AB))),
        ("min(min(a, b), c) + d", Sum(((1.0, Weakest((AB, "c"))), (1.0, "d")))),
        ("min(2 * min(a, b) + c, d)", Weakest((Sum(((2.0, AB), (1.0, "c"))), "d"))),
        ("min(runs (1)/a, b (2))", Weakest(("runs (1)/a", "b (2)"))),
        ("min(a)b, c(d)", Weakest(("a)b", "c(d"))),
        ("a (b, c) + d", Sum(((1.0, "a (b, c)"), (1.0, "d")))),
        ("min(grader:org/m:7b, own.rewards:green)", Weakest(("grader:org/m:7b", "own.rewards:green"))),
    ],
)
def test_sums_and_minima_are_taken_apart(text: str, expected: Expression) -> None:
    assert parse(text) == expected


def test_the_names_of_a_nested_reward_come_once() -> None:
    assert names(parse("min(a, 2 * min(b, a)) + c + 0.5 * b")) == ("a", "b", "c")


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "the reward '' has no name"),
        ("  ", "the reward '' has no name"),
        ("min(clip,)", r"'min\(clip,\)' lacks a name after 'min\(clip,'"),
        ("min()", r"lacks a name after 'min\('"),
        ("min(, clip)", r"lacks a name after 'min\('"),
        ("clip + 2 *", "lacks a name after 'clip [+] 2 [*]'"),
        ("2 *", "lacks a name after '2 [*]'"),
        ("1.2.3 * clip", r"has a weight 1\.2\.3, which is no number"),
        ("clip + ...*a", r"has a weight \.\.\., which is no number"),
        ("min(clip, aesthetic", r"has a 'min\(' that no bracket closes"),
        ("min(a, min(b, c)", r"has a 'min\(' that no bracket closes"),
        ("min(a, b), c", "goes on with ', c' after a bracket that closes"),
        ("min(a, b))", r"goes on with '\)' after a bracket that closes"),
        ("grader:", "names no model after 'grader:'"),
        ("clip + grader: ", "names no model after 'grader:'"),
    ],
)
def test_what_is_none_is_told(text: str, told: str) -> None:
    for read in (parse, reward_names, lambda text: load_reward(text, "cpu")):
        with pytest.raises(SettingsError, match=f"{told}.*: expected a name, a sum such as") as error:
            read(text)
        assert "\n" not in str(error.value)


def test_a_nested_reward_is_loaded(tiny_clip_folder: Path) -> None:
    clip = str(tiny_clip_folder)
    reward = load_reward(f"min({clip}, {clip}) + 0.5 * min({clip}, {clip} + {clip})", "cpu")
    assert isinstance(reward, WeightedSum)
    assert reward.weights == (1.0, 0.5)
    first, second = reward.rewards
    assert isinstance(first, Minimum)
    assert isinstance(second, Minimum)
    assert isinstance(second.rewards[1], WeightedSum)
