"""What every score-distillation loss is: the difference of two predictions."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from rewardsds.distillation.candidates import Candidates


class Loss(Protocol):
    """A residual for each candidate; the step weighs and sums them: g = ω(t) Σ_n w_n · residual_n.

    It is asked only for candidates whose weight is not zero, so a loss that calls a network (an estimator as
    in VSD, a second condition as in DDS and Bridge) does so for these alone.
    """

    @property
    def needs_unconditional(self) -> bool:
        """Whether the residual reads the unconditional branch."""
        ...

    def timestep_weight(self, candidates: Candidates) -> Tensor:
        """ω(t), (B, 1, 1, 1, 1)."""
        ...

    def residual(self, candidates: Candidates) -> Tensor:
        """(M, B, V, D, h, w) for the M candidates of each item that are given."""
        ...
