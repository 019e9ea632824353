"""`RewardSDS`: the step as a loss that works in any training loop, with any differentiable renderer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rewardsds.distillation import inputs
from rewardsds.distillation.candidates import NoiseKind, NoiseSource
from rewardsds.distillation.losses.base import Loss
from rewardsds.distillation.losses.sds import SDS
from rewardsds.distillation.schedules import FixedRange, TimestepSchedule
from rewardsds.distillation.step import StepRecord, StepSettings, distil
from rewardsds.distillation.weighting import BestWorst, Uniform, Weighting
from rewardsds.memory import move
from rewardsds.priors.base import Prior
from rewardsds.prompts import Texts
from rewardsds.rewards.base import Reward

DEFAULT_WEIGHTING = BestWorst(k=1)
DEFAULT_TIMESTEPS = FixedRange(0.02, 0.98)
FLAT_STEPS = 10
"""After so many steps on end with all but equal weights a user is told."""


class RewardSDS:
    """Reward-weighted score distillation (arXiv 2503.09601) as a loss.

        guidance = RewardSDS(prior, reward, candidates=4, weighting=BestWorst(k=1))
        loss = guidance(images, "a green apple")
        loss.backward()

    prior: a frozen diffusion model, see `load_prior`.
    reward: a function of (images, prompts), see `load_reward`; None for plain SDS (`weighting=Uniform()`).
    candidates: N, noises tried at every step.
    weighting: rewards → weights; `Uniform()` is plain SDS: one candidate, and no reward.
    loss: the residual; `SDS(guidance_scale)` unless given.
    guidance_scale: of the default loss.
    rollout_steps: S, DDIM steps from a noised candidate to its preview.
    rollout_guidance_scale: guidance of the previews.
    reward_steps: K; steps before K use the reward, later ones are plain SDS. None: all of them use it.
    timesteps: from which range each step draws its timestep.
    noise: "iid", "antithetic" for pairs ε, −ε, or a `NoiseSource` of your own.
    negative_prompt: text of the unconditional branch.
    seed: of the generators that are made when a call is not given its own; item b has seed + b.
    rest_reward: move the reward model to the CPU while it is not asked, after K steps.

    What is wrong with an argument, and settings that cannot work together, raise ValueError, in one line; values of
    images and latents are looked at in the first call alone. Words that the prior does not know are warned of, once a
    prompt; weights that are all but equal, so that the reward steers nothing, once.
    """

    record: StepRecord
    """What the last call did."""

    def __init__(
        self,
        prior: Prior,
        reward: Reward | None = None,
        *,
        candidates: int = 4,
        weighting: Weighting = DEFAULT_WEIGHTING,
        loss: Loss | None = None,
        guidance_scale: float = 100.0,
        rollout_steps: int = 1,
        rollout_guidance_scale: float = 7.5,
        reward_steps: int | None = None,
        timesteps: TimestepSchedule = DEFAULT_TIMESTEPS,
        noise: NoiseKind | NoiseSource = "iid",
        negative_prompt: str = "",
        seed: int = 0,
        rest_reward: bool = False,
    ) -> None:
        inputs.expect_parts(prior, reward, weighting, loss, timesteps, noise)
        inputs.expect_counts(1, candidates=candidates, rollout_steps=rollout_steps)
        inputs.expect_counts(0, reward_steps=0 if reward_steps is None else reward_steps, seed=seed)
        inputs.expect_numbers(guidance_scale=guidance_scale, rollout_guidance_scale=rollout_guidance_scale)
        inputs.expect_text(negative_prompt=negative_prompt)
        if candidates < weighting.minimum_candidates:
            raise ValueError(
                f"the weighting {weighting} needs at least {weighting.minimum_candidates} candidates, "
                f"got {candidates}: raise candidates or lower k"
            )
        if weighting.uses_rewards and reward is None and reward_steps != 0:
            raise ValueError(
                f"the weighting {weighting} needs a reward, and none was given: pass one (load_reward), "
                "or weighting=Uniform() for plain SDS"
            )
        self.prior = prior
        self.reward = reward
        self.reward_steps = reward_steps
        self.timesteps = timesteps
        self.negative_prompt = negative_prompt
        self.seed = seed
        self.settings = StepSettings(
            loss=SDS(guidance_scale) if loss is None else loss,
            weighting=weighting,
            candidates=candidates,
            rollout_steps=rollout_steps,
            rollout_guidance_scale=rollout_guidance_scale,
            noise=noise,
        )
        self._rest_reward = rest_reward
        self._reward_rests = False
        self._next_step = 0
        self._generators: list[torch.Generator] = []
        self._values_checked = False
        self._texts_seen: set[str] = set()
        self._flat_steps = 0

    def uses_reward(self, step: int) -> bool:
        """Whether the step is reward-weighted; if not, it is plain SDS with one candidate."""
        within = self.reward_steps is None or step < self.reward_steps
        return self.reward is not None and self.settings.weighting.uses_rewards and within

    def __call__(
        self,
        images: Tensor | None = None,
        prompt: str | Texts | None = None,
        *,
        latents: Tensor | None = None,
        cameras: Any = None,
        step: int | None = None,
        generators: Sequence[torch.Generator] | None = None,
        previews: bool = False,
    ) -> Tensor:
        """A scalar whose gradient with respect to the latents is g, and whose value is ½‖g‖² over all items.

        images: (3, H, W), (B, 3, H, W) or (B, V, 3, H, W) in [0, 1], with gradient; or
        latents: (D, h, w), (B, D, h, w) or (B, V, D, h, w), with gradient.
        prompt: one text for all items, B texts, or B times V texts for views that have prompts of their own
            (view-dependent prompting, arXiv 2209.14988, section 3.2); previews are scored with the same ones.
        cameras: camera-to-world (B, V, 4, 4) or (V, 4, 4), or an object that has them as `.camera_to_world`.
        step: number of this step, from 0; None counts the calls.
        generators: B CPU generators; item b draws from its own alone, so that a batch of B items draws what B
            single runs draw.
        previews: keep the decoded previews in `record.previews`.
        """
        if (images is None) == (latents is None):
            raise ValueError("give either images or latents, and not both")
        device = self.prior.alphas_cumprod.device
        images = None if images is None else inputs.images_of(images, device)
        latents = None if latents is None else inputs.latents_of(latents, self.prior, device)
        given = images if images is not None else latents
        assert given is not None
        batch, views = given.shape[:2]
        prompts = inputs.prompts_of(prompt, batch, views)
        camera_to_world = inputs.cameras_of(cameras, batch, views)
        step = self._next_step if step is None else step
        inputs.expect_counts(0, step=step)
        if generators is None:
            generators = self._own_generators(batch)
        else:
            inputs.expect_generators(generators, batch)
        if not self._values_checked:
            inputs.check_values(images, latents)
            self._values_checked = True
        self._name_unknown_words(prompts)
        self._next_step = step + 1

        rewarded = self.uses_reward(step)
        if self._rest_reward and self._reward_rests == rewarded:
            move(self.reward, given.device if rewarded else "cpu")
            self._reward_rests = not rewarded
        staged = replace(self.settings, loss=self.settings.loss.at(step))
        plain = replace(staged, candidates=1, weighting=Uniform())
        z, g, self.record = distil(
            self.prior,
            self.reward if rewarded else None,
            staged if rewarded else plain,
            self.prior.condition(prompts, self.negative_prompt, camera_to_world),
            images=images,
            latents=latents,
            t_range=self.timesteps(step),
            generators=generators,
            previews=previews,
        )
        if rewarded:
            self._tell_flat_weights()
        # Linear in z, so that its gradient is g to the last bit; the value is put in without gradient.
        linear = (z * g.to(z.dtype)).sum()
        return linear + (self.record.loss.sum() - linear).detach()

    def state_dict(self) -> dict[str, Tensor]:
        """What the loss has learned so far, an estimator for one; empty for most losses."""
        return dict(self.settings.loss.state_dict())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes back what `state_dict` gave."""
        self.settings.loss.load_state_dict(state)

    def _name_unknown_words(self, prompts: Texts) -> None:
        """Warns of what the prior does not know of a text, where it is asked for the first time."""
        for text in inputs.single_texts(prompts):
            if text not in self._texts_seen:
                self._texts_seen.add(text)
                unknown = self.prior.unknown_words(text)
                if unknown:
                    warnings.warn(
                        f"the prior does not know: {', '.join(unknown)}; say it in other words, or for open "
                        "vocabulary load another prior",
                        stacklevel=3,
                    )

    def _tell_flat_weights(self) -> None:
        """Warns once where for some steps on end the effective number of candidates, (Σ w)² / Σ w², is nearly N: N are
        paid for, and their mean is followed, as plain SDS does."""
        weights, rewards = self.record.weights, self.record.rewards
        if self._flat_steps >= FLAT_STEPS or rewards is None or len(weights) < 2:
            return
        effective = weights.sum(dim=0).square() / weights.square().sum(dim=0)
        self._flat_steps = self._flat_steps + 1 if bool((effective > 0.95 * len(weights)).all()) else 0
        if self._flat_steps == FLAT_STEPS:
            warnings.warn(
                f"the weights steer next to nothing: for {FLAT_STEPS} steps the weights of {len(weights)} candidates "
                f"have been all but equal (now {float(weights.min()):.3f} to {float(weights.max()):.3f}, of rewards "
                f"that differ by {float(rewards.std(dim=0).mean()):.1g}) with {self.settings.weighting}; lower "
                "softmax's temperature to about that difference, or take another weighting",
                stacklevel=3,
            )

    def _own_generators(self, batch: int) -> list[torch.Generator]:
        for item in range(len(self._generators), batch):
            self._generators.append(torch.Generator().manual_seed(self.seed + item))
        return self._generators[:batch]
