"""Structured candidates, an experiment: noises that are not independent, so that few of them say more.

N independent noises probe N of a latent's thousands of directions. Here candidates differ in fewer directions, or go on
from what won the step before. Each candidate by itself stays standard normal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.fft import dct
from torch import Tensor

from rewardsds.distillation.candidates import draw_noise


class SharedDetail:
    """One noise for all candidates of an item, but for its `low` × `low` lowest frequencies, which are each their own.

    low: of an orthonormal cosine transform (DCT-II) of every channel, whose coefficients are standard normal too.
    """

    def __init__(self, low: int) -> None:
        self.low = low

    def __call__(self, like: Tensor, candidates: int, generators: Sequence[torch.Generator]) -> Tensor:
        noise = draw_noise(like, candidates, generators)
        size = like.shape[-1]
        basis = torch.from_numpy(dct(np.eye(size), norm="ortho", axis=0)).to(noise)
        coefficients = basis @ noise @ basis.T
        own = torch.zeros(size, size, dtype=torch.bool)
        own[: self.low, : self.low] = True
        return basis.T @ torch.where(own, coefficients, coefficients[:1]) @ basis


class LastWinner:
    """The second half of the candidates is ρ · (the noise that won the last step) + √(1 − ρ²) · a fresh one.

    `remember` is told the weights (N, B) of a step after it.
    """

    def __init__(self, rho: float) -> None:
        self.rho = rho
        self.drawn: Tensor | None = None
        self.winner: Tensor | None = None

    def __call__(self, like: Tensor, candidates: int, generators: Sequence[torch.Generator]) -> Tensor:
        noise = draw_noise(like, candidates, generators)
        if self.winner is not None:
            half = candidates // 2
            noise[half:] = self.rho * self.winner + (1 - self.rho**2) ** 0.5 * noise[half:]
        self.drawn = noise
        return noise

    def remember(self, weights: Tensor) -> None:
        assert self.drawn is not None
        best = weights.argmax(dim=0).reshape(1, -1, *(1,) * (self.drawn.ndim - 2))
        self.winner = self.drawn.take_along_dim(best, dim=0)
