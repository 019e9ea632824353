"""Variational score distillation (ProlificDreamer, arXiv 2305.16213, eq. 9 and algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from rewardsds.distillation.candidates import Candidates, draw_noise
from rewardsds.distillation.losses.base import Loss
from rewardsds.distillation.noising import ADD_NOISE
from rewardsds.distillation.schedules import draw_timesteps
from rewardsds.priors.base import Condition


class Estimator(Protocol):
    """ε̂_ψ, which learns what pictures the particles make; see `priors.lora.LoRAEstimator`."""

    def parameters(self) -> list[nn.Parameter]: ...

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor: ...

    def state_dict(self) -> Mapping[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class VSD(Loss):
    """residual = ε̂(z_t; y) − ε̂_ψ(z_t; y), with ψ trained on the items' latents after every step.

    All items of a batch are particles of one estimator: they should share a prompt. Items with prompts of their
    own, each with its own estimator, are separate runs.
    """

    def __init__(
        self,
        estimator: Estimator,
        guidance_scale: float = 7.5,
        learning_rate: float = 1e-4,
        updates: int = 1,
        t_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        """learning_rate: AdamW's, of the estimator. updates: its training steps after each step of the scene.
        t_range: fractions of the prior's timesteps between which its training draws.
        """
        if updates < 1:
            raise ValueError(f"the estimator of VSD needs at least 1 update a step, got {updates}")
        self.estimator = estimator
        self.guidance_scale = guidance_scale
        self.updates = updates
        self.t_range = t_range
        self.optimizer = torch.optim.AdamW(estimator.parameters(), lr=learning_rate, betas=(0.9, 0.99))

    @property
    def needs_unconditional(self) -> bool:
        return self.guidance_scale != 1.0

    def residual(self, candidates: Candidates) -> Tensor:
        own = self.estimator.predict(candidates.noisy, candidates.timesteps, candidates.condition)
        return candidates.prediction.guided(self.guidance_scale) - own

    def adapt(self, candidates: Candidates, generators: Sequence[torch.Generator]) -> None:
        """‖ε̂_ψ(z_t; y) − ε‖², at timesteps and with noises of its own (eq. 8)."""
        prior, clean = candidates.prior, candidates.clean
        for _ in range(self.updates):
            t = draw_timesteps(self.t_range, len(prior.alphas_cumprod), generators, clean.device)
            drawn = draw_noise(clean, 1, generators)
            noise, noisy = ADD_NOISE(prior, clean, drawn, t, candidates.condition)
            with torch.enable_grad():
                predicted = self.estimator.predict(noisy, t, candidates.condition)
                error = (predicted - noise).square().mean()
                self.optimizer.zero_grad(set_to_none=True)
                # Per number its gradient is tiny, in half precision zero; a power of two changes no digit of it.
                scale = 2.0 ** math.floor(math.log2(predicted.numel()))
                (scale * error).backward()
            for parameter in self.estimator.parameters():
                if parameter.grad is not None:
                    parameter.grad /= scale
            self.optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        state = {f"estimator/{key}": value for key, value in self.estimator.state_dict().items()}
        for index, parameter in enumerate(self.estimator.parameters()):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                state[f"optimizer/{index}/{key}"] = torch.as_tensor(value)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        own = "estimator/"
        self.estimator.load_state_dict(
            {key.removeprefix(own): value for key, value in state.items() if key.startswith(own)}
        )
        for index, parameter in enumerate(self.estimator.parameters()):
            prefix = f"optimizer/{index}/"
            moments = {
                key.removeprefix(prefix): value.clone()
                if value.ndim == 0
                else value.to(parameter.device, copy=True)
                for key, value in state.items()
                if key.startswith(prefix)
            }
            if moments:
                self.optimizer.state[parameter] = moments
