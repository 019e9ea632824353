"""Prompts as the tokens that a reward reads."""

from __future__ import annotations

import warnings
from typing import Any


def read(tokenizer: Any, prompt: str, length: int, reader: str) -> Any:
    """input_ids and attention_mask (1, length), padded; a longer prompt is cut, with a warning that says so.

    reader: the reward's name.
    """
    whole = len(tokenizer(prompt, truncation=False, verbose=False)["input_ids"])
    if whole > length:
        warnings.warn(
            f"the prompt has {whole} tokens and {reader} reads {length}: its end is not scored (…{prompt[-40:]})",
            stacklevel=4,
        )
    return tokenizer(prompt, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
