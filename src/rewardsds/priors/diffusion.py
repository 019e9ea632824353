"""Latent diffusion priors in the diffusers layout: Stable Diffusion, MVDream, and the embedded toybox."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel

from rewardsds.pretrained import default_device_and_dtype, quiet_loading
from rewardsds.priors.base import Condition, Prediction
from rewardsds.priors.multiview import camera_embedding, enable_multiview_attention, is_multiview
from rewardsds.prompts import Texts

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


class DiffusionPrior:
    """A frozen latent diffusion model: UNet, autoencoder, text encoder and noise schedule.

    A UNet that is configured with a camera embedding (`class_embed_type="projection"` of 16 inputs) gets
    MVDream's multi-view attention, and sees `views` views of an item together; others see every view alone.

    Latents go in and come out as float32, whatever the network's precision. Weights never receive gradient.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderTiny | AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: Any,
        scheduler: DDPMScheduler,
        views: int = 4,
    ) -> None:
        """views: of a multi-view UNet, how many it was trained on together; not read for other UNets."""
        self.prediction_type: str = scheduler.config["prediction_type"]
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"the scheduler's prediction_type is {self.prediction_type!r}, it must be one of "
                f"{', '.join(PREDICTION_TYPES)}"
            )
        # Convolutions of these sizes run 10% (UNet) to 30% (autoencoder) faster with channels last.
        self.unet = _frozen(unet).to(memory_format=torch.channels_last)
        self.vae = _frozen(vae).to(memory_format=torch.channels_last)
        self.text_encoder = _frozen(text_encoder)
        self.tokenizer = tokenizer
        self.multiview = is_multiview(unet)
        if self.multiview:
            enable_multiview_attention(unet)
        self._views = views if self.multiview else 1
        self._alphas_cumprod = scheduler.alphas_cumprod.to(device=unet.device, dtype=torch.float32)
        self._embeddings: dict[str, Tensor] = {}
        self._network_evaluations = 0

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike[str],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> DiffusionPrior:
        """Load a folder in the diffusers layout, or a model of the Hugging Face hub by its id.

        device: CUDA where it is available unless said otherwise. dtype: float32 on the CPU, float16 on CUDA.
        """
        device, dtype = default_device_and_dtype(device, dtype)
        name = str(source)
        # Only safetensors are read: no pickle.
        options: dict[str, Any] = {"torch_dtype": dtype, "use_safetensors": True, "low_cpu_mem_usage": False}
        with quiet_loading():
            vae_config: Any = AutoencoderKL.load_config(name, subfolder="vae")
            vae_class = AutoencoderTiny if vae_config["_class_name"] == "AutoencoderTiny" else AutoencoderKL
            unet: Any = UNet2DConditionModel.from_pretrained(name, subfolder="unet", **options)
            vae: Any = vae_class.from_pretrained(name, subfolder="vae", **options)
            text_encoder: Any = CLIPTextModel.from_pretrained(
                name, subfolder="text_encoder", dtype=dtype, use_safetensors=True
            )
            tokenizer = AutoTokenizer.from_pretrained(name, subfolder="tokenizer")
            scheduler: Any = DDPMScheduler.from_pretrained(name, subfolder="scheduler")
        return cls(unet.to(device), vae.to(device), text_encoder.to(device), tokenizer, scheduler)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        size = int(self.unet.config["sample_size"])
        return int(self.unet.config["in_channels"]), size, size

    @property
    def image_size(self) -> int:
        blocks = self.vae.config.get("encoder_block_out_channels") or self.vae.config["block_out_channels"]
        return self.latent_shape[1] * 2 ** (len(blocks) - 1)

    @property
    def views(self) -> int:
        return self._views

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
        scaled = latents.float() * self.vae.config["scaling_factor"]
        return scaled.unflatten(0, images.shape[:-3])

    def decode(self, latents: Tensor) -> Tensor:
        """(..., D, h, w) → (..., 3, H, W) clamped to [0, 1]; with gradient where the latents carry it."""
        flat = (latents.flatten(0, -4) / self.vae.config["scaling_factor"]).to(self.vae.dtype)
        images = self.vae.decode(flat).sample.float()  # pyright: ignore[reportAttributeAccessIssue]
        return (0.5 * images + 0.5).clamp(0.0, 1.0).unflatten(0, latents.shape[:-3])

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
        embeddings, negative = (
            torch.stack([self._embed_all(text) for text in texts]) for texts in (prompts, negatives)
        )
        if embeddings.ndim == 4 and negative.ndim == 3:
            negative = negative[:, None].expand_as(embeddings)
        return Condition(prompts, embeddings, negative, camera_to_world)

    def predict(
        self, noisy: Tensor, timesteps: Tensor, condition: Condition, unconditional: bool = True
    ) -> Prediction:
        """ε̂ for (N, B, V, D, h, w) at timesteps (N, B) or (B,): one UNet call for both guidance branches."""
        candidates, items, views = noisy.shape[:3]
        branches = [condition.negative_embeddings] if unconditional else []
        branches.append(condition.embeddings)
        axes = (len(branches), candidates, items, views)

        sample = noisy.expand(len(branches), *noisy.shape)
        timesteps = timesteps.expand(candidates, items)
        text = torch.stack(branches)[:, None]
        text = (text if text.ndim == 6 else text[:, :, :, None]).expand(*axes, *text.shape[-2:])
        inputs: dict[str, Any] = {}
        dtype = _first_parameter(self.unet).dtype
        if self.multiview:
            labels = self._camera_labels(condition, items, views)
            inputs["class_labels"] = labels.expand(*axes, -1).flatten(0, 3)
            inputs["cross_attention_kwargs"] = {"views": self._joint_views(views)}

        output = self.unet(
            sample.flatten(0, 3).to(dtype),
            timesteps[None, :, :, None].expand(axes).flatten(),
            text.flatten(0, 3).to(dtype),
            **inputs,
        ).sample
        self._network_evaluations += len(output)
        noise = self._as_noise(output.float().unflatten(0, axes), noisy, timesteps)
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

    def _embed_all(self, text: str | Sequence[str]) -> Tensor:
        """(T, C), or (V, T, C) for one text a view."""
        return self._embed(text) if isinstance(text, str) else torch.stack([self._embed(one) for one in text])

    def _embed(self, prompt: str) -> Tensor:
        """Last hidden states (T, C) of a prompt padded to the tokenizer's length, as in Stable Diffusion."""
        if prompt not in self._embeddings:
            length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
            tokens = self.tokenizer(
                prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            )
            whole = len(self.tokenizer(prompt, truncation=False, verbose=False)["input_ids"])
            if whole > length:
                warnings.warn(
                    f"the prompt has {whole} tokens and the prior reads {length}: its end is not seen",
                    stacklevel=3,
                )
            with torch.no_grad():
                states = self.text_encoder(tokens["input_ids"].to(self.text_encoder.device)).last_hidden_state
            self._embeddings[prompt] = states[0].float()
        return self._embeddings[prompt]

    def _joint_views(self, views: int) -> int:
        """How many of V views attend to each other: all of them, or groups of `self.views`."""
        if views <= self.views:
            return views
        if views % self.views == 0:
            return self.views
        raise ValueError(
            f"this prior sees {self.views} views together: give at most {self.views} views of an item, or a "
            f"multiple of {self.views}; got {views}"
        )

    def _camera_labels(self, condition: Condition, items: int, views: int) -> Tensor:
        """(B, V, 16); zeros for single pictures without a pose."""
        poses = condition.camera_to_world
        like = _first_parameter(self.unet)
        if poses is None:
            if views > 1:
                raise ValueError(f"{views} views of an item need cameras: this prior is conditioned on poses")
            return torch.zeros((items, 1, 16), device=like.device, dtype=like.dtype)
        if tuple(poses.shape[:2]) != (items, views):
            raise ValueError(
                f"the latents are {items} items of {views} views, the cameras have shape {tuple(poses.shape)}"
            )
        return camera_embedding(poses.to(like.device, torch.float32)).to(like.dtype)

    def _as_noise(self, output: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """What the UNet predicts → ε̂: ε itself, v = α ε − σ x0 (arXiv 2202.00512, appendix D), or x0."""
        if self.prediction_type == "epsilon":
            return output
        alphas_cumprod = self.alphas_cumprod[timesteps][..., None, None, None, None]
        alpha, sigma = alphas_cumprod.sqrt(), (1.0 - alphas_cumprod).sqrt()
        if self.prediction_type == "v_prediction":
            return alpha * output + sigma * noisy
        return (noisy - alpha * output) / sigma


def _first_parameter(module: Any) -> Tensor:
    """Has the module's device and dtype; asking the module itself goes through all of it, every time."""
    return next(module.parameters())


def _frozen(module: Any) -> Any:
    return module.eval().requires_grad_(False)
