"""What every score-distillation loss is: the difference of two predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from typing_extensions import Self

from rewardsds.distillation.candidates import Candidates
from rewardsds.distillation.noising import ADD_NOISE, Noising


class Loss:
    """A residual for each candidate; the step weighs and sums them: g = ω(t) Σ_n w_n · residual_n.

    A new loss is a subclass that says `residual`, and what differs of the rest. The residual is asked only for
    candidates whose weight is not zero, so a loss that calls a network again (under another condition as in
    Bridge, for another latent as in DDS) does so for these alone.
    """

    @property
    def needs_unconditional(self) -> bool:
        """Whether the residual reads the unconditional branch."""
        return True

    @property
    def needs_preview(self) -> bool:
        """Whether the residual reads the candidates' previews."""
        return False

    @property
    def noising(self) -> Noising:
        """How latents become candidates: by adding noise, unless a loss inverts."""
        return ADD_NOISE

    def at(self, step: int) -> Self | Loss:
        """The loss of a step of the optimisation, where it has stages."""
        return self

    def timestep_weight(self, candidates: Candidates) -> Tensor:
        """ω(t), (B, 1, 1, 1, 1): σ_t² = 1 − ᾱ_t, DreamFusion's."""
        return candidates.sigma.square()

    def residual(self, candidates: Candidates) -> Tensor:
        """(M, B, V, D, h, w) for the M candidates of each item that are given."""
        raise NotImplementedError

    def adapt(self, candidates: Candidates, generators: Sequence[torch.Generator]) -> None:
        """What a loss with something to train does after a step; item b draws from `generators[b]`."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """What a loss has learned: a run that is resumed needs it."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes back what `state_dict` gave."""
