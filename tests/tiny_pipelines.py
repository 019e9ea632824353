"""Random, tiny SDXL, Stable Diffusion 3 and FLUX in the diffusers layout, all parts of the real classes."""

from __future__ import annotations

import string
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
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LENGTH = 16


def clip_tokenizer() -> CLIPTokenizer:
    """Letters, and letters that end a word."""
    letters = list(string.ascii_lowercase)
    tokens = [*letters, *[f"{letter}</w>" for letter in letters], "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=LENGTH
    )


def t5_tokenizer() -> T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in string.ascii_lowercase]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=LENGTH)


def clip_config(width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=54,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        projection_dim=width,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )


def t5_encoder(width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=30, d_model=width, d_kv=8, d_ff=2 * width, num_layers=2, num_heads=2)
    )


def autoencoder(channels: int, **config: Any) -> AutoencoderKL:
    """Pictures of twice the latents' size."""
    sizes: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": channels,
        "norm_num_groups": 4,
    }
    return AutoencoderKL(**sizes, **config)


def save_sdxl(folder: Path, prediction_type: str = "epsilon") -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=24 + 32,
            attention_head_dim=(2, 4),  # pyright: ignore[reportArgumentType]
            norm_num_groups=8,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=32 + 6 * 8,
        )
        StableDiffusionXLPipeline(
            vae=autoencoder(4, scaling_factor=0.13025),
            text_encoder=CLIPTextModel(clip_config(24)),
            text_encoder_2=CLIPTextModelWithProjection(clip_config(32)),
            tokenizer=clip_tokenizer(),
            tokenizer_2=clip_tokenizer(),
            unet=unet,
            scheduler=EulerDiscreteScheduler(  # pyright: ignore[reportArgumentType]
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                prediction_type=prediction_type,
            ),
            add_watermarker=False,
        ).save_pretrained(folder)
    return folder


def save_sd3(folder: Path, shift: float = 3.0, t5: bool = True) -> Path:
    """t5: with the third text encoder, which many leave out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=56,
            caption_projection_dim=16,
            pooled_projection_dim=56,
            out_channels=4,
            pos_embed_max_size=8,
        )
        StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
            vae=autoencoder(4, scaling_factor=1.5305, shift_factor=0.0609),
            text_encoder=CLIPTextModelWithProjection(clip_config(24)),
            tokenizer=clip_tokenizer(),
            text_encoder_2=CLIPTextModelWithProjection(clip_config(32)),
            tokenizer_2=clip_tokenizer(),
            text_encoder_3=t5_encoder(56) if t5 else None,  # pyright: ignore[reportArgumentType]
            tokenizer_3=t5_tokenizer() if t5 else None,  # pyright: ignore[reportArgumentType]
        ).save_pretrained(folder)
    return folder


def save_flux(folder: Path, distilled: bool = True) -> Path:
    """distilled: with guidance as an input and a shift that depends on the size, as dev has; else as schnell."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        transformer = FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=24,
            guidance_embeds=distilled,
            axes_dims_rope=(4, 4, 8),
        )
        FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(
                shift=3.0 if distilled else 1.0, use_dynamic_shifting=distilled
            ),
            vae=autoencoder(
                4,
                scaling_factor=0.3611,
                shift_factor=0.1159,
                use_quant_conv=False,
                use_post_quant_conv=False,
            ),
            text_encoder=CLIPTextModel(clip_config(24)),
            tokenizer=clip_tokenizer(),
            text_encoder_2=t5_encoder(32),
            tokenizer_2=t5_tokenizer(),
            transformer=transformer,
        ).save_pretrained(folder)
    return folder
