"""Text to image: a latent is optimised directly (arXiv 2503.09601, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path

import torch
from torch import Tensor

from rewardsds.errors import SettingsError
from rewardsds.memory import free_memory, is_out_of_memory, largest_batch
from rewardsds.priors.base import Prior
from rewardsds.rewards.compose import without_graders
from rewardsds.runs.loop import Job
from rewardsds.runs.randomness import generator
from rewardsds.scenes.export import save_png
from rewardsds.scenes.image import LatentImageScene, LatentImageSettings
from rewardsds.scenes.pictures import read_picture
from rewardsds.tasks.parts import Parts, load_parts
from rewardsds.tasks.settings import TextToImageSettings, slug


def build(settings: TextToImageSettings) -> Job:
    """The parts of a run, from resolved settings."""
    parts = load_parts(settings)
    items = [(text, seed) for text in parts.texts for seed in settings.seeds]
    scene = make_scene(settings, parts.prior, [seed for _, seed in items])
    notes = list(parts.notes)
    remarks = [] if len(items) == 1 or settings.loss == "vsd" else [room(settings, parts, len(items))]

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

    def begin() -> None:
        if settings.init is not None:
            picture, own = read_picture(settings.init, parts.prior.image_size)
            notes.extend(own)
            begin_from(scene, parts.prior, picture)

    return Job(
        scene=scene,
        guidance=parts.guidance,
        prompts=[text for text, _ in items],
        seeds=[seed for _, seed in items],
        preview=lambda: torch.cat(list(pictures()), dim=-1),
        export=export,
        begin=begin,
        remarks=remarks,
        notes=notes,
    )


def begin_from(scene: LatentImageScene, prior: Prior, picture: Tensor) -> None:
    """Puts a picture (3, H, W) in [0, 1] under the scene's initial noise, every item alike."""
    with torch.no_grad():
        latents = prior.encode(picture[None, None].to(scene.latents.device))
        scene.latents.add_(latents.to(scene.latents))


def room(settings: TextToImageSettings, parts: Parts, items: int) -> str:
    """How many pictures fit into the memory that is free; raises SettingsError where so many do not.

    Two trial steps measure what a step takes, with one picture and with two. Graders, who are paid, are not asked.
    """
    prior = parts.prior
    guidance = copy(parts.guidance)
    guidance.reward = None if guidance.reward is None else without_graders(guidance.reward)
    device = prior.alphas_cumprod.device

    def trial(count: int) -> None:
        scene = make_scene(settings, prior, range(count))
        drawing = [generator(seed, "noise") for seed in range(count)]
        loss = guidance(latents=scene.latents, prompt=parts.texts[0], step=0, generators=drawing)
        loss.backward()

    available = free_memory(device)
    try:
        fit, needed = largest_batch(trial, available)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise SettingsError(
            "the GPU's memory does not hold a step with two pictures: make them in runs of their own, or lower chunk, "
            "precision or candidates"
        ) from error
    where = "GPU memory" if device.type == "cuda" else "memory"
    need, free = needed(items) / 2**30, available / 2**30
    if items > fit:
        raise SettingsError(
            f"{items} pictures at once need about {need:.1f} GiB of {where}, and {free:.1f} GiB are free: about {fit} "
            "fit; divide the prompts among several runs, or lower candidates"
        )
    return (
        f"{items} pictures at once need about {need:.1f} GiB of {where}; about {fit} fit into the {free:.1f} GiB "
        "that are free"
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
        LatentImageSettings(
            learning_rate=settings.resolved_learning_rate, init_scale=settings.resolved_init_scale
        ),
        prior.alphas_cumprod.device,
    )
