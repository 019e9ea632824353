"""A prior whose score is known in closed form: for each prompt a mixture of isotropic Gaussians."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewardsds.priors.base import Condition, Prediction
from rewardsds.prompts import Texts


@dataclass(frozen=True)
class Mixture:
    """x0 ~ Σ_k weights_k · N(means_k, stds_k² I), for the latent of one view.

    means: (K, D, h, w), weights and stds: (K,), all float64.
    """

    means: Tensor
    stds: Tensor
    weights: Tensor

    @staticmethod
    def single(mean: Tensor, std: float) -> Mixture:
        one = torch.ones(1, dtype=torch.float64)
        return Mixture(mean[None].double(), std * one, one)

    def log_density(self, noisy: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """log p_t(z_t), z_t (..., D, h, w), scalar α, σ: noised components are N(α μ_k, (α² s_k² + σ²) I)."""
        variance = alpha**2 * self.stds**2 + sigma**2
        difference = noisy.unsqueeze(-4) - alpha * self.means
        dimension = self.means[0].numel()
        exponent = -0.5 * difference.square().sum(dim=(-3, -2, -1)) / variance
        normaliser = -0.5 * dimension * torch.log(2 * torch.pi * variance)
        return torch.logsumexp(self.weights.log() + normaliser + exponent, dim=-1)

    def noise(self, noisy: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """ε̂ = −σ ∇ log p_t, in closed form: responsibility times σ (z_t − α μ_k) / v_k, summed."""
        variance = (alpha**2 * self.stds**2 + sigma**2)[:, None, None, None]
        difference = noisy.unsqueeze(-4) - alpha * self.means
        exponent = -0.5 * difference.square() / variance - 0.5 * torch.log(variance)
        responsibility = torch.softmax(self.weights.log() + exponent.sum(dim=(-3, -2, -1)), dim=-1)
        return (responsibility[..., None, None, None] * sigma * difference / variance).sum(dim=-4)


class GaussianMixturePrior:
    """The `Prior` contract over mixtures, in float64. Latents are pictures: z = 2 x − 1, and D = 3.

    calls: what `predict` was asked, one (noisy, timesteps, unconditional) a call.
    """

    def __init__(self, mixtures: dict[str, Mixture], views: int = 4) -> None:
        self.mixtures = mixtures
        self.calls: list[tuple[Tensor, Tensor, bool]] = []
        self._latent_shape = tuple(next(iter(mixtures.values())).means.shape[1:])
        self._views = views
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
        self._alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
        self._network_evaluations = 0

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        channels, height, width = self._latent_shape
        return channels, height, width

    @property
    def image_size(self) -> int:
        return self._latent_shape[-1]

    @property
    def views(self) -> int:
        return self._views

    @property
    def alphas_cumprod(self) -> Tensor:
        return self._alphas_cumprod

    @property
    def network_evaluations(self) -> int:
        return self._network_evaluations

    def levels(self, timestep: int | Tensor) -> tuple[Tensor, Tensor]:
        """Scalar α_t, σ_t."""
        cumulative = self._alphas_cumprod[timestep]
        return cumulative.sqrt(), (1.0 - cumulative).sqrt()

    def encode(self, images: Tensor) -> Tensor:
        return 2.0 * images.double() - 1.0

    def decode(self, latents: Tensor) -> Tensor:
        return (0.5 * latents + 0.5).clamp(0.0, 1.0)

    def condition(
        self,
        prompts: Texts,
        negative_prompt: str | Texts = "",
        camera_to_world: Tensor | None = None,
    ) -> Condition:
        nothing = torch.zeros((len(prompts), 1, 1))
        negative = [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else negative_prompt
        return Condition(list(prompts), nothing, nothing, camera_to_world, {"negative": negative})

    def predict(
        self, noisy: Tensor, timesteps: Tensor, condition: Condition, unconditional: bool = True
    ) -> Prediction:
        self.calls.append((noisy.clone(), timesteps.clone(), unconditional))
        branches = 2 if unconditional else 1
        self._network_evaluations += branches * noisy.shape[0] * noisy.shape[1] * noisy.shape[2]
        timesteps = timesteps.expand(noisy.shape[:2])

        def alone(prompt: str | Sequence[str], views: Tensor, timestep: Tensor) -> Tensor:
            if isinstance(prompt, str):
                return self.mixtures[prompt].noise(views, *self.levels(timestep))
            return torch.cat([alone(text, view, timestep) for text, view in zip(prompt, views.split(1))])

        def branch(prompts: Texts) -> Tensor:
            rows = [
                torch.stack([alone(prompt, noisy[n, b], timesteps[n, b]) for b, prompt in enumerate(prompts)])
                for n in range(len(noisy))
            ]
            return torch.stack(rows)

        assert condition.extras is not None
        negative = condition.extras["negative"]
        return Prediction(branch(condition.prompts), branch(negative) if unconditional else None)

    def unknown_words(self, prompt: str) -> list[str]:
        known = {word for text in self.mixtures for word in text.split()}
        return [word for word in re.findall(r"\w+", prompt) if word not in known]


def two_colours(size: int = 2) -> GaussianMixturePrior:
    """Pictures of `size`²: "dark", "light" and "either" (a mixture of both), "" for anything."""

    def plain(level: float) -> Tensor:
        return torch.full((3, size, size), level, dtype=torch.float64)

    means = torch.stack([plain(-0.6), plain(0.5)])
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    return GaussianMixturePrior(
        {
            "dark": Mixture.single(plain(-0.6), 0.2),
            "light": Mixture.single(plain(0.5), 0.3),
            "either": Mixture(means, torch.tensor([0.2, 0.3], dtype=torch.float64), weights),
            "": Mixture.single(plain(0.0), 0.8),
        }
    )
