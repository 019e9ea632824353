"""Latent diffusion priors in the diffusers layout: Stable Diffusion, MVDream, and the embedded toybox."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor
from transformers import CLIPTextModel
from transformers.utils.hub import cached_file

from rewardsds.foreign import read_checkpoint
from rewardsds.pretrained import default_device_and_dtype, load_part, quiet_loading, read_tokenizer
from rewardsds.priors.base import Condition
from rewardsds.priors.fit import require_text_alone
from rewardsds.priors.latent import LatentPrior, Read, frozen
from rewardsds.priors.multiview import camera_embedding, enable_multiview_attention, is_multiview
from rewardsds.priors.original import latent_unet
from rewardsds.priors.schedules import diffusion_schedule

PORT = "MultiViewUNetModel"
"""How the community's port of MVDream calls its UNet, whose weights have their original names."""


class DiffusionPrior(LatentPrior):
    """A frozen latent diffusion model: UNet, autoencoder, text encoder and noise schedule.

    A UNet that is configured with a camera embedding (`class_embed_type="projection"` of 16 inputs) gets
    MVDream's multi-view attention, and sees `views` views of an item together; others see every view alone.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderTiny | AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: Any,
        scheduler: DDPMScheduler,
        views: int = 4,
        image_size: int | None = None,
    ) -> None:
        """views: of a multi-view UNet, how many it was trained on together; not read for other UNets.
        image_size: pixels of its pictures; None: what the UNet was trained at.
        """
        self.text_encoder = frozen(text_encoder)
        self.tokenizer = tokenizer
        schedule: Any = diffusion_schedule(scheduler.config)
        # With channels last the UNet's convolutions run 10% faster.
        unet = unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportArgumentType, reportCallIssue]
        super().__init__(unet, vae, schedule.alphas_cumprod, schedule.config["prediction_type"], image_size)
        self.multiview = is_multiview(unet)
        if self.multiview:
            enable_multiview_attention(unet)
        self._views = views if self.multiview else 1

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike[str],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        image_size: int | None = None,
        offload: bool = False,
    ) -> DiffusionPrior:
        """Load a folder in the diffusers layout, or a model of the Hugging Face hub by its id.

        device: CUDA where it is available unless said otherwise. dtype: float32 on the CPU, float16 on CUDA.
        offload: see `rest_text_encoders`.
        """
        device, dtype = default_device_and_dtype(device, dtype)
        name = str(source)
        options: dict[str, Any] = {"torch_dtype": dtype, "low_cpu_mem_usage": False}
        with quiet_loading():
            vae_config: Any = AutoencoderKL.load_config(name, subfolder="vae")
            vae_class = AutoencoderTiny if vae_config["_class_name"] == "AutoencoderTiny" else AutoencoderKL
            unet_config: Any = UNet2DConditionModel.load_config(name, subfolder="unet")
            if unet_config["_class_name"] == PORT:
                size = int(unet_config.get("image_size") or 32)  # of latents, in its words
                unet: Any = latent_unet(read_checkpoint(_weights(name, "unet")), size).to(dtype)  # pyright: ignore
            else:
                unet = load_part(UNet2DConditionModel, name, "unet", **options)
            vae = load_part(vae_class, name, "vae", **options)
            text_encoder = load_part(CLIPTextModel, name, "text_encoder", dtype=dtype)
            tokenizer = read_tokenizer(name, "tokenizer")
            schedule: Any = DDPMScheduler.load_config(name, subfolder="scheduler")
            scheduler = diffusion_schedule(schedule)  # before defaults fill up what it does not say
        prior = cls(
            unet.to(device), vae.to(device), text_encoder, tokenizer, scheduler, image_size=image_size
        )
        return prior.place_text_encoders(offload)

    def _check_fit(self) -> None:
        require_text_alone(self.network.config)
        super()._check_fit()

    @property
    def views(self) -> int:
        return self._views

    @property
    def text_encoders(self) -> Sequence[Any]:
        return [self.text_encoder]

    @property
    def tokenizers(self) -> Sequence[Any]:
        return [self.tokenizer]

    @property
    def text_width(self) -> int:
        return int(self.text_encoder.config.hidden_size)

    @property
    def sees_cameras(self) -> bool:
        return self.multiview

    def _call(self, latents: Tensor, timesteps: Tensor, text: Read, inputs: dict[str, Any]) -> Tensor:
        return self.network(latents, timesteps, text.states, **inputs).sample

    def _inputs(self, condition: Condition, axes: tuple[int, int, int, int]) -> dict[str, Any]:
        """Cameras, and how many views attend to each other."""
        if not self.multiview:
            return {}
        labels = self._camera_labels(condition, *axes[2:])
        return {
            "class_labels": labels.expand(*axes, -1).flatten(0, 3),
            "cross_attention_kwargs": {"views": self._joint_views(axes[3])},
        }

    def _read_text(self, text: str, negative: bool) -> Read:
        """Last hidden states (T, C) of a text padded to the tokenizer's length, as in Stable Diffusion."""
        length = self.text_lengths[0]
        tokens = self.tokenizer(
            text, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        states = self.text_encoder(tokens["input_ids"].to(self.text_encoder.device)).last_hidden_state
        return Read(states[0].float())

    def _joint_views(self, views: int) -> int:
        """How many of V views attend to each other: all of them, or each `self.views` in a row, which are best evenly
        spread themselves (`scenes.cameras.by_sets`)."""
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
        like = self._like
        if poses is None:
            if views > 1:
                raise ValueError(f"{views} views of an item need cameras: this prior is conditioned on poses")
            return torch.zeros((items, 1, 16), device=like.device, dtype=like.dtype)
        if tuple(poses.shape[:2]) != (items, views):
            raise ValueError(
                f"the latents are {items} items of {views} views, the cameras have shape {tuple(poses.shape)}"
            )
        return camera_embedding(poses.to(like.device, torch.float32)).to(like.dtype)


def _weights(source: str, part: str) -> Path:
    """The file of weights of a part, in a folder or from the hub."""
    names = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
    for name in names:
        found = cached_file(source, name, subfolder=part, _raise_exceptions_for_missing_entries=False)
        if found is not None:
            return Path(found)
    raise ValueError(f"{source} has no weights of its {part}: expected {part}/{names[0]}")
