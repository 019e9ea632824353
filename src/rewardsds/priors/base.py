"""What every prior is: encode, decode, and predict noise for a condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from rewardsds.prompts import Texts


@dataclass(frozen=True)
class Prediction:
    """Noise predicted at one (z_t, t): both guidance branches of one network call, each (N, B, V, D, h, w).

    unconditional: the negative branch; None when it was not asked for.
    """

    conditional: Tensor
    unconditional: Tensor | None = None

    def guided(self, guidance_scale: float) -> Tensor:
        """Classifier-free guidance, one convention: uncond + s · (cond − uncond) (arXiv 2207.12598)."""
        if self.unconditional is None:
            if guidance_scale != 1.0:
                raise ValueError(
                    f"guidance scale {guidance_scale} needs the unconditional branch, which was not computed"
                )
            return self.conditional
        return self.unconditional + guidance_scale * self.direction

    @property
    def direction(self) -> Tensor:
        """cond − uncond: where the prompt leads, as an implicit classifier sees it."""
        if self.unconditional is None:
            raise ValueError(
                "the direction of guidance needs the unconditional branch, which was not computed"
            )
        return self.conditional - self.unconditional


@dataclass(frozen=True)
class Condition:
    """What the prior is asked for: B prompts, encoded, with the cameras they are seen from.

    prompts: B texts, or B times V where views have texts of their own.
    embeddings, negative_embeddings: (B, T, C) text states, or (B, V, T, C).
    camera_to_world: (B, V, 4, 4), or None for pictures without a pose.
    extras: whatever else a prior needs.
    """

    prompts: Texts
    embeddings: Tensor
    negative_embeddings: Tensor
    camera_to_world: Tensor | None = None
    extras: dict[str, Any] | None = None


class Prior(Protocol):
    """A frozen diffusion model in latent space. Axes: N candidates, B items, V views, D h w latent.

    Flattening N, B and V into the network's batch happens inside, and nowhere else.
    """

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(D, h, w)."""
        ...

    @property
    def image_size(self) -> int:
        """Height and width in pixels that `encode` expects (it resizes other sizes, with gradient)."""
        ...

    @property
    def views(self) -> int:
        """How many views of an item the prior sees together at most: 1 for a 2D prior, 4 for MVDream."""
        ...

    @property
    def alphas_cumprod(self) -> Tensor:
        """(T,) ᾱ_t on the prior's device, float32; α_t = √ᾱ_t, σ_t = √(1 − ᾱ_t)."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """(..., 3, H, W) in [0, 1] → scaled latents (..., D, h, w). Carries gradient."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(..., D, h, w) → (..., 3, H, W) clamped to [0, 1]."""
        ...

    def condition(
        self,
        prompts: Texts,
        negative_prompt: str | Texts = "",
        camera_to_world: Tensor | None = None,
    ) -> Condition:
        """Encodes texts (kept in a cache, so that asking again every step costs nothing).

        prompts: B texts, or B times V. negative_prompt: of the other branch, one text for all, or as many.
        """
        ...

    def predict(
        self, noisy: Tensor, timesteps: Tensor, condition: Condition, unconditional: bool = True
    ) -> Prediction:
        """ε̂ for latents (N, B, V, D, h, w) at timesteps (N, B) or (B,), both branches in one network call."""
        ...

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of the prompt that the text encoder has never seen, in order; [] for open vocabularies."""
        ...

    @property
    def network_evaluations(self) -> int:
        """How many images the denoising network has processed since loading (both branches count)."""
        ...
