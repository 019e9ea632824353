"""Prompts of items, and of their views."""

from __future__ import annotations

from collections.abc import Sequence

Texts = Sequence[str] | Sequence[Sequence[str]]
"""A text for each of B items; or V texts for each, one a view (view-dependent prompts)."""


def per_view(texts: Texts) -> bool:
    """Whether every view has a text of its own."""
    return any(not isinstance(text, str) for text in texts)


def with_ending(texts: Texts, ending: str) -> Texts:
    """Every text, with words put after it."""
    return [text + ending if isinstance(text, str) else [one + ending for one in text] for text in texts]  # pyright: ignore[reportReturnType]
