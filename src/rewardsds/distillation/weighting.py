"""From rewards to weights: the schemes of RewardSDS (arXiv 2503.09601, Table 5).

Every scheme keeps Σ_n |w_n| = 1 for each item, so that the size of the gradient, and with it the learning
rate, does not depend on the scheme. Weights depend on an item's own rewards alone: items never mix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewardsds.rewards.base import standardised


@dataclass(frozen=True)
class Weighting:
    """A function from rewards (N, B) to weights (N, B) with Σ_n |w_n| = 1.

    A new scheme is a subclass that says `__call__`, and `minimum_candidates` where it is not 1.
    """

    @property
    def minimum_candidates(self) -> int:
        """The smallest N that the scheme can weigh."""
        return 1

    @property
    def uses_rewards(self) -> bool:
        """False when the step needs no reward at all: it is then plain SDS with one candidate."""
        return True

    def __call__(self, rewards: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """rewards (N, B), finite → weights (N, B). `generators[b]` serves item b, where a scheme draws."""
        raise NotImplementedError


@dataclass(frozen=True)
class Uniform(Weighting):
    """1/N on every candidate: plain SDS, which `RewardSDS` runs with N = 1 and without a reward."""

    @property
    def uses_rewards(self) -> bool:
        return False

    def __call__(self, rewards: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        return torch.full_like(rewards, 1.0 / rewards.shape[0])


@dataclass(frozen=True)
class Random(Weighting):
    """1 on a random candidate: the control, which rolls out and scores like the rest."""

    def __call__(self, rewards: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        if generators is None or len(generators) != rewards.shape[1]:
            given = 0 if generators is None else len(generators)
            raise ValueError(
                f"random weighting needs one generator for each of {rewards.shape[1]} items, got {given}"
            )
        chosen = torch.stack([torch.randint(rewards.shape[0], (), generator=g) for g in generators])
        return torch.zeros_like(rewards).scatter(0, chosen.to(rewards.device)[None], 1.0)


@dataclass(frozen=True)
class Softmax(Weighting):
    """softmax(r / temperature) over an item's candidates."""

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"softmax weighting needs a temperature above 0, got {self.temperature}")

    def __call__(self, rewards: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        return torch.softmax(rewards / self.temperature, dim=0)


@dataclass(frozen=True)
class Best(Weighting):
    """1/k on each of the k best. Among equal rewards the earlier candidate counts as better."""

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"best-k weighting needs k of at least 1, got {self.k}")

    @property
    def minimum_candidates(self) -> int:
        return self.k

    def __call__(self, rewards: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        _check_enough(self, rewards)
        order = rewards.argsort(dim=0, descending=True, stable=True)
        return torch.zeros_like(rewards).scatter(0, order[: self.k], 1.0 / self.k)


@dataclass(frozen=True)
class BestWorst(Weighting):
    """+0.9/k on each of the k best and −0.1/k on each of the k worst; the paper's choice is k = 2."""

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"best/worst-k weighting needs k of at least 1, got {self.k}")

    @property
    def minimum_candidates(self) -> int:
        return 2 * self.k

    def __call__(self, rewards: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        _check_enough(self, rewards)
        order = rewards.argsort(dim=0, descending=True, stable=True)
        weights = torch.zeros_like(rewards).scatter(0, order[: self.k], 0.9 / self.k)
        return weights.scatter(0, order[-self.k :], -0.1 / self.k)


@dataclass(frozen=True)
class Rank(Weighting):
    """max(0, ln((N + 1) / 2) − ln rank), normalised: CMA-ES's recombination weights (arXiv 1604.00772, eq. 49).

    They depend on the order of the rewards alone, whatever their scale. Equal rewards rank by their index.
    """

    @property
    def minimum_candidates(self) -> int:
        return 2

    def __call__(self, rewards: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        _check_enough(self, rewards)
        count = rewards.shape[0]
        ranks = torch.arange(1, count + 1, device=rewards.device, dtype=rewards.dtype)
        by_rank = (math.log((count + 1) / 2) - ranks.log()).clamp_min(0)
        by_rank = (by_rank / by_rank.sum())[:, None].expand_as(rewards)
        order = rewards.argsort(dim=0, descending=True, stable=True)
        return torch.zeros_like(rewards).scatter(0, order, by_rank)


@dataclass(frozen=True)
class Advantage(Weighting):
    """(1 + factor · a) / N, normalised to Σ |w| = 1, with a the rewards standardised over an item's candidates.

    The mean of the residuals plus an evolution-strategies estimate of the reward's gradient (arXiv 1703.03864),
    whose variance antithetic noises lower; `factor` sets how much of the latter. Equal rewards weigh alike.
    """

    factor: float = 3.0

    def __post_init__(self) -> None:
        if self.factor < 0:
            raise ValueError(f"the factor of advantage weighting must be 0 or more, got {self.factor}")

    @property
    def minimum_candidates(self) -> int:
        return 2

    def __call__(self, rewards: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        _check_enough(self, rewards)
        weights = 1.0 + self.factor * standardised(rewards)
        return weights / weights.abs().sum(dim=0, keepdim=True)


def weigh(
    weighting: Weighting, rewards: Tensor, generators: Sequence[torch.Generator] | None = None
) -> Tensor:
    """The weights (N, B) of a weighting; ValueError where it gives none that are finite."""
    weights: object = weighting(rewards, generators)
    if (
        not isinstance(weights, Tensor)
        or weights.shape != rewards.shape
        or not bool(weights.isfinite().all())
    ):
        given = "what is no tensor" if not isinstance(weights, Tensor) else f"shape {tuple(weights.shape)}"
        if isinstance(weights, Tensor) and weights.shape == rewards.shape:
            given = "NaN or infinity"
        raise ValueError(
            f"the weighting {weighting} gave {given}, of rewards {tuple(rewards.shape)} between "
            f"{float(rewards.min()):.3g} and {float(rewards.max()):.3g}: weights are finite, one for each reward"
        )
    return weights.to(rewards)


def _check_enough(weighting: Weighting, rewards: Tensor) -> None:
    if rewards.shape[0] < weighting.minimum_candidates:
        raise ValueError(
            f"{weighting} needs at least {weighting.minimum_candidates} candidates, got {rewards.shape[0]}: "
            "raise the number of candidates or lower k"
        )
