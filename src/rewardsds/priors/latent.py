"""What all latent diffusion and flow models share: autoencoder, cached texts, and one network call for all axes."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor

from rewardsds.priors.base import Condition, Prediction
from rewardsds.priors.parametrisation import (
    PARAMETRISATIONS,
    Parametrisation,
    network_input,
    to_noise,
)
from rewardsds.prompts import Texts

MISTRUSTED = "the scheduler's prediction_type is {!r}, it must be one of {}"


@dataclass(frozen=True)
class Read:
    """A text as the network takes it: states (T, C), and a summary (P,) where it wants one too."""

    states: Tensor
    pooled: Tensor | None = None


class LatentPrior(ABC):
    """A frozen prior in latent space: what a new kind of network has to say is how it reads texts and how it is called.

    Latents go in and come out as float32, whatever the network's precision. Weights never receive gradient.
    """

    tokenizer: Any
    """Of the first text encoder: which words does it know?"""

    def __init__(
        self,
        network: Any,
        vae: AutoencoderTiny | AutoencoderKL,
        alphas_cumprod: Tensor,
        prediction_type: Parametrisation,
    ) -> None:
        if prediction_type not in PARAMETRISATIONS:
            raise ValueError(MISTRUSTED.format(prediction_type, ", ".join(PARAMETRISATIONS)))
        self.prediction_type: Parametrisation = prediction_type
        self.network = frozen(network)
        # Convolutions of these sizes run 30% faster with channels last.
        self.vae = frozen(vae).to(memory_format=torch.channels_last)
        self._alphas_cumprod = alphas_cumprod.to(device=self._like.device, dtype=torch.float32)
        self._read: dict[tuple[str, bool], Read] = {}
        self._network_evaluations = 0

    @abstractmethod
    def _read_text(self, text: str, negative: bool) -> Read:
        """negative: whether it is the other branch's, which some models treat in a way of its own."""

    @abstractmethod
    def _call(self, latents: Tensor, timesteps: Tensor, text: Read, inputs: dict[str, Any]) -> Tensor:
        """The network's output (M, D, h, w) for latents (M, D, h, w) in its precision, timesteps (M,), texts (M, …).

        inputs: what `_inputs` gave.
        """

    def _inputs(self, condition: Condition, axes: tuple[int, int, int, int]) -> dict[str, Any]:
        """What a network takes beside, for axes (branches, N, B, V)."""
        return {}

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        size = int(self.network.config["sample_size"])
        return int(self.network.config["in_channels"]), size, size

    @property
    def image_size(self) -> int:
        blocks = self.vae.config.get("encoder_block_out_channels") or self.vae.config["block_out_channels"]
        return self.latent_shape[1] * 2 ** (len(blocks) - 1)

    @property
    def views(self) -> int:
        return 1

    @property
    def alphas_cumprod(self) -> Tensor:
        return self._alphas_cumprod

    @property
    def network_evaluations(self) -> int:
        return self._network_evaluations

    def encode(self, images: Tensor) -> Tensor:
        """(..., 3, H, W) in [0, 1] → scaled latents (..., D, h, w), with gradient; a posterior's mean."""
        flat = images.flatten(0, -4)
        if flat.shape[-2:] != (self.image_size, self.image_size):
            flat = F.interpolate(
                flat, (self.image_size, self.image_size), mode="bilinear", antialias=True, align_corners=False
            )
        encoded = self.vae.encode((2.0 * flat - 1.0).to(self.vae.dtype))
        latents = encoded.latents if isinstance(self.vae, AutoencoderTiny) else encoded.latent_dist.mode()  # pyright: ignore
        scaled = (latents.float() - self._shift) * self.vae.config["scaling_factor"]
        return scaled.unflatten(0, images.shape[:-3])

    def decode(self, latents: Tensor) -> Tensor:
        """(..., D, h, w) → (..., 3, H, W) clamped to [0, 1]; with gradient where the latents carry it."""
        flat = latents.flatten(0, -4) / self.vae.config["scaling_factor"] + self._shift
        images = self.vae.decode(flat.to(self.vae.dtype)).sample.float()  # pyright: ignore[reportAttributeAccessIssue]
        return (0.5 * images + 0.5).clamp(0.0, 1.0).unflatten(0, latents.shape[:-3])

    @property
    def _shift(self) -> float:
        """What SD3's and FLUX's autoencoders take off their latents."""
        return float(self.vae.config.get("shift_factor") or 0.0)

    def condition(
        self,
        prompts: Texts,
        negative_prompt: str | Texts = "",
        camera_to_world: Tensor | None = None,
    ) -> Condition:
        """B prompts → text states (B, T, C), or B times V → (B, V, T, C), kept in a cache.

        camera_to_world: (B, V, 4, 4) or None.
        """
        if camera_to_world is not None and (
            camera_to_world.ndim != 4
            or tuple(camera_to_world.shape[2:]) != (4, 4)
            or len(camera_to_world) != len(prompts)
        ):
            raise ValueError(
                f"camera_to_world must have shape (items, views, 4, 4) with {len(prompts)} items, "
                f"got {tuple(camera_to_world.shape)}"
            )
        negatives = [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else negative_prompt
        if len(negatives) != len(prompts):
            raise ValueError(
                f"{len(prompts)} prompts need as many negative prompts, or one, got {len(negatives)}"
            )
        wanted = _stack([self._of_item(text, False) for text in prompts])
        unwanted = _stack([self._of_item(text, True) for text in negatives])
        if wanted.states.ndim == 4 and unwanted.states.ndim == 3:
            views = wanted.states.shape[1]
            pooled = unwanted.pooled
            unwanted = Read(
                unwanted.states[:, None].expand(-1, views, -1, -1),
                None if pooled is None else pooled[:, None].expand(-1, views, -1),
            )
        extras = None
        if wanted.pooled is not None:
            extras = {"pooled": wanted.pooled, "negative_pooled": unwanted.pooled}
        return Condition(prompts, wanted.states, unwanted.states, camera_to_world, extras)

    def predict(
        self, noisy: Tensor, timesteps: Tensor, condition: Condition, unconditional: bool = True
    ) -> Prediction:
        """ε̂ for (N, B, V, D, h, w) at timesteps (N, B) or (B,): one network call for both guidance branches."""
        candidates, items, views = noisy.shape[:3]
        timesteps = timesteps.expand(candidates, items)
        alphas_cumprod = self.alphas_cumprod[timesteps][..., None, None, None, None]
        alpha, sigma = alphas_cumprod.sqrt(), (1.0 - alphas_cumprod).sqrt()
        states, pooled = [condition.embeddings], [(condition.extras or {}).get("pooled")]
        if unconditional:
            states.insert(0, condition.negative_embeddings)
            pooled.insert(0, (condition.extras or {}).get("negative_pooled"))
        axes = (len(states), candidates, items, views)
        dtype = self._like.dtype

        def flat(branches: list[Any], trailing: int) -> Tensor:
            text = torch.stack(branches)[:, None]
            text = text if text.ndim == 4 + trailing else text.unsqueeze(3)
            return text.expand(*axes, *text.shape[4:]).flatten(0, 3).to(dtype)

        output = self._call(
            network_input(noisy, alpha, sigma, self.prediction_type)
            .expand(len(states), *noisy.shape)
            .flatten(0, 3)
            .to(dtype),
            timesteps[None, :, :, None].expand(axes).flatten(),
            Read(flat(states, 2), None if pooled[-1] is None else flat(pooled, 1)),
            self._inputs(condition, axes),
        )
        self._network_evaluations += len(output)
        output = output.float().unflatten(0, axes)
        noise = to_noise(output, noisy, alpha, sigma, self.prediction_type)
        return Prediction(conditional=noise[-1], unconditional=noise[0] if unconditional else None)

    def unknown_words(self, prompt: str) -> list[str]:
        """Words that the tokenizer maps to its unknown token; byte-pair tokenizers know every word."""
        if not self.tokenizer.is_fast or self.tokenizer.unk_token_id is None:
            return []
        tokens = self.tokenizer(
            prompt, add_special_tokens=False, return_offsets_mapping=True, truncation=False
        )
        pieces = [
            prompt[start:end]
            for token, (start, end) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True)
            if token == self.tokenizer.unk_token_id
        ]
        words = [piece.strip().lower() for piece in pieces if re.search(r"\w", piece)]
        return list(dict.fromkeys(words))

    @property
    def _like(self) -> Tensor:
        """Has the network's device and dtype; asking the network itself goes through all of it, every time."""
        return next(self.network.parameters())

    def _of_item(self, text: str | Sequence[str], negative: bool) -> Read:
        if not isinstance(text, str):
            return _stack([self._of_item(one, negative) for one in text])
        if (text, negative) not in self._read:
            with torch.no_grad():
                self._read[text, negative] = self._read_text(text, negative)
        return self._read[text, negative]


def _stack(texts: Sequence[Read]) -> Read:
    pooled = [text.pooled for text in texts if text.pooled is not None]
    return Read(torch.stack([text.states for text in texts]), torch.stack(pooled) if pooled else None)


def frozen(module: Any) -> Any:
    return module.eval().requires_grad_(False)
