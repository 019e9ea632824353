"""Whether the parts of a latent prior were made for each other, and for making pictures from text alone.

Asked where they are loaded: a step would fail in words of their own, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rewardsds.priors.multiview import CAMERA_CHANNELS

SIZES = 6
"""Of pictures and where they were cropped, which XL is told."""
_OTHER_CONDITIONS = {
    "num_class_embeds": "classes",
    "encoder_hid_dim": "pictures, or texts that are brought to another width",
    "encoder_hid_dim_type": "pictures, or texts that are brought to another width",
    "time_cond_proj_dim": "a scale of guidance, as consistency models (LCM) are",
}


def require_text_alone(unet: Mapping[str, Any], summary: int | None = None) -> None:
    """Raises ValueError for a UNet that is told something besides texts and MVDream's cameras, or XL's sizes.

    unet: its configuration. summary: numbers of the text's summary in an XL; None: it is another model.
    """
    told = [f"{what} ({key} is {unet[key]})" for key, what in _OTHER_CONDITIONS.items() if unet.get(key)]
    width = unet.get("projection_class_embeddings_input_dim")
    kind = unet.get("class_embed_type")
    if kind == "projection" and width != CAMERA_CHANNELS:
        raise ValueError(
            f"this network's cameras have {width} numbers, MVDream's have {CAMERA_CHANNELS}: it is another model"
        )
    if kind not in (None, "projection"):
        told.append(f"classes (class_embed_type is {kind})")
    added = unet.get("addition_embed_type")
    if added is not None and (summary is None or added != "text_time"):
        told.append(f"{width or 'some'} numbers (addition_embed_type is {added})")
    if told:
        raise ValueError(
            f"this prior's network is told {told[0]} besides the text: give a model that makes pictures from text "
            "alone, not one for upscaling, variations of pictures or few steps"
        )
    if summary is not None:
        expected = summary + SIZES * int(unet.get("addition_time_embed_dim") or 0)
        if added is None or width != expected:
            raise ValueError(
                f"this network is told {width or 0} numbers besides the text, Stable Diffusion XL with its text "
                f"encoders gives {expected}: it is another model, such as XL's refiner"
            )


def require_vocabularies(tokenizers: Iterable[Any], encoders: Iterable[Any]) -> None:
    """Raises ValueError where a tokenizer knows more words than its text encoder. None: it is not there."""
    for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
        if tokenizer is None:
            continue
        words, known = len(tokenizer), int(encoder.config.vocab_size)
        if words > known:
            raise ValueError(
                f"this prior's tokenizer has {words} tokens, its {type(encoder).__name__} knows {known}: give it the "
                "tokenizer that it was trained with"
            )
