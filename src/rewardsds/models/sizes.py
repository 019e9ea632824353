"""Published priors in their true sizes without their weights: to plan memory for, and to time with random numbers."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from rewardsds.memory import PeakMemory
from rewardsds.pretrained import quiet_imports
from rewardsds.priors.base import Condition
from rewardsds.priors.diffusion import DiffusionPrior
from rewardsds.priors.latent import LatentPrior

META = torch.device("meta")


def autoencoder(channels: int = 4, **config: Any) -> AutoencoderKL:
    sizes: dict[str, Any] = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": channels,
        "sample_size": 512,
    }
    return AutoencoderKL(**sizes, **config)


def clip_text(width: int, layers: int, heads: int, activation: str = "gelu") -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            hidden_act=activation,
            projection_dim=width,
        )
    )


def t5_text() -> T5EncoderModel:
    """The encoder of T5 v1.1 XXL, a fifth of which transformers keeps in float32 where the rest is in float16."""
    encoder = T5EncoderModel(
        T5Config(
            d_model=4096,
            d_kv=64,
            d_ff=10240,
            num_layers=24,
            num_heads=64,
            vocab_size=32128,
            feed_forward_proj="gated-gelu",
        )
    )
    if encoder.dtype == torch.float16:
        for name, module in encoder.named_modules():
            if name.endswith(".wo"):
                module.float()
    return encoder


def betas(prediction_type: str = "epsilon") -> DDPMScheduler:
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,  # pyright: ignore[reportArgumentType]
    )


def stable_diffusion_2(sample_size: int = 64, **config: Any) -> DiffusionPrior:
    unet = UNet2DConditionModel(
        sample_size=sample_size,
        block_out_channels=(320, 640, 1280, 1280),
        attention_head_dim=[5, 10, 20, 20],  # pyright: ignore[reportArgumentType]
        cross_attention_dim=1024,
        use_linear_projection=True,
        **config,
    )
    text = clip_text(1024, 23, 16)
    return DiffusionPrior(unet, autoencoder(scaling_factor=0.18215), text, None, betas())


def mvdream() -> DiffusionPrior:
    return stable_diffusion_2(32, class_embed_type="projection", projection_class_embeddings_input_dim=16)


def sdxl() -> LatentPrior:
    with quiet_imports():
        from rewardsds.priors.pipelines import SDXLPrior
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 10],  # pyright: ignore[reportArgumentType]
        attention_head_dim=[5, 10, 20],  # pyright: ignore[reportArgumentType]
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return SDXLPrior(
        _parts(
            unet=unet,
            vae=autoencoder(scaling_factor=0.13025),
            text_encoder=clip_text(768, 12, 12, "quick_gelu"),
            text_encoder_2=clip_text(1280, 32, 20),
            scheduler=betas(),
        )
    )


def sd3_medium() -> LatentPrior:
    with quiet_imports():
        from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

        from rewardsds.priors.pipelines import SD3Prior
    transformer = SD3Transformer2DModel(
        sample_size=128,
        patch_size=2,
        in_channels=16,
        num_layers=24,
        attention_head_dim=64,
        num_attention_heads=24,
        joint_attention_dim=4096,
        caption_projection_dim=1536,
        pooled_projection_dim=2048,
        out_channels=16,
        pos_embed_max_size=192,
    )
    vae = autoencoder(
        16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False
    )
    return SD3Prior(
        _parts(
            transformer=transformer,
            vae=vae,
            text_encoder=clip_text(768, 12, 12, "quick_gelu"),
            text_encoder_2=clip_text(1280, 32, 20),
            text_encoder_3=t5_text(),
            scheduler=_flow(),
        )
    )


def flux_dev() -> LatentPrior:
    with quiet_imports():
        from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

        from rewardsds.priors.pipelines import FluxPrior
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=19,
        num_single_layers=38,
        attention_head_dim=128,
        num_attention_heads=24,
        joint_attention_dim=4096,
        pooled_projection_dim=768,
        guidance_embeds=True,
    )
    vae = autoencoder(
        16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False
    )
    return FluxPrior(
        _parts(
            transformer=transformer,
            vae=vae,
            text_encoder=clip_text(768, 12, 12, "quick_gelu"),
            text_encoder_2=t5_text(),
            scheduler=_flow(),
        )
    )


def _parts(**parts: Any) -> Any:
    """What a prior reads of a pipeline."""
    return SimpleNamespace(tokenizer=None, tokenizer_2=None, tokenizer_3=None, **parts)


def _flow() -> Any:
    """What a prior reads of a scheduler, which itself computes on the CPU whatever the default device."""
    return SimpleNamespace(config={"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})


PRIORS: dict[str, tuple[Callable[[], LatentPrior], tuple[int, int], int | None]] = {
    "sd-2.1-base": (stable_diffusion_2, (77, 1024), None),
    "mvdream": (mvdream, (77, 1024), None),
    "sdxl": (sdxl, (77, 2048), 1280),
    "sd-3-medium": (sd3_medium, (77 + 256, 4096), 2048),
    "flux-dev": (flux_dev, (512, 4096), 768),
}
"""By its name in the catalogue: how it is made, the shape of a text's states, and the width of its summary."""


def make(name: str, device: torch.device | str, dtype: torch.dtype) -> LatentPrior:
    """A published prior with random weights. It cannot read texts; see `condition`."""
    build = PRIORS[name][0]
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return build()
    finally:
        torch.set_default_dtype(before)


def condition(name: str, items: int, views: int, device: torch.device | str) -> Condition:
    """A condition of random numbers, with cameras where there are several views."""
    _, shape, width = PRIORS[name]
    generator = None if torch.device(device).type == "meta" else torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, generator=generator)

    extras = None
    if width is not None:
        extras = {"pooled": draw(items, width), "negative_pooled": draw(items, width)}
    cameras = torch.eye(4, device=device).expand(items, views, 4, 4) if views > 1 else None
    return Condition([""] * items, draw(items, *shape), draw(items, *shape), cameras, extras)


class FusedAttention(TorchFunctionMode):
    """Attention that allocates its result alone, as fused kernels on GPUs do; what it computes is not filled in."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query, _, value = args[:3] if len(args) >= 3 else (kwargs["query"], None, kwargs["value"])
            return query.new_empty((*query.shape[:-1], value.shape[-1]))
        return func(*args, **kwargs)


def weights_bytes(*modules: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for module in modules for value in module.parameters())


@torch.no_grad()
def step_bytes(
    name: str, candidates: int, chunk: int | None = None, dtype: torch.dtype = torch.bfloat16
) -> int:
    """The most that a reward-weighted step of one item holds beside the weights, without the reward model.

    Found by going through the step without numbers (on the meta device), with fused attention. chunk: pictures in a
    call of the network or the autoencoder; None: all.
    """
    prior = make(name, META, dtype)
    prior.in_chunks(chunk)
    views = prior.views
    given = condition(name, 1, views, META)
    size = prior.image_size
    with PeakMemory() as peak, FusedAttention(), META:
        noisy = torch.empty((candidates, 1, views, *prior.latent_shape))
        prediction = prior.predict(noisy, torch.full((1,), 500), given)
        prior.decode(prediction.guided(7.5))
        del prediction
        with torch.enable_grad():
            images = torch.empty(1, views, 3, size, size, requires_grad=True)
            prior.encode(images).sum().backward()
    return peak.bytes
