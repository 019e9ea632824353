"""How things are measured unless said otherwise: for the command line, plans and code alike. Nothing heavy is imported
here."""

from __future__ import annotations

from typing import Literal, get_args

DEFAULT_METRICS = ("clip", "aesthetic", "image-reward", "judge")

ViewKind = Literal["random", "even"]
VIEW_KINDS: tuple[ViewKind, ...] = get_args(ViewKind)
VIEWS = 10
"""Views of an object, as many as the paper judges one over (arXiv 2503.09601, section 4.2)."""
