"""Plain sampling from the prior: what it makes of a prompt without any optimisation. The simplest rival."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewardsds.distillation.candidates import Candidates, draw_noise, rollout
from rewardsds.distillation.noising import noise_levels
from rewardsds.hardware import machine_record
from rewardsds.priors.base import Prior
from rewardsds.runs import atomic
from rewardsds.runs.folder import RunFolder, locked
from rewardsds.runs.randomness import deterministic, generator
from rewardsds.scenes.export import save_png
from rewardsds.tasks.parts import make_prior
from rewardsds.tasks.prompts import known_prompt
from rewardsds.tasks.settings import TextToImageSettings
from rewardsds.tasks.text_to_image import file_names


@torch.no_grad()
def sample(
    prior: Prior, prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance_scale: float
) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] of B prompts, by `steps` deterministic DDIM steps from pure noise.

    Item b is drawn from seed b alone. A step costs one call of the network, for both branches of the guidance.
    """
    drawing = [generator(seed, "sampling") for seed in seeds]
    like = torch.zeros((len(prompts), 1, *prior.latent_shape), device=prior.alphas_cumprod.device)
    timesteps = torch.full((len(prompts),), len(prior.alphas_cumprod) - 1, device=like.device)
    noise = draw_noise(like, 1, drawing)
    alpha, sigma = noise_levels(prior, timesteps)
    condition = prior.condition(prompts)
    prediction = prior.predict(noise, timesteps, condition, unconditional=guidance_scale != 1.0)
    start = Candidates(prior, like, noise, noise, timesteps, alpha, sigma, prediction, condition)
    clean = rollout(prior, start, steps, guidance_scale)[0]
    return prior.decode(clean)[:, 0].float().clamp(0, 1)


def make_samples(settings: TextToImageSettings, steps: int, folder: Path) -> None:
    """Writes the pictures of every prompt and seed, and `results.json` last of all, as a run does."""
    settings = settings.resolved()
    assert settings.threads is not None
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder), deterministic(settings.threads, settings.device):
        prior = make_prior(settings)
        items = [(text, seed) for text in settings.texts for seed in settings.seeds]
        asked = [known_prompt(text, prior, settings.prior).text for text, _ in items]
        began, before = time.perf_counter(), prior.network_evaluations
        scale = settings.resolved_rollout_guidance_scale
        pictures = sample(prior, asked, [seed for _, seed in items], steps, scale).cpu()  # waits for a GPU
        seconds = time.perf_counter() - began
        names = file_names(items)
        for name, picture in zip(names, pictures, strict=True):
            save_png(picture, folder / name)
        results: dict[str, Any] = {
            "files": names,
            "prompts": [text for text, _ in items],
            "steps": steps,
            "seconds": round(seconds, 3),
            "network_evaluations": prior.network_evaluations - before,
            "device": settings.device,
            "hardware": machine_record(settings.device),
            "scene_sha256": hashlib.sha256(pictures.numpy().tobytes()).hexdigest(),
        }
        atomic.write_text(RunFolder(folder).results, json.dumps(results, indent=2) + "\n")
