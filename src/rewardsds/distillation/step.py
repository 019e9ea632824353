"""One step of reward-weighted score distillation (RewardSDS, arXiv 2503.09601, eq. 4).

    latents ─+ N noises→ candidates ─roll out→ previews ─reward→ rewards ─weigh→ weights w
    g = ω(t) · Σ_n w_n · residual_n

Axes: N candidates, B items (independent optimisations), V views of an item, D h w latent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rewardsds.distillation.candidates import Candidates, NoiseKind, NoiseSource, draw_noise, rollout
from rewardsds.distillation.losses.base import Loss
from rewardsds.distillation.noising import noise_levels
from rewardsds.distillation.schedules import draw_timesteps
from rewardsds.distillation.weighting import Weighting, weigh
from rewardsds.priors.base import Condition, Prior
from rewardsds.prompts import Texts
from rewardsds.rewards.base import Reward
from rewardsds.rewards.views import score


@dataclass(frozen=True)
class StepSettings:
    """How a step is made; see `RewardSDS` for what each of them means."""

    loss: Loss
    weighting: Weighting
    candidates: int
    rollout_steps: int
    rollout_guidance_scale: float
    noise: NoiseKind | NoiseSource = "iid"


@dataclass
class StepRecord:
    """What one step did.

    timesteps: (B,) long.
    rewards: (N, B), or None for plain SDS.
    weights: (N, B).
    gradient_norm: (B,) ‖g‖₂ of each item's latents.
    network_evaluations: images that the denoising network processed in this step, both branches counted.
    seconds: stage → seconds: encode, predict, rollout, decode, reward, loss; absent where not run.
    previews: (N, B, V, 3, H, W) in [0, 1], only on request.
    loss: (B,) ½‖g‖², a figure to show; score distillation has no loss whose value means more.
    """

    timesteps: Tensor
    rewards: Tensor | None
    weights: Tensor
    gradient_norm: Tensor
    network_evaluations: int
    seconds: dict[str, float]
    previews: Tensor | None
    loss: Tensor


def distil(
    prior: Prior,
    reward: Reward | None,
    settings: StepSettings,
    condition: Condition,
    *,
    images: Tensor | None = None,
    latents: Tensor | None = None,
    t_range: tuple[float, float],
    generators: Sequence[torch.Generator],
    previews: bool = False,
) -> tuple[Tensor, Tensor, StepRecord]:
    """One step: returns z (B, V, D, h, w), which carries gradient, the g it should receive, and a record.

    images: (B, V, 3, H, W) in [0, 1], or latents: (B, V, D, h, w); one of the two.
    reward: None is plain SDS: all candidates count alike and nothing is rolled out, decoded or scored.
    t_range: fractions of the prior's timesteps between which each item's t is drawn.
    """
    stopwatch = Stopwatch(prior.alphas_cumprod.device)
    evaluations_before = prior.network_evaluations

    with stopwatch("encode"):
        z = latents if images is None else prior.encode(images)
    assert z is not None

    with torch.no_grad():
        t = draw_timesteps(t_range, len(prior.alphas_cumprod), generators, z.device)
        alpha, sigma = noise_levels(prior, t)
        clean = z.detach().to(alpha.dtype)
        drawn = draw_noise(clean, settings.candidates, generators, settings.noise)

        # The only call at t: its branches serve rollout and loss, each with its own guidance scale.
        looked_at = reward is not None or previews
        rolled = looked_at or settings.loss.needs_preview
        unconditional = settings.loss.needs_unconditional or (
            rolled and settings.rollout_guidance_scale != 1.0
        )
        with stopwatch("predict"):
            noise, noisy = settings.loss.noising(prior, clean, drawn, t, condition)
            prediction = prior.predict(noisy, t, condition, unconditional=unconditional)
        candidates = Candidates(prior, clean, noise, noisy, t, alpha, sigma, prediction, condition)

        pictures = rewards = None
        if rolled:
            with stopwatch("rollout"):
                preview = rollout(prior, candidates, settings.rollout_steps, settings.rollout_guidance_scale)
                candidates = replace(candidates, preview=preview)
        if looked_at and candidates.preview is not None:
            with stopwatch("decode"):
                pictures = prior.decode(candidates.preview)
        if reward is None or pictures is None:
            weights = clean.new_full((settings.candidates, len(clean)), 1.0 / settings.candidates)
        else:
            with stopwatch("reward"):
                rewards = ask(reward, pictures, condition.prompts)
            weights = weigh(settings.weighting, rewards, generators)

        with stopwatch("loss"):
            # Only candidates that count: the largest weights first, as many as any item has.
            kept = int((weights != 0).sum(dim=0).max())
            order = weights.abs().argsort(dim=0, descending=True, stable=True)[:kept]
            chosen = candidates.select(order)
            w = weights.gather(0, order)[:, :, None, None, None, None]
            g = settings.loss.timestep_weight(chosen) * (w * settings.loss.residual(chosen)).sum(dim=0)
            settings.loss.adapt(chosen, generators)

    norm = g.flatten(1).norm(dim=1)
    record = StepRecord(
        timesteps=t,
        rewards=rewards,
        weights=weights,
        gradient_norm=norm,
        network_evaluations=prior.network_evaluations - evaluations_before,
        seconds=stopwatch.seconds,
        previews=pictures if previews else None,
        loss=0.5 * norm.square(),
    )
    return z, g, record


def ask(reward: Reward, pictures: Tensor, prompts: Texts) -> Tensor:
    """The rewards (N, B) in float32 beside the latents; a RewardError that names the reward where it has none."""
    return score(reward, pictures, prompts).detach()


@dataclass
class Stopwatch:
    """Seconds by stage; waits for a CUDA device at the end of each, since its work is queued."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
