"""Single files of latent diffusion (arXiv 2112.10752): Stable Diffusion 1, 2 and XL, and MVDream (arXiv 2308.16512).

Their names for weights become those of the stock diffusers models; sizes are read from shapes. MVDream's multi-view
UNet is Stable Diffusion 2's with a camera embedding beside the one of the timestep, and attention over views, which has
no weights of its own, so that the stock `UNet2DConditionModel` takes all of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from rewardsds.errors import some_of
from rewardsds.foreign import (
    count,
    load_strictly,
    reading,
    renamed,
    require_known,
    shape_of,
    split_attention,
    split_off,
    without_leftovers,
)
from rewardsds.priors.fit import require_text_alone

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXT_2, TEXT_1 = "cond_stage_model.model.", "cond_stage_model.transformer."
TEXTS_XL = ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")
HEAD = 64
"""Channels of an attention head in all but Stable Diffusion 1's UNet."""
HEADS_1 = 8
"""Heads of Stable Diffusion 1's UNet, whatever the width."""
SCALING, SCALING_XL = 0.18215, 0.13025
"""Of the latents."""
GROUPS = 32
TEXT_ENCODER = "a prior's text encoder"
_FOLDER = "a folder of it in the diffusers layout, as its page on the hub has it"
OTHERS = {
    f"{UNET}joint_blocks.": ("Stable Diffusion 3", _FOLDER),
    "joint_blocks.": ("Stable Diffusion 3", _FOLDER),
    f"{UNET}double_blocks.": ("FLUX", _FOLDER),
    "double_blocks.": ("FLUX", _FOLDER),
    "conditioner.embedders.0.model.": ("Stable Diffusion XL's refiner", "the base model"),
    "control_model.": ("a ControlNet, which is told pictures besides the text", "the model it was made for"),
    "controlnet_": ("a ControlNet, which is told pictures besides the text", "the model it was made for"),
    "lora_": ("a LoRA, which changes another model", "that model with it merged in"),
    "lycoris_": ("a LyCORIS, which changes another model", "that model with it merged in"),
    "down_blocks.": ("a network alone, in diffusers' names", _FOLDER),
}
"""What files that are no priors here begin their names with: what they are, and what to give instead."""
V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"
"""Empty tensors by which files of XL say that it predicts v, and that its noise ends without any signal."""
PredictionType = Literal["epsilon", "v_prediction"]


class Parts(NamedTuple):
    """text_encoders: one, or XL's two."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: tuple[Any, ...]
    scheduler: DDPMScheduler


def parts(
    state: Mapping[str, Tensor], image_size: int | None = None, prediction_type: PredictionType | None = None
) -> Parts:
    """The models in a single file, by its names for the weights.

    image_size: pixels that it was trained at; None: 256 of MVDream, 1024 of XL, 768 of a Stable Diffusion 2 that
        predicts v, else 512.
    prediction_type: None: noise, but for Stable Diffusion 2, which has both: there the network is asked; and for an XL
        whose file says that it predicts v.

    Raises ValueError where a weight is missing, too many or of another shape.
    """
    xl, first = any(name.startswith(TEXTS_XL) for name in state), any(n.startswith(TEXT_1) for n in state)
    multiview = any(name.startswith(f"{UNET}camera_embed.") for name in state)
    prefixes = [UNET, VAE, *(TEXTS_XL if xl else [TEXT_1 if first else TEXT_2])]
    missing = [prefix for prefix in prefixes if not any(name.startswith(prefix) for name in state)]
    refuse_others(state)
    if missing:
        raise ValueError(f"this is no checkpoint of a prior: nothing in it begins with {', '.join(missing)}")
    require_known(state, [*prefixes, *((V_PREDICTION, ZERO_SNR) if xl else ())], "a prior")
    state = without_leftovers(state)
    vae = autoencoder(split_off(state, VAE), SCALING_XL if xl else SCALING)
    factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
    pixels = image_size or (1024 if xl else 256 if multiview else 512)
    unet = latent_unet(split_off(state, UNET), pixels // factor)
    if xl:
        encoders: tuple[Any, ...] = (
            clip_text_encoder(split_off(state, TEXTS_XL[0])),
            open_clip_text_encoder(split_off(state, TEXTS_XL[1]), whole=True),
        )
    elif first:
        encoders = (clip_text_encoder(split_off(state, TEXT_1)),)
    else:
        encoders = (open_clip_text_encoder(split_off(state, TEXT_2)),)
    require_text_alone(unet.config, int(encoders[1].config.projection_dim) if xl else None)
    takes_pictures = unet.config["in_channels"] != vae.config["latent_channels"]  # refused where it is loaded
    plain_2 = not (xl or first or multiview or takes_pictures)
    if prediction_type is None:
        said = "v_prediction" if xl and V_PREDICTION in state else "epsilon"
        prediction_type = found_prediction_type(unet) if plain_2 else said
    if plain_2 and prediction_type == "v_prediction" and image_size is None:
        unet.register_to_config(sample_size=768 // factor)
    return Parts(unet, vae, encoders, noise_schedule(prediction_type, xl and ZERO_SNR in state))


def refuse_others(state: Mapping[str, Tensor]) -> None:
    """Raises ValueError for a file of `OTHERS`."""
    for beginning, (what, instead) in OTHERS.items():
        if any(name.startswith(beginning) for name in state):
            raise ValueError(f"this is a file of {what}, which cannot be read: give {instead}")


def noise_schedule(prediction_type: PredictionType = "epsilon", zero_snr: bool = False) -> DDPMScheduler:
    """Stable Diffusion's. zero_snr: rescaled to end in pure noise (arXiv 2305.08891)."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        rescale_betas_zero_snr=zero_snr,
        clip_sample=False,
    )


@torch.no_grad()
def found_prediction_type(unet: Any) -> PredictionType:
    """What a trained UNet predicts, which its file does not say.

    At the last timestep its input is all but noise: what predicts noise gives it back, what predicts v = α ε − σ x0
    gives something else.
    """
    size, channels = unet.config["sample_size"], unet.config["in_channels"]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, channels, size, size, generator=generator)
    states = torch.zeros(1, 77, unet.config["cross_attention_dim"])
    said = unet(noise, torch.tensor([999]), states).sample
    alike = torch.cosine_similarity(said.flatten(), noise.flatten(), dim=0)
    return "epsilon" if float(alike) > 0.5 else "v_prediction"


def latent_unet(state: Mapping[str, Tensor], sample_size: int) -> UNet2DConditionModel:
    """The UNet from weights in latent-diffusion names, `input_blocks.0.0.weight` and so on.

    The community's port of MVDream keeps these names in its `unet` folder.
    """
    sees_cameras = any(name.startswith("camera_embed.") for name in state)
    state = renamed(
        {name: value.float() for name, value in state.items()}, {r"^camera_embed\.": "label_emb.0."}
    )
    with reading("a prior's UNet"):
        config = _unet_config(state, sample_size, sees_cameras)
        unet: Any = UNet2DConditionModel.from_config(config)
        weights = convert_ldm_unet_checkpoint(
            {UNET + name: value for name, value in state.items()}, dict(unet.config)
        )
    return _filled(unet, weights, state, "a prior's UNet")


def _unet_config(state: Mapping[str, Tensor], sample_size: int, sees_cameras: bool) -> dict[str, Any]:
    """Levels are told apart by their downsampling; a level attends where its first block is followed by attention."""
    channels: list[int] = []
    depths: list[int] = []
    blocks: list[int] = []
    new_level = True
    for index in range(1, count(state, r"input_blocks\.")):
        at = f"input_blocks.{index}"
        if f"{at}.0.op.weight" in state:
            new_level = True
            continue
        if new_level:
            channels.append(shape_of(state, f"{at}.0.out_layers.3.weight", 4)[0])
            depths.append(count(state, rf"{at}\.1\.transformer_blocks\."))
            blocks.append(0)
            new_level = False
        blocks[-1] += 1
    middle = count(state, r"middle_block\.1\.transformer_blocks\.")
    _, text_width = shape_of(state, "middle_block.1.transformer_blocks.0.attn2.to_k.weight", 2)
    linear = state["middle_block.1.proj_in.weight"].ndim == 2
    config = {
        "sample_size": sample_size,
        "in_channels": shape_of(state, "input_blocks.0.0.weight", 4)[1],
        "out_channels": shape_of(state, "out.2.weight", 4)[0],
        "block_out_channels": channels,
        "layers_per_block": blocks[0] if blocks else 0,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "transformer_layers_per_block": [*(depth or 1 for depth in depths[:-1]), middle],
        "attention_head_dim": [max(1, width // HEAD) if linear else HEADS_1 for width in channels],
        "cross_attention_dim": text_width,
        "use_linear_projection": linear,
    }
    if not any(name.startswith("label_emb.") for name in state):
        return config
    _, width = shape_of(state, "label_emb.0.0.weight", 2)
    if sees_cameras:
        return {**config, "class_embed_type": "projection", "projection_class_embeddings_input_dim": width}
    return {
        **config,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": SIZE_CHANNELS,
        "projection_class_embeddings_input_dim": width,
    }


SIZE_CHANNELS = 256
"""Of the embedding of each of XL's six sizes."""


def autoencoder(state: Mapping[str, Tensor], scaling: float = SCALING) -> AutoencoderKL:
    """`first_stage_model` of a latent-diffusion checkpoint."""
    state = {name: value.float() for name, value in state.items()}
    with reading("a prior's autoencoder"):
        levels = count(state, r"encoder\.down\.")
        last = [f"encoder.down.{level}.block.0.conv2.weight" for level in range(levels)]
        channels = [shape_of(state, name, 4)[0] for name in last]
        sizes: dict[str, Any] = {
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "block_out_channels": tuple(channels),
            "layers_per_block": count(state, r"encoder\.down\.0\.block\."),
            "latent_channels": shape_of(state, "decoder.conv_in.weight", 4)[1],
        }
        vae = AutoencoderKL(**sizes, norm_num_groups=GROUPS, scaling_factor=scaling)
        weights = convert_ldm_vae_checkpoint(
            {VAE + name: value for name, value in state.items()}, dict(vae.config)
        )
    return _filled(vae, weights, state, "a prior's autoencoder")


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


def open_clip_text_encoder(state: Mapping[str, Tensor], whole: bool = False) -> Any:
    """OpenCLIP's text tower: up to its last layer but one, which is what Stable Diffusion 2 reads.

    whole: all of it with its projection, from which XL takes the states of an inner layer and the summary.
    """
    unused = ("visual.", "logit_scale", "attn_mask", *(() if whole else ("text_projection",)))
    state = {name: value.float() for name, value in state.items() if not name.startswith(unused)}
    with reading(TEXT_ENCODER):
        layers = count(state, r"transformer\.resblocks\.")
        kept = layers if whole else layers - 1
        config = _text_config(
            shape_of(state, "token_embedding.weight", 2),
            shape_of(state, "positional_embedding", 2),
            shape_of(state, "transformer.resblocks.0.mlp.c_fc.weight", 2),
            kept,
            hidden_act="gelu",
            pad_token_id=1 if not whole else 0,
            projection_dim=shape_of(state, "text_projection", 2)[1] if whole else 512,
        )
        projection = {"text_projection.weight": state["text_projection"].T} if whole else {}
    cut = () if whole else (f"transformer.resblocks.{layers - 1}.",)
    read = {name: value for name, value in state.items() if not name.startswith(("text_projection", *cut))}
    return _loaded(config, renamed(split_attention(read), _TOWER), projection)


def clip_text_encoder(state: Mapping[str, Tensor]) -> Any:
    """OpenAI's CLIP text tower, which is in these files by transformers' names; Stable Diffusion 1's and XL's first."""
    state = renamed(
        {
            name: value.float()
            for name, value in state.items()
            if not name.endswith("position_ids") and not name.startswith("text_projection")
        },
        {r"^text_model\.": ""},
    )
    with reading(TEXT_ENCODER):
        config = _text_config(
            shape_of(state, "embeddings.token_embedding.weight", 2),
            shape_of(state, "embeddings.position_embedding.weight", 2),
            shape_of(state, "encoder.layers.0.mlp.fc1.weight", 2),
            count(state, r"encoder\.layers\."),
            hidden_act="quick_gelu",
            pad_token_id=1,
        )
    return _loaded(config, state)


def _text_config(
    tokens: tuple[int, ...], positions: tuple[int, ...], inner: tuple[int, ...], layers: int, **others: Any
) -> CLIPTextConfig:
    """Of the shapes of weights."""
    vocabulary, width = tokens
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner[0],
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // HEAD),
        max_position_embeddings=positions[0],
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        **others,
    )


def _loaded(
    config: CLIPTextConfig, tower: Mapping[str, Tensor], projection: Mapping[str, Tensor] | None = None
) -> Any:
    encoder: Any = CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)
    prefix = next(iter(encoder.state_dict())).split("embeddings.")[0]
    weights = {prefix + name: value for name, value in tower.items()}
    load_strictly(encoder, {**weights, **(projection or {})}, TEXT_ENCODER)
    return encoder.eval()


def _filled(model: Any, found: Mapping[str, Tensor | None], given: Mapping[str, Tensor], what: str) -> Any:
    """A model with the weights that a converter found in what was given: all of these, or a ValueError tells which."""
    # Converters ask for some weights by names that need not be there.
    taken = {name: value for name, value in found.items() if value is not None}
    left = sum(value.numel() for value in given.values()) - sum(value.numel() for value in taken.values())
    if left > 0:
        known = {id(value.untyped_storage()) for value in taken.values()}
        names = [name for name, value in given.items() if id(value.untyped_storage()) not in known]
        raise ValueError(f"this is no checkpoint of {what}: it has {some_of(sorted(names))} besides")
    load_strictly(model, taken, what)
    return model.eval()
