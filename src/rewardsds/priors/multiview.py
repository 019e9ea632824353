"""MVDream's multi-view attention and camera condition on the stock UNet (arXiv 2308.16512, section 3.1)."""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

CAMERA_CHANNELS = 16


class MultiViewAttnProcessor(AttnProcessor2_0):
    """Self-attention over all views of an item together: (B·V, L, C) is attended as (B, V·L, C).

    The number of views comes with each call, as `cross_attention_kwargs={"views": V}`; 1 is the stock
    processor. Cross-attention to the text stays per view.
    """

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        views: int = 1,
    ) -> Tensor:
        if encoder_hidden_states is not None or views == 1:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        length = hidden_states.shape[1]
        joined = hidden_states.unflatten(0, (-1, views)).flatten(1, 2)
        joined = super().__call__(attn, joined, None, attention_mask, temb)
        return joined.unflatten(1, (views, length)).flatten(0, 1)


def is_multiview(unet: UNet2DConditionModel) -> bool:
    """Whether the UNet was configured with a camera embedding, as MVDream's is."""
    config = unet.config
    return (
        config.get("class_embed_type") == "projection"
        and config.get("projection_class_embeddings_input_dim") == CAMERA_CHANNELS
    )


def enable_multiview_attention(unet: UNet2DConditionModel) -> None:
    """Put the processor on every attention of the UNet; it leaves cross-attention as it is."""
    unet.set_attn_processor(MultiViewAttnProcessor())


def camera_embedding(camera_to_world: Tensor) -> Tensor:
    """Camera-to-world (..., 4, 4) → `class_labels` (..., 16): row-major, the position scaled to length 1.

    The world is that of `scenes/cameras.py` (+Z up, OpenGL camera axes), which is MVDream's.
    """
    position = torch.nn.functional.normalize(camera_to_world[..., :3, 3:], dim=-2)
    embedding = camera_to_world.clone()
    embedding[..., :3, 3:] = position
    return embedding.flatten(-2)
