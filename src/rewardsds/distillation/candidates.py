"""Candidates: N noises for each item, and what each of them would become (its preview).

Axes: N candidates, B items, V views, D h w latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from rewardsds.distillation.noising import clean_from_noise, noise_levels
from rewardsds.priors.base import Condition, Prediction, Prior

NoiseKind = Literal["iid", "antithetic"]


class NoiseSource(Protocol):
    """(like, candidates, generators) → noise, as `draw_noise` has them: candidates drawn in a way of your own.

    Every candidate of it should be standard normal by itself, since that is what the prior was trained on.
    """

    def __call__(self, like: Tensor, candidates: int, generators: Sequence[torch.Generator], /) -> Tensor: ...


@dataclass(frozen=True)
class Candidates:
    """N noised copies of B latents at one timestep per item, and the prior's predictions for them.

    All that a loss needs to form its residual. A loss with a second prediction (an estimator's in VSD, that
    of another condition in Bridge, of another latent in DDS) makes it with the same noise and timesteps.

    prior: that made the prediction.
    clean: (B, V, D, h, w) latents z, without gradient.
    noise, noisy: (N, B, V, D, h, w) ε and z_t, which is α z + σ ε unless the loss has a noising of its own.
    timesteps: (B,) long.
    alpha, sigma: (B, 1, 1, 1, 1) √ᾱ_t and √(1 − ᾱ_t).
    prediction: ε̂ at (z_t, t), made in one network call.
    preview: (N, B, V, D, h, w) clean latents at the end of the rollout, where there was one.
    """

    prior: Prior
    clean: Tensor
    noise: Tensor
    noisy: Tensor
    timesteps: Tensor
    alpha: Tensor
    sigma: Tensor
    prediction: Prediction
    condition: Condition
    preview: Tensor | None = None

    def predicted_clean(self, guidance_scale: float) -> Tensor:
        """x̂0 of the prediction, (N, B, V, D, h, w)."""
        return clean_from_noise(self.noisy, self.prediction.guided(guidance_scale), self.alpha, self.sigma)

    def select(self, order: Tensor) -> Candidates:
        """The candidates that `order` (M, B) names for each item, in that order."""

        def take(values: Tensor) -> Tensor:
            index = order.reshape(*order.shape, *(1,) * (values.ndim - 2))
            return values.take_along_dim(index, dim=0)

        unconditional = self.prediction.unconditional
        return replace(
            self,
            noise=take(self.noise),
            noisy=take(self.noisy),
            prediction=Prediction(
                take(self.prediction.conditional), None if unconditional is None else take(unconditional)
            ),
            preview=None if self.preview is None else take(self.preview),
        )


def draw_noise(
    like: Tensor,
    candidates: int,
    generators: Sequence[torch.Generator],
    kind: NoiseKind | NoiseSource = "iid",
) -> Tensor:
    """Standard normal noise (N, B, V, D, h, w) for latents `like` (B, V, D, h, w).

    Item b draws from `generators[b]`, on the CPU, so that a seed means the same noise on every device.
    antithetic: candidates 2i and 2i + 1 are ε and −ε; with odd N the last stands alone.
    """
    if callable(kind):
        own: object = kind(like, candidates, generators)
        expected = (candidates, *like.shape)
        if not isinstance(own, Tensor) or tuple(own.shape) != expected:
            given = f"shape {tuple(own.shape)}" if isinstance(own, Tensor) else type(own).__name__
            raise ValueError(
                f"the noise source gave {given}: it must give a tensor of shape (candidates, items, views, D, h, w) = "
                f"{expected}"
            )
        return own.to(like)
    drawn_per_item = candidates if kind == "iid" else (candidates + 1) // 2
    noise = torch.stack(
        [torch.randn((drawn_per_item, *like.shape[1:]), generator=generator) for generator in generators],
        dim=1,
    )
    if kind == "antithetic":
        noise = torch.stack([noise, -noise], dim=1).flatten(0, 1)[:candidates]
    return noise.to(device=like.device, dtype=like.dtype)


def rollout(prior: Prior, candidates: Candidates, steps: int, guidance_scale: float) -> Tensor:
    """Previews: clean latents (N, B, V, D, h, w) after `steps` deterministic DDIM steps from t down to 0.

    The timesteps are spaced evenly, and the first step starts from the prediction that the candidates already
    hold, so that S steps cost S − 1 network calls; S = 1 is x̂0 of that prediction. (DDIM with η = 0:
    arXiv 2010.02502, eq. 12.)
    """
    clean = candidates.predicted_clean(guidance_scale)
    noise = candidates.prediction.guided(guidance_scale)
    for index in range(1, steps):
        timesteps = candidates.timesteps * (steps - index) // steps
        alpha, sigma = noise_levels(prior, timesteps)
        noisy = alpha * clean + sigma * noise
        prediction = prior.predict(
            noisy, timesteps, candidates.condition, unconditional=guidance_scale != 1.0
        )
        noise = prediction.guided(guidance_scale)
        clean = clean_from_noise(noisy, noise, alpha, sigma)
    return clean
