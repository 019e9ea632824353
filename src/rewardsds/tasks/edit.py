"""Editing a picture: from what the source says to what the target says (arXiv 2503.09601, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rewardsds.distillation.losses import DDS
from rewardsds.rewards.compose import WeightedSum
from rewardsds.runs.loop import Job
from rewardsds.scenes.export import save_png
from rewardsds.scenes.image import LatentImageScene, LatentImageSettings
from rewardsds.scenes.pictures import read_picture
from rewardsds.tasks.parts import (
    anneal_notes,
    as_set,
    known_negative,
    make_guidance,
    make_prior,
    make_reward,
    negative_notes,
    reward_notes,
)
from rewardsds.tasks.prompts import known_prompt
from rewardsds.tasks.settings import EditSettings


@dataclass(frozen=True, eq=False)
class Closeness:
    """Minus the root of the mean squared difference to a picture (3, H, W), a mean over views: a reward."""

    picture: Tensor

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return -(images - self.picture.to(images)).square().mean(dim=(-3, -2, -1)).sqrt().mean(dim=2)


def build(settings: EditSettings) -> Job:
    """The parts of a run, from resolved settings."""
    prior = make_prior(settings)
    if prior.prediction_type == "flow_prediction":
        settings = settings.below(settings.flow_t_max)
    target = known_prompt(settings.target, prior, settings.prior)
    source = known_prompt(settings.source, prior, settings.prior)
    picture, notes = read_picture(settings.picture, prior.image_size)
    if target.text == source.text:
        notes.append("source and target say the same: nothing will change")
    before = picture[None, None].to(settings.device)
    with torch.no_grad():
        reference = prior.encode(before)
    scene = LatentImageScene.from_latents(
        reference, LatentImageSettings(learning_rate=settings.learning_rate)
    )

    reward = make_reward(settings)
    if reward is not None and settings.keep > 0:
        reward = WeightedSum(
            [reward, Closeness(before[0, 0])],
            [1.0, settings.keep],
            skip_failures=settings.reward_failures == "skip",
        )
    negative = known_negative(settings, prior)
    loss = DDS(reference, prior.condition([source.text], negative), settings.resolved_guidance_scale)
    loss = as_set(loss, settings, reward)
    told = [*negative_notes(settings, prior), *reward_notes(settings), *anneal_notes(settings)]

    def after() -> Tensor:
        """(3, H, W)"""
        with torch.no_grad():
            return prior.decode(scene.latents)[0, 0].cpu()

    def export(folder: Path) -> Sequence[str]:
        result = after()
        save_png(result, folder / "image.png")
        save_png(picture, folder / "before.png")
        save_png((result - picture).abs(), folder / "difference.png")
        return ["image.png", "before.png", "difference.png"]

    return Job(
        scene=scene,
        guidance=make_guidance(settings, prior, reward, loss),
        prompts=[target.text],
        seeds=[settings.seed],
        preview=after,
        export=export,
        notes=(*target.notes, *source.notes, *notes, *told),
    )
