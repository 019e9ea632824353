"""Drawing samples from a prior, the way that diffusion models are commonly used."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from rewardsds.priors.base import Prior


@torch.no_grad()
def sample(
    prior: Prior,
    prompts: Sequence[str],
    generator: torch.Generator,
    camera_to_world: Tensor | None = None,
    steps: int = 30,
    guidance_scale: float = 7.5,
    negative_prompt: str = "",
) -> Tensor:
    """Clean latents (B, V, D, h, w) for B prompts, by DDIM with η = 0 (arXiv 2010.02502, eq. 12).

    camera_to_world: (B, V, 4, 4), or None for one view without a pose. generator: of the initial noise, on the
    CPU. steps: network calls, evenly spaced from the last timestep down (arXiv 2305.08891, "trailing").
    """
    condition = prior.condition(prompts, negative_prompt, camera_to_world)
    views = 1 if camera_to_world is None else camera_to_world.shape[1]
    kept = prior.alphas_cumprod.double().cpu()
    betas = 1.0 - kept / torch.cat([kept.new_ones(1), kept[:-1]])
    scheduler = DDIMScheduler(
        num_train_timesteps=len(kept),
        trained_betas=betas.numpy(),
        clip_sample=False,
        set_alpha_to_one=False,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    latents = torch.randn((len(prompts), views, *prior.latent_shape), generator=generator)
    latents = latents.to(prior.alphas_cumprod.device)
    for timestep in scheduler.timesteps:
        timesteps = torch.full((len(prompts),), int(timestep), device=latents.device)
        prediction = prior.predict(latents[None], timesteps, condition, unconditional=guidance_scale != 1.0)
        noise = prediction.guided(guidance_scale)[0]
        latents = scheduler.step(noise, int(timestep), latents).prev_sample  # pyright: ignore[reportAttributeAccessIssue]
    return latents
