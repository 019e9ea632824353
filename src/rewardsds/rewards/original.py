"""Rewards from the checkpoints that their authors publish, by their own names for the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import BlipTextConfig, BlipVisionConfig, CLIPConfig, CLIPModel

from rewardsds.foreign import count, load_strictly, renamed, split_attention, split_off
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

UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
"""What ImageReward's checkpoint holds of BLIP's pretraining and never uses."""


def image_reward_network(state: Mapping[str, Tensor]) -> ImageRewardNetwork:
    """ImageReward-v1.0, `ImageReward.pt`: `blip.visual_encoder`, `blip.text_encoder` and `mlp.layers`.

    Sizes are read from the shapes. Raises ValueError where a weight is missing, too many or of another shape.
    """
    state = {name: value.float() for name, value in state.items() if not name.startswith(UNUSED)}
    vision = renamed(split_off(state, "blip.visual_encoder."), _VISION)
    text = split_off(state, "blip.text_encoder.")
    mlp = split_off(state, "mlp.layers.")
    try:
        network = ImageRewardNetwork(_blip_vision(vision), _blip_text(text), _widths(mlp))
    except KeyError as error:
        raise ValueError(f"this is no checkpoint of ImageReward: it lacks {error.args[0]}") from None
    layers = sorted({int(name.split(".")[0]) for name in mlp})
    numbered = {f"^{old}\\.": f"{new}." for new, old in enumerate(layers)}
    parts = {"vision": vision, "text": text, "mlp": renamed(mlp, numbered)}
    known = ("blip.visual_encoder.", "blip.text_encoder.", "mlp.layers.")
    rest = {name: value for name, value in state.items() if not name.startswith(known)}
    whole = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
    load_strictly(network, whole | rest, "ImageReward")
    return network.eval()


def _blip_vision(state: Mapping[str, Tensor]) -> BlipVisionConfig:
    width = state["embeddings.class_embedding"].shape[-1]
    patch = state["embeddings.patch_embedding.weight"].shape[-1]
    patches = state["embeddings.position_embedding"].shape[1] - 1
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=state["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=count(state, r"encoder\.layers\."),
        num_attention_heads=max(1, width // HEAD),
        image_size=round(patches**0.5) * patch,
        patch_size=patch,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
    )


def _blip_text(state: Mapping[str, Tensor]) -> BlipTextConfig:
    words = state["embeddings.word_embeddings.weight"]
    # pyright does not see the fields of transformers' configurations.
    sizes: dict[str, Any] = {
        "vocab_size": words.shape[0],
        "hidden_size": words.shape[1],
        "encoder_hidden_size": state["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        "intermediate_size": state["encoder.layer.0.intermediate.dense.weight"].shape[0],
        "num_hidden_layers": count(state, r"encoder\.layer\."),
        "num_attention_heads": max(1, words.shape[1] // HEAD),
        "max_position_embeddings": state["embeddings.position_embeddings.weight"].shape[0],
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


def _widths(mlp: Mapping[str, Tensor]) -> list[int]:
    weights = sorted(
        (int(name.split(".")[0]), value) for name, value in mlp.items() if name.endswith(".weight")
    )
    if not weights:
        raise KeyError("mlp.layers.0.weight")
    return [value.shape[0] for _, value in weights]


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
    state = {name: value.float() for name, value in state.items()}
    try:
        seen, read = (
            split_off(state, "visual."),
            {n: v for n, v in state.items() if not n.startswith("visual.")},
        )
        width, patch = seen["conv1.weight"].shape[0], seen["conv1.weight"].shape[-1]
        tokens, text_width = read["token_embedding.weight"].shape
        config = CLIPConfig(
            projection_dim=seen["proj"].shape[1],
            vision_config={
                "hidden_size": width,
                "intermediate_size": seen["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
                "num_hidden_layers": count(seen, r"transformer\.resblocks\."),
                "num_attention_heads": 16 if width >= 1024 else max(1, width // HEAD),
                "image_size": round((len(seen["positional_embedding"]) - 1) ** 0.5) * patch,
                "patch_size": patch,
                "hidden_act": hidden_act,
                "projection_dim": seen["proj"].shape[1],
            },
            text_config={
                "vocab_size": tokens,
                "hidden_size": text_width,
                "intermediate_size": read["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
                "num_hidden_layers": count(read, r"transformer\.resblocks\."),
                "num_attention_heads": max(1, text_width // HEAD),
                "max_position_embeddings": len(read["positional_embedding"]),
                "hidden_act": hidden_act,
                "projection_dim": seen["proj"].shape[1],
                "bos_token_id": tokens - 2,
                "eos_token_id": tokens - 1,
                "pad_token_id": tokens - 1,
            },
        )
    except KeyError as error:
        raise ValueError(f"this is no checkpoint of an open_clip model: it lacks {error.args[0]}") from None
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
    whole.pop("attn_mask", None)  # the causal mask, which older versions saved
    model = CLIPModel(config)
    load_strictly(model, whole, "an open_clip model")
    return model.eval()
