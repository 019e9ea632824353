"""SDXL, Stable Diffusion 3 and FLUX as priors, from diffusers' pipelines, which know how to read their texts."""

from __future__ import annotations

import math
from os import PathLike
from typing import Any

import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor
from typing_extensions import Self

from rewardsds.pretrained import default_device_and_dtype, quiet_loading
from rewardsds.priors.base import Condition
from rewardsds.priors.latent import LatentPrior, Read, frozen
from rewardsds.priors.parametrisation import flow_alphas_cumprod, flow_time


class PipelinePrior(LatentPrior):
    """A prior whose parts and texts a pipeline of diffusers' keeps; text encoders may be missing where it allows that."""

    pipeline_class: type[Any]
    encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")

    pipeline: Any

    def _take(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.tokenizer = pipeline.tokenizer
        for name in self.encoders:
            if getattr(pipeline, name, None) is not None:
                frozen(getattr(pipeline, name))

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike[str],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Load a folder in the diffusers layout, or a model of the Hugging Face hub by its id.

        device: CUDA where it is available unless said otherwise. dtype: float32 on the CPU, float16 on CUDA.
        """
        device, dtype = default_device_and_dtype(device, dtype)
        with quiet_loading():
            pipeline = cls.pipeline_class.from_pretrained(
                str(source), torch_dtype=dtype, use_safetensors=True
            )
        return cls(pipeline.to(device))  # pyright: ignore[reportCallIssue]


class SDXLPrior(PipelinePrior):
    """Stable Diffusion XL (arXiv 2307.01952): two text encoders, and a condition on sizes, of whole pictures here."""

    pipeline_class = StableDiffusionXLPipeline

    def __init__(self, pipeline: StableDiffusionXLPipeline) -> None:
        schedule: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
        unet = pipeline.unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportArgumentType]
        super().__init__(unet, pipeline.vae, schedule.alphas_cumprod, schedule.config["prediction_type"])
        self._take(pipeline)

    def _read_text(self, text: str, negative: bool) -> Read:
        states, _, pooled, _ = self.pipeline.encode_prompt(
            text, device=self._like.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        if negative and not text and self.pipeline.config["force_zeros_for_empty_prompt"]:
            states, pooled = torch.zeros_like(states), torch.zeros_like(pooled)
        return Read(states[0].float(), pooled[0].float())

    def _call(self, latents: Tensor, timesteps: Tensor, text: Read, inputs: dict[str, Any]) -> Tensor:
        added = {"text_embeds": text.pooled, "time_ids": inputs["sizes"].expand(len(latents), -1)}
        return self.network(latents, timesteps, text.states, added_cond_kwargs=added).sample

    def _inputs(self, condition: Condition, axes: tuple[int, int, int, int]) -> dict[str, Any]:
        size = self.image_size
        like = self._like
        return {"sizes": torch.tensor([[size, size, 0, 0, size, size]], device=like.device, dtype=like.dtype)}


class SD3Prior(PipelinePrior):
    """Stable Diffusion 3 and 3.5 (arXiv 2403.03206): a flow, with up to three text encoders."""

    pipeline_class = StableDiffusion3Pipeline

    def __init__(self, pipeline: StableDiffusion3Pipeline) -> None:
        shift = float(pipeline.scheduler.config["shift"])
        super().__init__(pipeline.transformer, pipeline.vae, flow_alphas_cumprod(shift), "flow_prediction")
        self._take(pipeline)

    def _read_text(self, text: str, negative: bool) -> Read:
        states, _, pooled, _ = self.pipeline.encode_prompt(
            text, None, None, device=self._like.device, do_classifier_free_guidance=False
        )
        return Read(states[0].float(), pooled[0].float())

    def _call(self, latents: Tensor, timesteps: Tensor, text: Read, inputs: dict[str, Any]) -> Tensor:
        times = 1000.0 * _times(self.alphas_cumprod, timesteps)
        return self.network(
            hidden_states=latents,
            timestep=times.to(latents.dtype),
            encoder_hidden_states=text.states,
            pooled_projections=text.pooled,
        ).sample


class FluxPrior(PipelinePrior):
    """FLUX.1: a flow on packed 2 × 2 patches; dev takes a distilled guidance as an input, schnell takes none.

    Classifier-free guidance with a negative prompt works beside the distilled one, as diffusers' `true_cfg_scale`.
    """

    pipeline_class = FluxPipeline

    def __init__(
        self, pipeline: FluxPipeline, distilled_guidance: float = 3.5, image_size: int | None = None
    ) -> None:
        """distilled_guidance: of the dev models. image_size: pixels, a multiple of 16; None: the pipeline's own."""
        factor = pipeline.vae_scale_factor
        pixels = image_size or pipeline.default_sample_size * factor
        if pixels % (2 * factor):
            raise ValueError(f"FLUX makes pictures of a multiple of {2 * factor} pixels, got {pixels}")
        self._size = pixels // factor
        self.distilled_guidance = distilled_guidance
        shift = flux_shift(pipeline.scheduler.config, (self._size // 2) ** 2)
        super().__init__(pipeline.transformer, pipeline.vae, flow_alphas_cumprod(shift), "flow_prediction")
        self._take(pipeline)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return int(self.network.config["in_channels"]) // 4, self._size, self._size

    def _read_text(self, text: str, negative: bool) -> Read:
        states, pooled, _ = self.pipeline.encode_prompt(text, None, device=self._like.device)
        return Read(states[0].float(), pooled[0].float())

    def _call(self, latents: Tensor, timesteps: Tensor, text: Read, inputs: dict[str, Any]) -> Tensor:
        count, channels, height, width = latents.shape
        device, dtype = latents.device, latents.dtype
        guidance = None
        if self.network.config["guidance_embeds"]:
            guidance = torch.full((count,), self.distilled_guidance, device=device, dtype=torch.float32)
        output = self.network(
            hidden_states=FluxPipeline._pack_latents(latents, count, channels, height, width),
            timestep=_times(self.alphas_cumprod, timesteps).to(dtype),
            guidance=guidance,
            pooled_projections=text.pooled,
            encoder_hidden_states=text.states,
            txt_ids=torch.zeros(text.states.shape[1], 3, device=device, dtype=dtype),
            img_ids=FluxPipeline._prepare_latent_image_ids(count, height // 2, width // 2, device, dtype),
        ).sample
        factor = self.pipeline.vae_scale_factor
        return FluxPipeline._unpack_latents(output, height * factor, width * factor, factor)


def flux_shift(config: Any, tokens: int) -> float:
    """How far a FLUX scheduler shifts times for pictures of so many tokens; larger pictures more."""
    if not config.get("use_dynamic_shifting"):
        return float(config["shift"])
    low, high = config["base_image_seq_len"], config["max_image_seq_len"]
    slope = (config["max_shift"] - config["base_shift"]) / (high - low)
    return math.exp(config["base_shift"] + slope * (tokens - low))


def _times(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """Times s (M,) of a flow at timesteps (M,)."""
    levels = alphas_cumprod[timesteps]
    return flow_time(levels.sqrt(), (1.0 - levels).sqrt())


PIPELINES: dict[str, type[PipelinePrior]] = {
    "StableDiffusionXLPipeline": SDXLPrior,
    "StableDiffusion3Pipeline": SD3Prior,
    "FluxPipeline": FluxPrior,
}
"""By what `model_index.json` says."""
