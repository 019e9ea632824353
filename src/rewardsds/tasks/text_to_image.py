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
from rewardsds.tasks.settings import TextToImageSettings, slug


def build(settings: TextToImageSettings) -> Job:
    """The parts of a run, from resolved settings."""
    parts = load_parts(settings)
    items = [(text, seed) for text in parts.texts for seed in settings.seeds]
    scene = make_scene(settings, parts.prior, [seed for _, seed in items])

    def pictures() -> Tensor:
        """(B, 3, H, W)"""
        with torch.no_grad():
            return parts.prior.decode(scene.latents)[:, 0]

    def export(folder: Path) -> Sequence[str]:
        made = pictures()
        names = file_names(items)
        for name, picture in zip(names, made):
            save_png(picture, folder / name)
        return names

    return Job(
        scene=scene,
        guidance=parts.guidance,
        prompts=[text for text, _ in items],
        seeds=[seed for _, seed in items],
        preview=lambda: torch.cat(list(pictures()), dim=-1),
        export=export,
        notes=parts.notes,
    )


def file_names(items: Sequence[tuple[str, int]]) -> list[str]:
    """A name for the picture of each (prompt, seed): what tells them apart is in it."""
    if len(items) == 1:
        return ["image.png"]
    if len({text for text, _ in items}) == 1:
        return [f"image_{seed}.png" for _, seed in items]
    return [f"image_{index:03d}_{slug(text)}_{seed}.png" for index, (text, seed) in enumerate(items)]


def make_scene(settings: TextToImageSettings, prior: Prior, seeds: Sequence[int]) -> LatentImageScene:
    """One latent a seed, on the prior's device, side by side."""
    return LatentImageScene(
        prior.latent_shape,
        [generator(seed, "init") for seed in seeds],
        LatentImageSettings(learning_rate=settings.learning_rate, init_scale=settings.init_scale),
        prior.alphas_cumprod.device,
    )
