"""Prompts of items, and of their views."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rewardsds.errors import SettingsError

Texts = Sequence[str] | Sequence[Sequence[str]]
"""A text for each of B items; or V texts for each, one a view (view-dependent prompts), see also `OfViews`."""


class OfViews(list[str]):
    """The texts of an item's views that were made of one text, which is kept: `item`."""

    def __init__(self, item: str, texts: Iterable[str]) -> None:
        super().__init__(texts)
        self.item = item


def per_view(texts: Texts) -> bool:
    """Whether every view has a text of its own."""
    return any(not isinstance(text, str) for text in texts)


def with_ending(texts: Texts, ending: str) -> Texts:
    """Every text, with words put after it."""
    return [text + ending if isinstance(text, str) else [one + ending for one in text] for text in texts]  # pyright: ignore[reportReturnType]


def read_text(path: Path) -> str:
    """A file of prompts, whatever is in it. Raises SettingsError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(f"no file of prompts {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the prompts in {path}: {error}") from None


def read_lines(path: Path) -> list[str]:
    """Lines of a text file that are neither empty nor comments (#). Raises SettingsError where there are none."""
    lines = read_text(path).splitlines()
    prompts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not prompts:
        raise SettingsError(f"{path} holds no prompts: expected one a line")
    return prompts
