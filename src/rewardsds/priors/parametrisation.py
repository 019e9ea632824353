"""What a network predicts → the noise ε̂, which is all that losses and samplers know of.

Latents are z = α x0 + σ ε with α² + σ² = 1. Flow models are trained on (1 − s) x0 + s ε instead: the same latent times
α + σ, with s = σ / (α + σ). So they too are priors with a table of ᾱ, and nothing else differs for who uses them.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Parametrisation = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]
PARAMETRISATIONS: tuple[Parametrisation, ...] = get_args(Parametrisation)


def to_noise(output: Tensor, noisy: Tensor, alpha: Tensor, sigma: Tensor, kind: Parametrisation) -> Tensor:
    """ε̂ from what the network said about z.

    epsilon: ε̂ itself. v_prediction: α ε − σ x0 (arXiv 2202.00512, appendix D). sample: x̂0.
    flow_prediction: ε − x0 (arXiv 2209.03003), of the flow's latent, which is z / (α + σ).
    """
    if kind == "epsilon":
        return output
    if kind == "v_prediction":
        return alpha * output + sigma * noisy
    if kind == "sample":
        return (noisy - alpha * output) / sigma
    return (noisy + alpha * output) / (alpha + sigma)


def network_input(noisy: Tensor, alpha: Tensor, sigma: Tensor, kind: Parametrisation) -> Tensor:
    """z as the network was trained to see it."""
    return noisy / (alpha + sigma) if kind == "flow_prediction" else noisy


def flow_alphas_cumprod(shift: float = 1.0, timesteps: int = 1000) -> Tensor:
    """ᾱ (T,) of a flow whose times s = 1/T … 1 are shifted towards noise (arXiv 2403.03206, section 5.3.2).

    The last one would be pure noise, ᾱ = 0, in which no x̂0 can be read: it is kept a little below.
    """
    even = torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps
    s = (shift * even / (1 + (shift - 1) * even)).clamp_max(1 - 1e-4)
    return ((1 - s) ** 2 / ((1 - s) ** 2 + s**2)).float()


def flow_time(alpha: Tensor, sigma: Tensor) -> Tensor:
    """s in (0, 1), the time of a flow at which z has these levels."""
    return sigma / (alpha + sigma)
