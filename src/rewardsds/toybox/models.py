"""The toybox's networks: small ones, in the classes and file formats of the real checkpoints.

Everything is built from a configuration here and nowhere else; training fills the weights in, and `export`
functions write the folders that diffusers and transformers read:

    weights/prior/{unet,vae,text_encoder,tokenizer,scheduler}   weights/clip   weights/judge

All sizes are chosen for two CPU cores: one view costs the autoencoder at most 0.25 GFLOP a direction and the
UNet at most 0.5 GFLOP a call (a multiplication and an addition are two FLOP), and all weights in half
precision stay below 40 MB.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

IMAGE_SIZE = 64
LATENT_SHAPE = (4, 16, 16)
TEXT_LENGTH = 24
TEXT_WIDTH = 160

PIXEL_MEAN = (0.5, 0.5, 0.5)
PIXEL_STD = (0.25, 0.25, 0.25)
"""What the CLIP's images are normalised with; also written into its preprocessor_config.json."""


def build_autoencoder(width: int = 32) -> Any:
    """AutoencoderTiny from 3×64×64 in [−1, 1] to 4×16×16.

    No residual block works at full resolution, where a single convolution costs as much as sixteen at latent
    resolution; the ends of encoder and decoder are plain strided and upsampled convolutions.
    """
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * 3,
        decoder_block_out_channels=(width,) * 3,
        num_encoder_blocks=cast(Any, (0, 1, 4)),
        num_decoder_blocks=cast(Any, (4, 1, 0)),
        latent_channels=LATENT_SHAPE[0],
    )


def build_clip(
    tokenizer: Any, text_width: int = TEXT_WIDTH, vision_width: int = 160, projection: int = 160
) -> Any:
    """CLIPModel for 64 px images in patches of 8 and captions of at most 24 words.

    Raises ValueError for a tokenizer whose end token has id 2: transformers' CLIP then pools at the largest
    id instead of at the end of the caption.
    """
    from transformers import CLIPConfig, CLIPModel

    if tokenizer.eos_token_id == 2:
        raise ValueError(
            "the tokenizer's end token has id 2, which CLIP reads as a request to pool elsewhere; move it"
        )
    config = CLIPConfig(
        text_config={
            "vocab_size": max(tokenizer.get_vocab().values()) + 1,  # words may have been left out
            "hidden_size": text_width,
            "intermediate_size": 4 * text_width,
            "projection_dim": projection,
            "num_hidden_layers": 4,
            "num_attention_heads": text_width // 32,
            "max_position_embeddings": TEXT_LENGTH,
            "hidden_act": "gelu",
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": vision_width,
            "intermediate_size": 4 * vision_width,
            "projection_dim": projection,
            "num_hidden_layers": 4,
            "num_attention_heads": vision_width // 32,
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "hidden_act": "gelu",
        },
        projection_dim=projection,
    )
    return CLIPModel(config)


def build_unet(text_width: int = TEXT_WIDTH, channels: tuple[int, int, int] = (48, 96, 128)) -> Any:
    """UNet2DConditionModel over 4×16×16 latents; class labels are MVDream's cameras (arXiv 2308.16512).

    0.44 GFLOP a view, 5.4 million parameters: two cores train it for little more than an hour, in which time a
    larger network would see too few pictures, and every step of a distillation pays for its calls.

    Attention works at 8×8 and 4×4: at 16×16 it would take a third of the time, most of it for the 1024
    places of four views together. Heads are 32 wide (`attention_head_dim` is diffusers' name for the number
    of heads). Views attend to each other once `rewardsds.priors.multiview` has put its processors in.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT_SHAPE[1],
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=channels,
        layers_per_block=1,
        cross_attention_dim=text_width,
        attention_head_dim=cast(Any, (1, channels[1] // 32, channels[2] // 32)),
        use_linear_projection=True,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=16,
        norm_num_groups=16,
    )


def build_scheduler() -> Any:
    """Stable Diffusion's noise schedule: `scaled_linear` betas 0.00085 to 0.012 over 1000 steps,
    ε-prediction.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def count_flops(call: Callable[[], object]) -> int:
    """FLOP of one call (two per multiply-add), matrix products, convolutions and attention counted."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def folder_megabytes(folder: Path) -> float:
    """Size of all files below a folder in MB (10⁶ bytes)."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


# ------------------------------------------------------------------------------------------------- pixels


def normalise(images: Tensor) -> Tensor:
    """(..., 3, H, W) in [0, 1] → what the CLIP's vision tower takes."""
    mean = images.new_tensor(PIXEL_MEAN)[:, None, None]
    std = images.new_tensor(PIXEL_STD)[:, None, None]
    return (images - mean) / std


def encode_images(autoencoder: Any, images: Tensor) -> Tensor:
    """(M, 3, 64, 64) in [0, 1] → scaled latents (M, 4, 16, 16) with standard deviation about 1."""
    return autoencoder.encode(images * 2 - 1).latents * autoencoder.config.scaling_factor


def decode_latents(autoencoder: Any, latents: Tensor) -> Tensor:
    """Scaled latents (M, 4, 16, 16) → (M, 3, 64, 64) clamped to [0, 1]."""
    return (autoencoder.decode(latents / autoencoder.config.scaling_factor).sample * 0.5 + 0.5).clamp(0, 1)


# ------------------------------------------------------------------------------------------------- folders


def export_autoencoder(autoencoder: Any, weights: Path) -> None:
    _half(autoencoder).save_pretrained(weights / "prior" / "vae", safe_serialization=True)


def export_clip(clip: Any, tokenizer: Any, weights: Path) -> None:
    """weights/clip, and its text tower and tokenizer as weights/prior's.

    A prior that is trained already keeps the text tower that it was trained with: the CLIP may be trained on.
    """
    from transformers import CLIPTextModel

    clip = _half(clip)
    clip.save_pretrained(weights / "clip")
    tokenizer.save_pretrained(weights / "clip")
    if not (weights / "prior" / "unet").exists():
        text_encoder = CLIPTextModel(clip.config.text_config)
        text_encoder.load_state_dict(_text_tower(clip).state_dict())
        text_encoder.half().save_pretrained(weights / "prior" / "text_encoder")
        tokenizer.save_pretrained(weights / "prior" / "tokenizer")
    preprocessor = {
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(PIXEL_MEAN),
        "image_processor_type": "CLIPImageProcessor",
        "image_std": list(PIXEL_STD),
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": IMAGE_SIZE},
    }
    (weights / "clip" / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")


def _text_tower(clip: Any) -> nn.Module:
    return clip.text_model


def export_unet(unet: Any, weights: Path) -> None:
    """weights/prior/unet and its noise schedule, weights/prior/scheduler."""
    _half(unet).save_pretrained(weights / "prior" / "unet", safe_serialization=True)
    build_scheduler().save_pretrained(weights / "prior" / "scheduler")


def load_autoencoder(weights: Path) -> Any:
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    return _frozen(AutoencoderTiny.from_pretrained(_found(weights / "prior" / "vae")))


def load_clip(weights: Path) -> Any:
    from transformers import CLIPModel

    return _frozen(CLIPModel.from_pretrained(_found(weights / "clip")))


def load_text_encoder(weights: Path) -> Any:
    from transformers import CLIPTextModel

    return _frozen(CLIPTextModel.from_pretrained(_found(weights / "prior" / "text_encoder")))


def load_unet(weights: Path) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return _frozen(UNet2DConditionModel.from_pretrained(_found(weights / "prior" / "unet")))


def _found(folder: Path) -> str:
    if not folder.is_dir():
        raise ValueError(f"no trained model in {folder}: run the training stage that writes it first")
    return str(folder)


def _frozen(model: Any) -> Any:
    return model.float().eval().requires_grad_(False)


def _half(model: Any) -> Any:
    """A copy in half precision on the CPU; the model itself stays as it is."""
    import copy

    return copy.deepcopy(model).to("cpu").half().eval()
