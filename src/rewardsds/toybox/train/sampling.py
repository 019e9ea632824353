"""Drawing pictures from the prior, to measure it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewardsds.priors.multiview import camera_embedding, enable_multiview_attention
from rewardsds.toybox.lexicon import words_of
from rewardsds.toybox.models import (
    LATENT_SHAPE,
    build_scheduler,
    decode_latents,
    load_autoencoder,
    load_text_encoder,
    load_unet,
)
from rewardsds.toybox.specification import KINDS
from rewardsds.toybox.train.clip import tokenise


@dataclass
class Sampler:
    """The trained prior's parts, and DDIM with classifier-free guidance over them."""

    unet: Any
    autoencoder: Any
    text_encoder: Any
    tokenizer: Any
    device: str = "cpu"

    @staticmethod
    def load(weights: Path, device: str = "cpu") -> Sampler:
        from transformers import PreTrainedTokenizerFast

        unet = load_unet(weights).to(device)
        enable_multiview_attention(unet)
        return Sampler(
            unet,
            load_autoencoder(weights).to(device),
            load_text_encoder(weights).to(device),
            PreTrainedTokenizerFast.from_pretrained(str(weights / "prior" / "tokenizer")),
            device,
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of toy that the prior has words for."""
        vocabulary = self.tokenizer.get_vocab()
        return tuple(kind for kind in KINDS if all(word in vocabulary for word in words_of(kind)))

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[str],
        generator: torch.Generator,
        camera_to_world: Tensor | None = None,
        steps: int = 30,
        guidance: float = 6.0,
        batch: int = 32,
    ) -> Tensor:
        """Pictures (M, V, 3, 64, 64) in [0, 1]; camera_to_world (M, V, 4, 4), or None for one view without a
        pose.
        """
        views = 1 if camera_to_world is None else camera_to_world.shape[1]
        pictures = []
        for start in range(0, len(prompts), batch):
            some = list(prompts[start : start + batch])
            if camera_to_world is None:
                cameras = torch.zeros(len(some), 16, device=self.device)
            else:
                cameras = (
                    camera_embedding(camera_to_world[start : start + batch]).flatten(0, 1).to(self.device)
                )
            pictures.append(self._sample(some, cameras, views, generator, steps, guidance))
        return torch.cat(pictures)

    def _sample(
        self,
        prompts: list[str],
        cameras: Tensor,
        views: int,
        generator: torch.Generator,
        steps: int,
        guidance: float,
    ) -> Tensor:
        tokens = tokenise(self.tokenizer, prompts + [""] * len(prompts)).to(self.device)
        states = self.text_encoder(tokens).last_hidden_state.repeat_interleave(views, dim=0)
        scheduler = build_scheduler()
        scheduler.set_timesteps(steps)
        latents = torch.randn(len(prompts) * views, *LATENT_SHAPE, generator=generator).to(self.device)
        for time in scheduler.timesteps:
            both = self.unet(
                latents.repeat(2, 1, 1, 1),
                time.to(self.device),
                states,
                class_labels=cameras.repeat(2, 1),
                cross_attention_kwargs={"views": views},
            ).sample
            conditional, unconditional = both.chunk(2)
            noise = unconditional + guidance * (conditional - unconditional)
            latents = scheduler.step(noise, time, latents).prev_sample
        return decode_latents(self.autoencoder, latents).unflatten(0, (-1, views)).cpu()
