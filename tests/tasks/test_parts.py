"""What a user is told of the models that settings name, before a run begins."""

from __future__ import annotations

import pytest

from rewardsds.tasks.parts import reward_notes
from rewardsds.tasks.settings import TextToImageSettings


@pytest.mark.parametrize(
    "reward, told",
    [
        ("clip", ["clip"]),
        ("clip + 0.5 * aesthetic", ["clip", "aesthetic"]),
        ("min(openai/clip-vit-large-patch14, image-reward)", ["image-reward"]),
        ("openai/clip-vit-large-patch14", []),
    ],
)
def test_who_asks_a_toybox_reward_about_other_pictures_is_told(reward: str, told: list[str]) -> None:
    settings = TextToImageSettings(prompt="a red cube", prior="some/prior", reward=reward)
    notes = [note.split(" is the toybox's")[0] for note in reward_notes(settings)]
    assert notes == [f"the reward {name}" for name in told]
    assert reward_notes(settings.model_copy(update={"prior": "toybox"})) == []
