"""From settings to the parts that both tasks share: prior, reward, prompt and guidance."""

from __future__ import annotations

from dataclasses import dataclass

from rewardsds.distillation.guidance import RewardSDS
from rewardsds.distillation.losses.base import Loss
from rewardsds.distillation.losses.recon import Recon
from rewardsds.distillation.losses.sds import SDS
from rewardsds.distillation.schedules import AnnealedRange
from rewardsds.distillation.weighting import Best, BestWorst, Random, Softmax, Uniform, Weighting
from rewardsds.priors.base import Prior
from rewardsds.priors.load import load_prior
from rewardsds.rewards.base import Reward
from rewardsds.rewards.load import load_reward
from rewardsds.tasks.prompts import KnownPrompt, known_prompt
from rewardsds.tasks.settings import DistillationSettings


@dataclass(frozen=True)
class Parts:
    prior: Prior
    reward: Reward | None
    prompt: KnownPrompt
    guidance: RewardSDS


def load_parts(settings: DistillationSettings) -> Parts:
    """Loads the models of resolved settings. Without any step that needs it no reward is loaded."""
    prior = load_prior(settings.prior, settings.device)
    prompt = known_prompt(settings.prompt, prior, settings.prior)
    reward = load_reward(settings.reward, settings.device) if settings.uses_reward else None
    return Parts(prior, reward, prompt, make_guidance(settings, prior, reward))


def make_guidance(settings: DistillationSettings, prior: Prior, reward: Reward | None) -> RewardSDS:
    """The step that the settings describe."""
    weighting = make_weighting(settings) if settings.uses_reward else Uniform()
    return RewardSDS(
        prior,
        reward,
        candidates=settings.candidates if settings.uses_reward else 1,
        weighting=weighting,
        loss=make_loss(settings),
        rollout_steps=settings.rollout_steps,
        rollout_guidance_scale=settings.rollout_guidance_scale,
        reward_steps=settings.reward_steps,
        timesteps=AnnealedRange(
            t_min=(settings.t_range_start[0], settings.t_range_end[0]),
            t_max=(settings.t_range_start[1], settings.t_range_end[1]),
            steps=settings.t_anneal_steps or settings.steps,
        ),
        noise=settings.noise,
        negative_prompt=settings.negative_prompt,
        seed=settings.seed,
    )


def make_weighting(settings: DistillationSettings) -> Weighting:
    if settings.weighting == "none":
        return Uniform()
    if settings.weighting == "random":
        return Random()
    if settings.weighting == "softmax":
        return Softmax(settings.temperature)
    if settings.weighting == "best":
        return Best(settings.weighting_k)
    return BestWorst(settings.weighting_k)


def make_loss(settings: DistillationSettings) -> Loss:
    if settings.loss == "recon":
        return Recon(settings.guidance_scale, settings.guidance_rescale)
    return SDS(settings.guidance_scale)
