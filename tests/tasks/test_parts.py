"""What a user is told of the models that settings name, before a run begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rewardsds.priors.load import load_prior
from rewardsds.tasks.parts import anneal_notes, reward_notes
from rewardsds.tasks.presets import preset
from rewardsds.tasks.settings import TextTo3DSettings, TextToImageSettings
from rewardsds.tasks.text_to_3d import build, schedule_notes, told_views, view_notes


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


def test_schedules_that_do_not_fit_the_run_are_told() -> None:
    paper = TextTo3DSettings(prompt="a red cube", **preset("paper", TextTo3DSettings))
    assert anneal_notes(paper) == schedule_notes(paper) == []
    short = paper.model_copy(update={"steps": 500})
    [note] = anneal_notes(short)
    assert "need 8000 steps to t_range_end, and the run has 500" in note
    assert schedule_notes(short) == ["camera.milestones 5000 are never reached: the run has 500 steps"]
    assert anneal_notes(short.model_copy(update={"t_range_start": short.t_range_end})) == []
    assert anneal_notes(short.model_copy(update={"t_anneal_steps": None})) == []
    idle = TextTo3DSettings(prompt="a red cube", camera={"milestones": [5]})  # pyright: ignore[reportArgumentType]
    [note] = schedule_notes(idle)
    assert "camera.milestones 5 change nothing" in note
    assert "give 2 of either" in note


@pytest.mark.parametrize(
    "views, given, told",
    [
        (4, {"perp_neg": True, "back": " behind"}, ["back changes nothing", "perp-neg changes nothing"]),
        (4, {}, []),
        (1, {"use": "off", "perp_neg": True}, ["use is off"]),
        (1, {"perp_neg_weight": 3.0}, ["perp-neg-weight changes nothing without --view-prompts.perp-neg"]),
        (1, {"perp_neg": True, "perp_neg_weight": 3.0}, []),
    ],
)
def test_words_about_views_that_change_nothing_are_told(
    tiny_prior_folder: Path, tiny_single_view_prior_folder: Path, views: int, given: Any, told: list[str]
) -> None:
    prior = load_prior(tiny_prior_folder if views == 4 else tiny_single_view_prior_folder, "cpu")
    settings = TextTo3DSettings(prompt="a red car", view_prompts=given)
    notes = [
        note
        for note in view_notes(told_views(prior, settings), settings)
        if "does not know these words" not in note
    ]
    assert len(notes) == len(told)
    assert all(expected in note for expected, note in zip(told, notes, strict=True))


@pytest.mark.parametrize("steps, told", [(30, False), (60, False), (130, True), (400, True), (600, False)])
def test_opacities_that_cannot_come_back_are_told(steps: int, told: bool) -> None:
    resets = {"opacity_reset_every": 30}
    settings = TextTo3DSettings(prompt="a red cube", steps=steps, gaussians=resets)  # pyright: ignore
    assert ["the result will be faint" in note for note in schedule_notes(settings)] == [True] * told
    assert schedule_notes(settings.model_copy(update={"backbone": "nerf"})) == []


def test_eight_views_are_two_sets_from_all_sides_to_a_prior_of_four() -> None:
    """Views that attend to each other are those of one run of four: each of them surrounds the object."""
    camera = {"views": 8, "resolution": [8]}
    settings = TextTo3DSettings(prompt="a red cube", weighting="none", device="cpu", camera=camera)  # pyright: ignore
    job = build(settings.resolved())
    cameras = job.scene.sample_cameras([torch.Generator().manual_seed(0)], 0)
    assert cameras is not None
    places = cameras.camera_to_world[0, :, :2, 3].unflatten(0, (2, 4))
    torch.testing.assert_close(places.mean(1), torch.zeros(2, 2), atol=1e-5, rtol=0)
