"""A loss around another one: what it does not change is the other's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rewardsds.distillation.candidates import Candidates
from rewardsds.distillation.losses.base import Loss
from rewardsds.distillation.noising import Noising


@dataclass(frozen=True, eq=False)
class Wrapped(Loss):
    """All of it is that of `base`."""

    base: Loss

    @property
    def needs_unconditional(self) -> bool:
        return self.base.needs_unconditional

    @property
    def needs_preview(self) -> bool:
        return self.base.needs_preview

    @property
    def noising(self) -> Noising:
        return self.base.noising

    def at(self, step: int) -> Loss:
        base = self.base.at(step)
        return self if base is self.base else replace(self, base=base)

    def timestep_weight(self, candidates: Candidates) -> Tensor:
        return self.base.timestep_weight(candidates)

    def residual(self, candidates: Candidates) -> Tensor:
        return self.base.residual(candidates)

    def adapt(self, candidates: Candidates, generators: Sequence[torch.Generator]) -> None:
        self.base.adapt(candidates, generators)

    def state_dict(self) -> Mapping[str, Tensor]:
        return self.base.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.base.load_state_dict(state)
