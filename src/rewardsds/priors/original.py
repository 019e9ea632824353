"""MVDream from its authors' checkpoint (arXiv 2308.16512): latent-diffusion names → the stock diffusers models.

The multi-view UNet is Stable Diffusion 2.1's with a camera embedding beside the one of the timestep, and attention over
views, which has no weights of its own. So the stock `UNet2DConditionModel` takes all of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from rewardsds.foreign import count, load_strictly, renamed, split_attention, split_off

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.model."
HEAD = 64
"""Channels of an attention head, in the UNet and in OpenCLIP's text tower."""
SCALING = 0.18215
"""Of Stable Diffusion's latents."""
GROUPS = 32


def mvdream_parts(
    state: Mapping[str, Tensor], image_size: int = 256
) -> tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel, DDPMScheduler]:
    """UNet, autoencoder, text encoder and noise schedule of `sd-v2.1-base-4view.pt` and its like.

    image_size: pixels it was trained at. Raises ValueError where a weight is missing, too many or of another shape.
    """
    missing = [prefix for prefix in (UNET, VAE, TEXT) if not any(name.startswith(prefix) for name in state)]
    if missing:
        raise ValueError(f"this is no checkpoint of MVDream: nothing in it begins with {', '.join(missing)}")
    vae = autoencoder(split_off(state, VAE))
    factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
    unet = multiview_unet(split_off(state, UNET), image_size // factor)
    return unet, vae, open_clip_text_encoder(split_off(state, TEXT)), noise_schedule()


def noise_schedule() -> DDPMScheduler:
    """Stable Diffusion's, for noise prediction."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
    )


def multiview_unet(state: Mapping[str, Tensor], sample_size: int = 32) -> UNet2DConditionModel:
    """The UNet from weights in latent-diffusion names, `input_blocks.0.0.weight` and so on; sizes from shapes.

    The community's port keeps these names in its `unet` folder.
    """
    state = renamed(
        {name: value.float() for name, value in state.items()}, {r"^camera_embed\.": "label_emb.0."}
    )
    try:
        config = _unet_config(state, sample_size)
        unet: Any = UNet2DConditionModel.from_config(config)
        weights = convert_ldm_unet_checkpoint(
            {UNET + name: value for name, value in state.items()}, dict(unet.config)
        )
    except KeyError as error:
        raise ValueError(f"this is no checkpoint of MVDream: its UNet lacks {error.args[0]}") from None
    _all_used(state, weights, "MVDream's UNet")
    load_strictly(unet, weights, "MVDream's UNet")
    return unet.eval()


def _unet_config(state: Mapping[str, Tensor], sample_size: int) -> dict[str, Any]:
    """Levels are told apart by their downsampling; a level attends where its first block is followed by attention."""
    channels: list[int] = []
    attends: list[bool] = []
    blocks: list[int] = []
    new_level = True
    for index in range(1, count(state, r"input_blocks\.")):
        at = f"input_blocks.{index}"
        if f"{at}.0.op.weight" in state:
            new_level = True
            continue
        if new_level:
            channels.append(state[f"{at}.0.out_layers.3.weight"].shape[0])
            attends.append(f"{at}.1.proj_in.weight" in state)
            blocks.append(0)
            new_level = False
        blocks[-1] += 1
    inner = state["middle_block.1.transformer_blocks.0.attn2.to_k.weight"]
    return {
        "sample_size": sample_size,
        "in_channels": state["input_blocks.0.0.weight"].shape[1],
        "out_channels": state["out.2.weight"].shape[0],
        "block_out_channels": channels,
        "layers_per_block": blocks[0] if blocks else 0,
        "down_block_types": ["CrossAttnDownBlock2D" if attended else "DownBlock2D" for attended in attends],
        "up_block_types": [
            "CrossAttnUpBlock2D" if attended else "UpBlock2D" for attended in reversed(attends)
        ],
        "attention_head_dim": [max(1, width // HEAD) for width in channels],
        "cross_attention_dim": inner.shape[1],
        "use_linear_projection": state["middle_block.1.proj_in.weight"].ndim == 2,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": state["label_emb.0.0.weight"].shape[1],
    }


def autoencoder(state: Mapping[str, Tensor]) -> AutoencoderKL:
    """`first_stage_model` of a latent-diffusion checkpoint; sizes from shapes."""
    state = {name: value.float() for name, value in state.items()}
    try:
        levels = count(state, r"encoder\.down\.")
        channels = [state[f"encoder.down.{level}.block.0.conv2.weight"].shape[0] for level in range(levels)]
        sizes: dict[str, Any] = {
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "block_out_channels": tuple(channels),
            "layers_per_block": count(state, r"encoder\.down\.0\.block\."),
            "latent_channels": state["decoder.conv_in.weight"].shape[1],
        }
        vae = AutoencoderKL(**sizes, norm_num_groups=GROUPS, scaling_factor=SCALING)
        weights = convert_ldm_vae_checkpoint(
            {VAE + name: value for name, value in state.items()}, dict(vae.config)
        )
    except KeyError as error:
        raise ValueError(f"this is no checkpoint of MVDream: its autoencoder lacks {error.args[0]}") from None
    _all_used(state, weights, "MVDream's autoencoder")
    load_strictly(vae, weights, "MVDream's autoencoder")
    return vae.eval()


_TOWER = {
    r"^transformer\.resblocks\.": "encoder.layers.",
    r"\.ln_([12])\.": r".layer_norm\1.",
    r"\.attn\.out_proj\.": ".self_attn.out_proj.",
    r"\.mlp\.c_fc\.": ".mlp.fc1.",
    r"\.mlp\.c_proj\.": ".mlp.fc2.",
    r"^token_embedding\.": "embeddings.token_embedding.",
    r"^positional_embedding$": "embeddings.position_embedding.weight",
    r"^ln_final\.": "final_layer_norm.",
}


def open_clip_text_encoder(state: Mapping[str, Tensor]) -> CLIPTextModel:
    """OpenCLIP's text tower up to its last layer but one, which is what Stable Diffusion 2 reads."""
    unused = ("visual.", "text_projection", "logit_scale", "attn_mask")
    state = {name: value.float() for name, value in state.items() if not name.startswith(unused)}
    try:
        layers = count(state, r"transformer\.resblocks\.")
        tokens, width = state["token_embedding.weight"].shape
        config = CLIPTextConfig(
            vocab_size=tokens,
            hidden_size=width,
            intermediate_size=state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            num_hidden_layers=layers - 1,
            num_attention_heads=max(1, width // HEAD),
            max_position_embeddings=len(state["positional_embedding"]),
            hidden_act="gelu",
            bos_token_id=tokens - 2,
            eos_token_id=tokens - 1,
            pad_token_id=1,
        )
    except KeyError as error:
        raise ValueError(
            f"this is no checkpoint of MVDream: its text encoder lacks {error.args[0]}"
        ) from None
    read = {n: v for n, v in state.items() if not n.startswith(f"transformer.resblocks.{layers - 1}.")}
    encoder = CLIPTextModel(config)
    whole = renamed(split_attention(read), _TOWER)
    prefix = next(iter(encoder.state_dict())).split("embeddings.")[0]
    load_strictly(encoder, {prefix + name: value for name, value in whole.items()}, "MVDream's text encoder")
    return encoder.eval()


def _all_used(given: Mapping[str, Tensor], taken: Mapping[str, Tensor], what: str) -> None:
    """Converters take what they know; what they left is told."""
    left = sum(value.numel() for value in given.values()) - sum(value.numel() for value in taken.values())
    if left > 0:
        known = {id(value.untyped_storage()) for value in taken.values()}
        names = [name for name, value in given.items() if id(value.untyped_storage()) not in known]
        raise ValueError(f"this is no checkpoint of {what}: it has {', '.join(sorted(names)[:3])} besides")
