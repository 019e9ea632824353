"""SDS-Bridge: from what a picture looks like now to what it should look like (arXiv 2406.09417, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from rewardsds.distillation.candidates import Candidates
from rewardsds.distillation.losses.base import Loss
from rewardsds.distillation.losses.sds import SDS
from rewardsds.distillation.phrases import BRIDGE_SOURCE, BRIDGE_TARGET
from rewardsds.prompts import with_ending


@dataclass(frozen=True)
class Bridge(Loss):
    """residual = s · (ε̂(z_t; y + target) − ε̂(z_t; y + source)), the second stage.

    The source describes what plain SDS leads to, in place of the unconditional branch.
    """

    guidance_scale: float = 100.0
    source: str = BRIDGE_SOURCE
    target: str = BRIDGE_TARGET

    @property
    def needs_unconditional(self) -> bool:
        return False

    def residual(self, candidates: Candidates) -> Tensor:
        prior, condition = candidates.prior, candidates.condition
        both = prior.condition(
            with_ending(condition.prompts, self.target),
            with_ending(condition.prompts, self.source),
            condition.camera_to_world,
        )
        return self.guidance_scale * prior.predict(candidates.noisy, candidates.timesteps, both).direction


@dataclass(frozen=True)
class TwoStageBridge(Loss):
    """Plain SDS before `second_stage_from`, the bridge afterwards; stages of one optimisation, never mixed."""

    second_stage_from: int
    first: Loss = field(default_factory=SDS)
    second: Loss = field(default_factory=Bridge)

    def at(self, step: int) -> Loss:
        return self.first if step < self.second_stage_from else self.second

    def state_dict(self) -> Mapping[str, Tensor]:
        stages = {"first": self.first, "second": self.second}
        return {
            f"{name}.{key}": value
            for name, loss in stages.items()
            for key, value in loss.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, loss in {"first": self.first, "second": self.second}.items():
            own = {key[len(name) + 1 :]: value for key, value in state.items() if key.startswith(f"{name}.")}
            loss.load_state_dict(own)
