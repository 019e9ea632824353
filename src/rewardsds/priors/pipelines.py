"""SDXL, Stable Diffusion 3 and FLUX as priors, from diffusers' pipelines, which know how to read their texts."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel
from typing_extensions import Self

from rewardsds.pretrained import (
    default_device_and_dtype,
    errors_alone,
    load_part,
    quiet_loading,
    read_tokenizer,
    require_vocabulary,
)
from rewardsds.priors.base import Condition
from rewardsds.priors.fit import require_text_alone
from rewardsds.priors.latent import LatentPrior, Read, downsampling, frozen
from rewardsds.priors.parametrisation import flow_alphas_cumprod, flow_time
from rewardsds.priors.schedules import diffusion_schedule, flow_shift

ENCODERS = {kind.__name__: kind for kind in (CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel)}
"""What `model_index.json` may name."""
FLUX_SIZE = 128
"""Height and width of FLUX's latents where none is said: 1024 pixels."""


class PipelinePrior(LatentPrior):
    """A prior whose parts and texts one of diffusers' pipelines keeps; text encoders may lack where it allows that."""

    pipeline_class: type[Any]
    network_class: type[Any]
    network_part = "transformer"
    encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    optional: tuple[str, ...] = ()
    """Parts that a folder may lack, all of them or none."""
    t5_length = 512
    """Tokens that a T5 is given, which by itself reads any number."""

    pipeline: Any

    @classmethod
    @abstractmethod
    def _check_schedule(cls, config: Any) -> None:
        """Raises ValueError where `scheduler_config.json` says another model's."""

    def _take(self, pipeline: Any) -> None:
        """Before `__init__`, which asks for the text encoders."""
        self.pipeline = pipeline
        self.tokenizer = pipeline.tokenizer
        for encoder in self.text_encoders:
            frozen(encoder)
        if self.tokenizer is None:
            return
        # The pipelines ask the tokenizers, which may not say how much their text encoders read.
        for tokenizer, length in zip(self.tokenizers, self.text_lengths, strict=True):
            tokenizer.model_max_length = length
        pipeline.tokenizer_max_length = self.tokenizer.model_max_length

    @property
    def text_encoders(self) -> Sequence[Any]:
        return [getattr(self.pipeline, name) for name in self._encoders_there]

    @property
    def tokenizers(self) -> Sequence[Any]:
        return [
            getattr(self.pipeline, name.replace("text_encoder", "tokenizer")) for name in self._encoders_there
        ]

    def _length(self, tokenizer: Any, encoder: Any) -> int:
        return self.t5_length if isinstance(encoder, T5EncoderModel) else super()._length(tokenizer, encoder)

    @property
    def _encoders_there(self) -> list[str]:
        return [name for name in self.encoders if getattr(self.pipeline, name, None) is not None]

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike[str],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        image_size: int | None = None,
        offload: bool = False,
    ) -> Self:
        """Load a folder in the diffusers layout, or a model of the Hugging Face hub by its id.

        device: CUDA where it is available unless said otherwise. dtype: float32 on the CPU, float16 on CUDA.
        image_size: pixels of its pictures; None: what the model was trained at. offload: see `rest_text_encoders`.
        """
        device, dtype = default_device_and_dtype(device, dtype)
        with quiet_loading():
            folder = Path(source).expanduser()
            left_out = [name for name in cls.optional if folder.is_dir() and not (folder / name).is_dir()]
            if left_out and left_out != list(cls.optional):
                there = [name for name in cls.optional if name not in left_out]
                raise ValueError(
                    f"{folder.absolute()} has {', '.join(there)} and lacks {', '.join(left_out)}: give both, or neither"
                )
            cls._check_schedule(DDPMScheduler.load_config(str(source), subfolder="scheduler"))
            options: dict[str, Any] = {"torch_dtype": dtype, "low_cpu_mem_usage": False}
            kinds = {cls.network_part: cls.network_class, "vae": AutoencoderKL}
            strict = {name: load_part(kind, source, name, **options) for name, kind in kinds.items()}
            for module in strict.values():
                # The loader may keep a file's precision. Past diffusers' own `to`, which warns of a dtype.
                nn.Module.to(module, device, dtype)
            for name, kind in cls._encoder_classes(source).items():
                if name not in left_out:
                    strict[name] = load_part(kind, source, name, dtype=dtype)
            index: Any = cls.pipeline_class.load_config(str(source))
            named = [name for name in index if name.startswith("tokenizer") and name not in left_out]
            try:
                pipeline = cls.pipeline_class.from_pretrained(
                    str(source), dtype=dtype, use_safetensors=True, **strict, **dict.fromkeys(left_out)
                )
            except ValueError:
                for name in named:  # transformers does not say whose vocabulary is missing
                    read_tokenizer(source, name)
                raise
        for name in named:
            if (tokenizer := getattr(pipeline, name, None)) is not None:
                require_vocabulary(tokenizer, f"{source}/{name}")
        prior = cls(pipeline, image_size=image_size)  # pyright: ignore[reportCallIssue]
        return prior.place_text_encoders(offload)

    @classmethod
    def _encoder_classes(cls, source: str | PathLike[str]) -> dict[str, type[Any]]:
        """Of the text encoders that a model has. Raises ValueError for one that is not known."""
        index: Any = cls.pipeline_class.load_config(str(source))
        named = {name: index[name][1] for name in cls.encoders if index.get(name) and index[name][1]}
        for name, kind in named.items():
            if kind not in ENCODERS:
                raise ValueError(f"the {name} of {source} is a {kind}: expected one of {', '.join(ENCODERS)}")
        return {name: ENCODERS[kind] for name, kind in named.items()}


class SDXLPrior(PipelinePrior):
    """Stable Diffusion XL (arXiv 2307.01952): two text encoders, and a condition on sizes, of whole pictures here."""

    pipeline_class = StableDiffusionXLPipeline
    network_class = UNet2DConditionModel
    network_part = "unet"

    @classmethod
    def _check_schedule(cls, config: Any) -> None:
        diffusion_schedule(config)

    def __init__(self, pipeline: StableDiffusionXLPipeline, image_size: int | None = None) -> None:
        self._take(pipeline)
        vae: Any = pipeline.vae
        if vae.dtype == torch.float16 and vae.config["force_upcast"]:
            vae.float()  # its activations overflow in half precision
        schedule: Any = diffusion_schedule(pipeline.scheduler.config)
        unet = pipeline.unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportArgumentType]
        super().__init__(unet, vae, schedule.alphas_cumprod, schedule.config["prediction_type"], image_size)

    def _check_fit(self) -> None:
        require_text_alone(self.network.config, self.text_encoders[-1].config.projection_dim)
        super()._check_fit()

    @property
    def text_width(self) -> int:
        return sum(int(encoder.config.hidden_size) for encoder in self.text_encoders)

    def _read_text(self, text: str, negative: bool) -> Read:
        with _untold_cuts():
            states, _, pooled, _ = self.pipeline.encode_prompt(
                text, device=self._like.device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )
        if negative and not text and self.pipeline.config["force_zeros_for_empty_prompt"]:
            states, pooled = torch.zeros_like(states), torch.zeros_like(pooled)
        return Read(states[0].float(), pooled[0].float())

    def _call(self, latents: Tensor, timesteps: Tensor, text: Read, inputs: dict[str, Any]) -> Tensor:
        added = {"text_embeds": text.pooled, "time_ids": inputs["sizes"]}
        return self.network(latents, timesteps, text.states, added_cond_kwargs=added).sample

    def _inputs(self, condition: Condition, axes: tuple[int, int, int, int]) -> dict[str, Any]:
        size = self.image_size
        like = self._like
        sizes = torch.tensor([size, size, 0, 0, size, size], device=like.device, dtype=like.dtype)
        return {"sizes": sizes.expand(math.prod(axes), -1)}


class SD3Prior(PipelinePrior):
    """Stable Diffusion 3 and 3.5 (arXiv 2403.03206): a flow, with up to three text encoders."""

    pipeline_class = StableDiffusion3Pipeline
    network_class = SD3Transformer2DModel
    optional = ("text_encoder_3", "tokenizer_3")
    t5_length = 256
    multiple = 2

    @classmethod
    def _check_schedule(cls, config: Any) -> None:
        flow_shift(config)

    def __init__(self, pipeline: StableDiffusion3Pipeline, image_size: int | None = None) -> None:
        self._take(pipeline)
        levels = flow_alphas_cumprod(flow_shift(pipeline.scheduler.config))
        super().__init__(pipeline.transformer, pipeline.vae, levels, "flow_prediction", image_size)

    @property
    def summary_width(self) -> int:
        return sum(int(encoder.config.projection_dim) for encoder in self.text_encoders[:2])

    def _check_fit(self) -> None:
        super()._check_fit()
        positions = int(self.network.config["pos_embed_max_size"])
        side = self._size // int(self.network.config["patch_size"])
        if side > positions:
            largest = positions * int(self.network.config["patch_size"]) * downsampling(self.vae)
            raise ValueError(
                f"this prior makes pictures of at most {largest} pixels, for which it has positions: got "
                f"{self.image_size}"
            )

    @property
    def text_width(self) -> int:
        """T5's, to which the others' states are filled up; without it, to what the network reads."""
        t5 = self.pipeline.text_encoder_3
        return int(self.network.config["joint_attention_dim"] if t5 is None else t5.config.d_model)

    def _read_text(self, text: str, negative: bool) -> Read:
        with _untold_cuts():
            states, _, pooled, _ = self.pipeline.encode_prompt(
                text, None, None, device=self._like.device, do_classifier_free_guidance=False
            )
        return Read(states[0].float(), pooled[0].float())

    @property
    def time_embedding(self) -> Any:
        return self.network.time_text_embed

    def _call(self, latents: Tensor, timesteps: Tensor, text: Read, inputs: dict[str, Any]) -> Tensor:
        times = 1000.0 * _times(self.alphas_cumprod, timesteps)
        return self.network(
            hidden_states=latents,
            timestep=times,
            encoder_hidden_states=text.states,
            pooled_projections=text.pooled,
        ).sample


class FluxPrior(PipelinePrior):
    """FLUX.1: a flow on packed 2 × 2 patches; dev takes a distilled guidance as an input, schnell takes none.

    Classifier-free guidance with a negative prompt works beside the distilled one, as diffusers' `true_cfg_scale`.
    """

    pipeline_class = FluxPipeline
    network_class = FluxTransformer2DModel
    multiple = 2

    @classmethod
    def _check_schedule(cls, config: Any) -> None:
        flow_shift(config, tokens=1)

    def __init__(self, pipeline: FluxPipeline, image_size: int | None = None) -> None:
        self._take(pipeline)
        size = image_size // downsampling(pipeline.vae) if image_size else FLUX_SIZE
        levels = flow_alphas_cumprod(flow_shift(pipeline.scheduler.config, (size // 2) ** 2))
        super().__init__(pipeline.transformer, pipeline.vae, levels, "flow_prediction", image_size)

    @property
    def summary_width(self) -> int:
        return int(self.pipeline.text_encoder.config.hidden_size)

    @property
    def text_width(self) -> int:
        return int(self.pipeline.text_encoder_2.config.d_model)

    def _own_size(self) -> int:
        return FLUX_SIZE

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return int(self.network.config["in_channels"]) // 4, self._size, self._size

    @property
    def time_embedding(self) -> Any:
        return self.network.time_text_embed

    def _read_text(self, text: str, negative: bool) -> Read:
        with _untold_cuts():
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
        factor = downsampling(self.vae)
        return FluxPipeline._unpack_latents(output, height * factor, width * factor, factor)


def _untold_cuts() -> AbstractContextManager[None]:
    """Without diffusers' words about texts that one of several text encoders does not read to the end."""
    from diffusers.utils import logging

    return errors_alone(logging)


def _times(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """Times s (M,) of a flow at timesteps (M,)."""
    levels = alphas_cumprod[timesteps]
    return flow_time(levels.sqrt(), (1.0 - levels).sqrt())
