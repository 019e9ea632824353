"""Text to image: a latent is optimised directly (arXiv 2503.09601, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rewardsds.priors.base import Prior
from rewardsds.runs.loop import Job
from rewardsds.runs.randomness import generator
from rewardsds.scenes.export import save_png
from rewardsds.scenes.image import LatentImageScene, LatentImageSettings
from rewardsds.tasks.parts import load_parts
from rewardsds.tasks.settings import TextToImageSettings


def build(settings: TextToImageSettings) -> Job:
    """The parts of a run, from resolved settings."""
    parts = load_parts(settings)
    scene = make_scene(settings, parts.prior, [settings.seed])

    def picture() -> Tensor:
        """(3, H, W)"""
        with torch.no_grad():
            return parts.prior.decode(scene.latents)[0, 0]

    def export(folder: Path) -> Sequence[str]:
        save_png(picture(), folder / "image.png")
        return ["image.png"]

    return Job(
        scene=scene,
        guidance=parts.guidance,
        prompts=[parts.prompt.text],
        seeds=[settings.seed],
        preview=picture,
        export=export,
        notes=parts.prompt.notes,
    )


def make_scene(settings: TextToImageSettings, prior: Prior, seeds: Sequence[int]) -> LatentImageScene:
    """One latent a seed, on the prior's device, side by side."""
    return LatentImageScene(
        prior.latent_shape,
        [generator(seed, "init") for seed in seeds],
        LatentImageSettings(learning_rate=settings.learning_rate, init_scale=settings.init_scale),
        prior.alphas_cumprod.device,
    )
