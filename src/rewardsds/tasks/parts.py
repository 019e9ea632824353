"""From settings to the parts that both tasks share: prior, reward, prompt and guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rewardsds.distillation.guidance import RewardSDS
from rewardsds.distillation.losses import (
    CSD,
    ISM,
    NFSD,
    SDI,
    SDS,
    VSD,
    Bridge,
    Loss,
    Recon,
    Refine,
    TimestepWeighted,
    TwoStageBridge,
    WithRewardGradient,
)
from rewardsds.distillation.noising import Interval, Inversion
from rewardsds.distillation.phrases import NEGATIVE_PROMPT
from rewardsds.distillation.schedules import AnnealedRange
from rewardsds.distillation.weighting import (
    Advantage,
    Best,
    BestWorst,
    Random,
    Rank,
    Softmax,
    Uniform,
    Weighting,
)
from rewardsds.priors.base import Prior
from rewardsds.priors.latent import LatentPrior
from rewardsds.priors.load import load_prior
from rewardsds.priors.lora import LoRAEstimator
from rewardsds.rewards.base import Reward
from rewardsds.rewards.load import TOYBOX_REWARDS, load_reward, reward_names
from rewardsds.tasks.prompts import KnownPrompt, known_list, known_prompt
from rewardsds.tasks.settings import DistillationSettings, GenerationSettings, GraderSettings


@dataclass(frozen=True)
class Parts:
    prior: Prior
    reward: Reward | None
    prompts: tuple[KnownPrompt, ...]
    guidance: RewardSDS
    own_notes: Sequence[str]

    @property
    def texts(self) -> list[str]:
        """What the prior is asked for."""
        return [prompt.text for prompt in self.prompts]

    @property
    def notes(self) -> list[str]:
        """What the user should know about the prompts and the loss' own words, each thing once."""
        notes = [note for prompt in self.prompts for note in prompt.notes]
        return list(dict.fromkeys([*notes, *self.own_notes]))


PRECISIONS = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_parts(
    settings: GenerationSettings,
    look: Callable[[Reward], Reward] = lambda reward: reward,
    seen_by: Callable[[Prior], Prior] = lambda prior: prior,
) -> Parts:
    """Loads the models of resolved settings. Without any step that needs it no reward is loaded.

    look: how a task looks at its results with the reward. seen_by: how it asks the prior.
    """
    own = make_prior(settings)
    prompts = tuple(known_prompt(text, own, settings.prior) for text in settings.texts)
    reward = make_reward(settings)
    reward = None if reward is None else look(reward)
    loss = make_loss(settings, own, reward)
    prior = seen_by(own)
    notes = [
        *loss_notes(settings, own),
        *negative_notes(settings, own),
        *reward_notes(settings),
        *anneal_notes(settings),
    ]
    return Parts(prior, reward, prompts, make_guidance(settings, prior, reward, loss), notes)


def make_prior(settings: DistillationSettings) -> LatentPrior:
    """The prior, in the precision and within the memory that the settings say."""
    precision = PRECISIONS[settings.precision]
    prior = load_prior(settings.prior, settings.device, precision, settings.image_size, settings.offload)
    prior.in_chunks(settings.chunk)
    prior.distilled_guidance = settings.distilled_guidance
    if settings.attention_slicing:
        prior.slice_attention()
    if settings.vae_tiling:
        prior.tile_autoencoder()
    if settings.compile:
        prior.compile()
    return prior


def make_reward(settings: DistillationSettings) -> Reward | None:
    """The reward, or None where no step needs one."""
    if not settings.needs_reward:
        return None
    return load_reward(
        settings.reward,
        settings.device,
        PRECISIONS[settings.precision],
        settings.chunk,
        skip_failures=settings.reward_failures == "skip",
        grader=grader_options(settings.grader),
    )


def grader_options(grader: GraderSettings) -> dict[str, Any]:
    """What `GraderReward` takes beside its model."""
    return {
        "url": grader.url,
        "budget": grader.budget,
        "retries": grader.retries,
        "timeout": grader.timeout,
        "parallel": grader.parallel,
        "cache": grader.cache or Path.home() / ".cache" / "rewardsds" / "grader",
    }


def loss_notes(settings: GenerationSettings, prior: Prior) -> list[str]:
    """What the prior does not know of the words that a loss has of its own."""
    if settings.loss == "bridge":
        unknown = prior.unknown_words(f"{settings.bridge.source} {settings.bridge.target}")
        if unknown:
            return [
                f"the prior does not know these words of the bridge's source and target: {', '.join(unknown)}; "
                "give --bridge.source and --bridge.target in words that it knows"
            ]
    if settings.loss == "nfsd":
        unknown = prior.unknown_words(settings.nfsd.bad_quality)
        if unknown:
            return [
                f"the prior does not know what nfsd moves away from, it is left out: {', '.join(unknown)}; "
                "give --nfsd.bad-quality in words that it knows"
            ]
    return []


def known_negative(settings: DistillationSettings, prior: Prior) -> str:
    """The parts of the negative prompt that the prior knows every word of."""
    text = settings.negative_prompt
    return known_list(text, prior) if text and prior.unknown_words(text) else text


def negative_notes(settings: DistillationSettings, prior: Prior) -> list[str]:
    """What the prior does not know of a negative prompt of the user's own; that of a preset is left out in silence."""
    unknown = prior.unknown_words(settings.negative_prompt) if settings.negative_prompt else []
    if not unknown or settings.negative_prompt == NEGATIVE_PROMPT:
        return []
    return [
        f"the prior does not know these words of the negative prompt, whose parts are left out: {', '.join(unknown)}"
    ]


def anneal_notes(settings: DistillationSettings) -> list[str]:
    """Whether the range of timesteps is still on its way when the run ends."""
    length, steps = settings.t_anneal_steps or 0, settings.steps
    if length <= steps or settings.t_range_start == settings.t_range_end:
        return []
    return [
        f"the timesteps need {length} steps to t_range_end, and the run has {steps}: they stop on the way; "
        "give --t-anneal-steps, or None for the whole run"
    ]


def reward_notes(settings: DistillationSettings) -> list[str]:
    """Whether a reward is asked about what it has never seen."""
    if not settings.needs_reward or settings.prior == "toybox":
        return []
    return [
        f"the reward {name} is the toybox's, which has seen its toys alone: give a real one with "
        "--reward, for example a folder of ImageReward or openai/clip-vit-large-patch14"
        for name in reward_names(settings.reward)
        if name in TOYBOX_REWARDS
    ]


def make_guidance(
    settings: DistillationSettings, prior: Prior, reward: Reward | None, loss: Loss
) -> RewardSDS:
    """The step that the settings describe, with a loss."""
    weighting = make_weighting(settings) if settings.uses_reward else Uniform()
    return RewardSDS(
        prior,
        reward if settings.uses_reward else None,
        candidates=settings.candidates if settings.uses_reward else 1,
        weighting=weighting,
        loss=loss,
        rollout_steps=settings.rollout_steps,
        rollout_guidance_scale=settings.resolved_rollout_guidance_scale,
        reward_steps=settings.resolved_reward_steps,
        timesteps=AnnealedRange(
            t_min=(settings.t_range_start[0], settings.t_range_end[0]),
            t_max=(settings.t_range_start[1], settings.t_range_end[1]),
            steps=settings.t_anneal_steps or settings.steps,
        ),
        noise=settings.noise,
        negative_prompt=known_negative(settings, prior),
        seed=settings.seed,
        rest_reward=settings.offload and settings.reward_gradient == 0,
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
    if settings.weighting == "rank":
        return Rank()
    if settings.weighting == "advantage":
        return Advantage(settings.advantage_factor)
    return BestWorst(settings.weighting_k)


def make_loss(settings: GenerationSettings, prior: LatentPrior, reward: Reward | None) -> Loss:
    return as_set(_base_loss(settings, prior), settings, reward)


def as_set(loss: Loss, settings: DistillationSettings, reward: Reward | None) -> Loss:
    """The loss, with another ω(t) and with the reward's own gradient where the settings ask for it."""
    if settings.timestep_weight != "auto":
        loss = TimestepWeighted(loss, settings.timestep_weight)
    if settings.reward_gradient == 0:
        return loss
    assert reward is not None
    return WithRewardGradient(
        loss, reward, settings.reward_gradient, settings.resolved_rollout_guidance_scale
    )


def _base_loss(settings: GenerationSettings, prior: LatentPrior) -> Loss:
    scale = settings.resolved_guidance_scale
    if settings.loss == "sds":
        return SDS(scale)
    if settings.loss == "recon":
        return Recon(scale, settings.guidance_rescale)
    if settings.loss == "vsd":
        vsd = settings.resolved_vsd
        assert vsd.convolutions is not None
        assert vsd.learning_rate is not None
        estimator = LoRAEstimator(prior, vsd.rank, seed=settings.seed, convolutions=vsd.convolutions)
        return VSD(estimator, scale, vsd.learning_rate, vsd.updates, vsd.t_range)
    if settings.loss == "bridge":
        bridge = settings.bridge
        first_stage = round(bridge.first_stage * settings.steps)
        return TwoStageBridge(first_stage, SDS(scale), Bridge(scale, bridge.source, bridge.target))
    if settings.loss == "csd":
        return CSD(scale)
    if settings.loss == "nfsd":
        return NFSD(scale, known_list(settings.nfsd.bad_quality, prior), settings.nfsd.small)
    if settings.loss == "refine":
        return Refine()
    inversion = settings.inversion
    if settings.loss == "ism":
        return ISM(scale, Interval(inversion.interval, inversion.stride, inversion.eta))
    return SDI(scale, Inversion(inversion.steps, inversion.guidance_scale, inversion.eta))
