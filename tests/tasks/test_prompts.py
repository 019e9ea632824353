"""Words that a prior does not know are named; what is known goes on."""

from __future__ import annotations

from typing import Any

import pytest

from oracles import two_colours
from rewardsds.errors import RewardsdsError
from rewardsds.tasks.prompts import known_prompt


class ToyboxPrior:
    """What is asked here of the toybox's prior: the words that it does not know."""

    def __init__(self, *unknown: str) -> None:
        self.unknown = unknown

    def unknown_words(self, prompt: str) -> list[str]:
        return [word for word in prompt.split() if word in self.unknown]


def toybox_prior(*unknown: str) -> Any:
    return ToyboxPrior(*unknown)


def test_a_prompt_that_is_known_stays_as_it_is() -> None:
    for prompt in ("a penguin with a brown bag in the snow", "A white car and a red sheep!"):
        assert known_prompt(prompt, toybox_prior(), "toybox").text == prompt
        assert known_prompt(prompt, toybox_prior(), "toybox").notes == ()


def test_unknown_words_are_named_and_left_out() -> None:
    known = known_prompt("a penguin and a purple dragon", toybox_prior(), "toybox")
    assert "the toybox does not know: dragon" in known.notes
    assert "--prior" in " ".join(known.notes)
    assert "penguin" in known.text
    assert "dragon" not in known.text


def test_toys_beyond_the_third_are_named_and_left_out() -> None:
    known = known_prompt("a red cube, two blue balls and a green cone", toybox_prior(), "toybox")
    assert any("left out" in note and "cone" in note for note in known.notes)
    assert "cone" not in known.text
    assert "cube" in known.text


@pytest.mark.parametrize(
    "prompt", ["a dragon", "red", "zweiundvierzig", "🦄", "a dragon in the snow", "the of"]
)
def test_nothing_known_is_an_error_that_names_the_way_out(prompt: str) -> None:
    with pytest.raises(RewardsdsError, match="nothing to make of") as error:
        known_prompt(prompt, toybox_prior(), "toybox")
    assert "--prior FOLDER_OR_HUB_ID" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_long_prompt_of_known_words_is_said_shorter() -> None:
    prompt = "a red cube next to a blue ball, " + "high quality, " * 20
    known = known_prompt(prompt, toybox_prior(), "toybox")
    assert len(known.text.split()) <= 22
    assert known.notes


def test_kinds_that_the_prior_was_not_trained_on_are_unknown() -> None:
    known = known_prompt("a red rocket and a blue ball", toybox_prior("rocket"), "toybox")
    assert known.notes[0] == "the toybox does not know: rocket"
    assert "rocket" not in known.text
    assert "blue ball" in known.text


def test_priors_without_a_grammar() -> None:
    """This prior knows the words dark, light and either."""
    assert known_prompt("dark", two_colours(), "my-prior").text == "dark"
    known = known_prompt("Dragon, dark dragon light", two_colours(), "my-prior")
    assert known.notes[0] == "the prior my-prior does not know: Dragon, dragon"
    assert known.text == ", dark light"
    with pytest.raises(RewardsdsError, match="does not know: a, dragon"):
        known_prompt("a dragon", two_colours(), "my-prior")
