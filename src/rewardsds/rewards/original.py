"""Rewards from the checkpoints that their authors publish, by their own names for the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import BlipTextConfig, BlipVisionConfig, CLIPConfig, CLIPModel

from rewardsds.foreign import (
    count,
    load_strictly,
    numbers_in,
    reading,
    renamed,
    shape_of,
    split_attention,
    split_off,
    without_leftovers,
)
from rewardsds.rewards.image_reward import ImageRewardNetwork

HEAD = 64
"""Channels of an attention head in BERT and in ViT-B and ViT-L."""

_VISION = {
    r"^blocks\.": "encoder.layers.",
    r"\.attn\.qkv\.": ".self_attn.qkv.",
    r"\.attn\.proj\.": ".self_attn.projection.",
    r"\.norm([12])\.": r".layer_norm\1.",
    r"^norm\.": "post_layernorm.",
    r"^cls_token$": "embeddings.class_embedding",
    r"^pos_embed$": "embeddings.position_embedding",
    r"^patch_embed\.proj\.": "embeddings.patch_embedding.",
}
"""Names of BLIP's vision tower (timm's) → BlipVisionModel's."""


def image_reward_network(state: Mapping[str, Tensor]) -> ImageRewardNetwork:
    """ImageReward-v1.0, `ImageReward.pt`: `blip.visual_encoder`, `blip.text_encoder` and `mlp.layers`.

    Sizes are read from the shapes. Raises ValueError where a weight is missing, too many or of another shape.
    """
    state = {name: value.float() for name, value in without_leftovers(state).items()}
    vision = renamed(split_off(state, "blip.visual_encoder."), _VISION)
    text = split_off(state, "blip.text_encoder.")
    mlp = split_off(state, "mlp.layers.")
    layers = numbers_in(mlp, r"")
    with reading("ImageReward"):
        towers = _blip_vision(vision), _blip_text(text)
        widths = [shape_of(state, f"mlp.layers.{layer}.weight", 2)[0] for layer in layers or (0,)]
        network = ImageRewardNetwork(*towers, widths)
    numbered = {f"^{old}\\.": f"{new}." for new, old in enumerate(layers)}
    parts = {"vision": vision, "text": text, "mlp": renamed(mlp, numbered)}
    known = ("blip.visual_encoder.", "blip.text_encoder.", "mlp.layers.")
    rest = {name: value for name, value in state.items() if not name.startswith(known)}
    whole = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
    load_strictly(network, whole | rest, "ImageReward")
    return network.eval()


def _blip_vision(state: Mapping[str, Tensor]) -> BlipVisionConfig:
    width = shape_of(state, "embeddings.class_embedding", 3)[-1]
    patch = shape_of(state, "embeddings.patch_embedding.weight", 4)[-1]
    patches = shape_of(state, "embeddings.position_embedding", 3)[1] - 1
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=shape_of(state, "encoder.layers.0.mlp.fc1.weight", 2)[0],
        num_hidden_layers=count(state, r"encoder\.layers\."),
        num_attention_heads=max(1, width // HEAD),
        image_size=round(patches**0.5) * patch,
        patch_size=patch,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
    )


def _blip_text(state: Mapping[str, Tensor]) -> BlipTextConfig:
    words, width = shape_of(state, "embeddings.word_embeddings.weight", 2)
    layer = "encoder.layer.0"
    # pyright does not see the fields of transformers' configurations.
    sizes: dict[str, Any] = {
        "vocab_size": words,
        "hidden_size": width,
        "encoder_hidden_size": shape_of(state, f"{layer}.crossattention.self.key.weight", 2)[1],
        "intermediate_size": shape_of(state, f"{layer}.intermediate.dense.weight", 2)[0],
        "num_hidden_layers": count(state, r"encoder\.layer\."),
        "num_attention_heads": max(1, width // HEAD),
        "max_position_embeddings": shape_of(state, "embeddings.position_embeddings.weight", 2)[0],
    }
    return BlipTextConfig(
        **sizes,
        layer_norm_eps=1e-12,
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        is_decoder=True,
        pad_token_id=0,
    )


_TOWER = {
    r"resblocks\.": "layers.",
    r"\.ln_([12])\.": r".layer_norm\1.",
    r"\.attn\.out_proj\.": ".self_attn.out_proj.",
    r"\.mlp\.c_fc\.": ".mlp.fc1.",
    r"\.mlp\.c_proj\.": ".mlp.fc2.",
}


def clip_from_open_clip(state: Mapping[str, Tensor], hidden_act: str = "gelu") -> CLIPModel:
    """A CLIP of open_clip's, HPSv2 and v2.1 among them, as a CLIPModel; sizes from shapes.

    hidden_act: "gelu" for LAION's (and HPS), "quick_gelu" for OpenAI's. Attention is split into its three parts,
    both projections are transposed. Heads: 16 in vision towers from ViT-L on, else of 64 channels, as open_clip has it.
    """
    state = {name: value.float() for name, value in without_leftovers(state).items()}
    with reading("an open_clip model"):
        seen, read = (
            split_off(state, "visual."),
            {n: v for n, v in state.items() if not n.startswith("visual.")},
        )
        width, _, _, patch = shape_of(seen, "conv1.weight", 4)
        tokens, text_width = shape_of(read, "token_embedding.weight", 2)
        shared = shape_of(seen, "proj", 2)[1]
        patches = shape_of(seen, "positional_embedding", 2)[0] - 1
        inner = "transformer.resblocks.0.mlp.c_fc.weight"
        config = CLIPConfig(
            projection_dim=shared,
            vision_config={
                "hidden_size": width,
                "intermediate_size": shape_of(seen, inner, 2)[0],
                "num_hidden_layers": count(seen, r"transformer\.resblocks\."),
                "num_attention_heads": 16 if width >= 1024 else max(1, width // HEAD),
                "image_size": round(patches**0.5) * patch,
                "patch_size": patch,
                "hidden_act": hidden_act,
                "projection_dim": shared,
            },
            text_config={
                "vocab_size": tokens,
                "hidden_size": text_width,
                "intermediate_size": shape_of(read, inner, 2)[0],
                "num_hidden_layers": count(read, r"transformer\.resblocks\."),
                "num_attention_heads": max(1, text_width // HEAD),
                "max_position_embeddings": shape_of(read, "positional_embedding", 2)[0],
                "hidden_act": hidden_act,
                "projection_dim": shared,
                "bos_token_id": tokens - 2,
                "eos_token_id": tokens - 1,
                "pad_token_id": tokens - 1,
            },
        )
    vision = renamed(
        split_attention(seen),
        _TOWER
        | {
            r"^transformer\.": "vision_model.encoder.",
            r"^conv1\.": "vision_model.embeddings.patch_embedding.",
            r"^class_embedding$": "vision_model.embeddings.class_embedding",
            r"^positional_embedding$": "vision_model.embeddings.position_embedding.weight",
            r"^ln_pre\.": "vision_model.pre_layrnorm.",
            r"^ln_post\.": "vision_model.post_layernorm.",
            r"^proj$": "visual_projection.weight",
        },
    )
    text = renamed(
        split_attention(read),
        _TOWER
        | {
            r"^transformer\.": "text_model.encoder.",
            r"^token_embedding\.": "text_model.embeddings.token_embedding.",
            r"^positional_embedding$": "text_model.embeddings.position_embedding.weight",
            r"^ln_final\.": "text_model.final_layer_norm.",
            r"^text_projection$": "text_projection.weight",
        },
    )
    whole = vision | text
    for name in ("visual_projection.weight", "text_projection.weight"):
        if name in whole:
            whole[name] = whole[name].T.contiguous()
    model = CLIPModel(config)
    load_strictly(model, whole, "an open_clip model")
    return model.eval()
