"""How clean latents become noisy ones: by adding noise, or by inverting the prior's sampler.

Axes: N candidates, B items, V views, D h w latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from rewardsds.priors.base import Condition, Prior


class Noising(Protocol):
    """(prior, z, drawn, t, condition) → (ε, z_t).

    z: (B, V, D, h, w). drawn: (N, B, V, D, h, w), standard normal. t: (B,). The results are shaped like `drawn`:
    the noise that a residual subtracts, and the latents that the prior is asked about.
    """

    def __call__(
        self, prior: Prior, clean: Tensor, drawn: Tensor, timesteps: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class AddNoise:
    """z_t = α_t z + σ_t ε with ε as drawn."""

    def __call__(
        self, prior: Prior, clean: Tensor, drawn: Tensor, timesteps: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        alpha, sigma = noise_levels(prior, timesteps)
        return drawn, alpha * clean + sigma * drawn


ADD_NOISE = AddNoise()


@dataclass(frozen=True)
class Inversion:
    """ε is what DDIM inversion of z under the prompt leads to, κ(z, y, t), mixed with the drawn noise.

        ε_n = √(1 − η²) κ(z, y, t) + η drawn_n        z_t = α_t z + σ_t ε_n

    The inversion (arXiv 2405.15891, eq. 10) is made once for all candidates, in `steps` network calls;
    eta is what they differ by, and what a weighting has to choose from. eta = 0 is the deterministic inversion.
    """

    steps: int = 10
    guidance_scale: float = -7.5
    eta: float = 0.3

    def __post_init__(self) -> None:
        _check(self.steps, self.eta)

    def __call__(
        self, prior: Prior, clean: Tensor, drawn: Tensor, timesteps: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        noise = _mix(
            invert(prior, clean, timesteps, condition, self.steps, self.guidance_scale), drawn, self.eta
        )
        alpha, sigma = noise_levels(prior, timesteps)
        return noise, alpha * clean + sigma * noise


@dataclass(frozen=True)
class Interval:
    """z_s by unconditional inversion, mixed with the drawn noise as in `Inversion`; from there one DDIM step up to z_t.

    The noise of the candidates is ε̂(z_s; ∅), so that ε̂(z_t; y) − ε compares the two ends of an interval
    (arXiv 2311.11284, eq. 12 to 15).

    interval, stride: t − s, and the inversion's steps below s, as fractions of the prior's timesteps.
    """

    interval: float = 0.05
    stride: float = 0.2
    eta: float = 0.3

    def __post_init__(self) -> None:
        if not (0 < self.interval < 1 and 0 < self.stride <= 1):
            raise ValueError(
                f"interval and stride are fractions of the timesteps, got {self.interval} and {self.stride}"
            )
        _check(1, self.eta)

    def __call__(
        self, prior: Prior, clean: Tensor, drawn: Tensor, timesteps: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        empty = prior.condition([""] * len(clean), camera_to_world=condition.camera_to_world)
        start = (timesteps - round(self.interval * len(prior.alphas_cumprod))).clamp_min(0)
        steps = max(1, -(-int(start.max()) // max(1, round(self.stride * len(prior.alphas_cumprod)))))
        mixed = _mix(invert(prior, clean, start, empty, steps, 1.0), drawn, self.eta)
        alpha, sigma = noise_levels(prior, start)
        noisy = alpha * clean + sigma * mixed
        noise = prior.predict(noisy, start, empty, unconditional=False).conditional
        return noise, ddim_step(prior, noisy, noise, start, timesteps)


def invert(
    prior: Prior, clean: Tensor, timesteps: Tensor, condition: Condition, steps: int, guidance_scale: float
) -> Tensor:
    """The noise (1, B, V, D, h, w) that DDIM inversion in `steps` even steps from 0 finds in z at t.

    It is the ε with z_t = α_t z + σ_t ε for the z_t where the inversion ends.
    """
    noisy, at = clean[None], timesteps * 0
    for index in range(steps):
        prediction = prior.predict(noisy, at, condition, unconditional=guidance_scale != 1.0)
        above = timesteps * (index + 1) // steps
        noisy = ddim_step(prior, noisy, prediction.guided(guidance_scale), at, above)
        at = above
    alpha, sigma = noise_levels(prior, timesteps)
    return (noisy - alpha * clean) / sigma


def ddim_step(prior: Prior, noisy: Tensor, noise: Tensor, timesteps: Tensor, to: Tensor) -> Tensor:
    """z_to from z_t and ε̂, without new noise (arXiv 2010.02502, eq. 12 with η = 0), up or down in t."""
    alpha, sigma = noise_levels(prior, timesteps)
    alpha_to, sigma_to = noise_levels(prior, to)
    return alpha_to * clean_from_noise(noisy, noise, alpha, sigma) + sigma_to * noise


def clean_from_noise(noisy: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x̂0 = (z_t − σ_t ε̂) / α_t."""
    return (noisy - sigma * noise) / alpha


def noise_levels(prior: Prior, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """α_t = √ᾱ_t and σ_t = √(1 − ᾱ_t) for timesteps (B,), each (B, 1, 1, 1, 1)."""
    alphas_cumprod = prior.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1, 1)
    return alphas_cumprod.sqrt(), (1.0 - alphas_cumprod).sqrt()


def _mix(inverted: Tensor, drawn: Tensor, eta: float) -> Tensor:
    return (1.0 - eta * eta) ** 0.5 * inverted + eta * drawn


def _check(steps: int, eta: float) -> None:
    if steps < 1:
        raise ValueError(f"an inversion needs at least 1 step, got {steps}")
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta is a share of drawn noise between 0 and 1, got {eta}")
