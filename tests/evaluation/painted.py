"""Pictures of one colour."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def paint(path: Path, red: int, size: tuple[int, int] = (16, 16)) -> Path:
    """A picture whose redness is red / 255, in a folder that need not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, 0, 0)).save(path, lossless=True)
    return path
