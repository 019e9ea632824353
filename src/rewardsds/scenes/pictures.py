"""Reading a user's picture, whatever its size and colour mode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP")
SMALLEST, LARGEST = 8, 12_000


def read_picture(path: Path, size: int) -> tuple[Tensor, list[str]]:
    """The middle square of a picture as (3, size, size) in [0, 1], and what the user should know about it.

    Transparency is laid on white, 16-bit and CMYK pixels become 8-bit sRGB, of an animation the first frame is
    taken, and the camera's orientation is applied. Raises ValueError, in one line, where it cannot be read.
    """
    picture, notes = _decode(path, size)
    if picture.width != picture.height:
        notes.append(f"{path} is not square: its middle is taken")
    return _as_tensor(ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)), notes


def read_whole_picture(path: Path) -> tuple[Tensor, list[str]]:
    """All of a picture in its own size, (3, H, W) in [0, 1]; otherwise as `read_picture`."""
    picture, notes = _decode(path)
    return _as_tensor(picture), notes


def _decode(path: Path, size: int | None = None) -> tuple[Image.Image, list[str]]:
    """An upright RGB picture, and what the user should know about it. size: pixels that are enough."""
    notes = []
    try:
        with Image.open(path, formats=FORMATS) as file:
            width, height = file.size
            if min(width, height) < SMALLEST or max(width, height) > LARGEST:
                raise ValueError(
                    f"the picture {path} has {width} × {height} pixels: give one with sides of {SMALLEST} to "
                    f"{LARGEST} pixels"
                )
            if getattr(file, "n_frames", 1) > 1:
                notes.append(f"{path} is an animation: its first frame is taken")
                file.seek(0)
            if size is not None:
                file.draft("RGB", (2 * size, 2 * size))  # JPEGs are decoded at a fraction of their size
            return _as_rgb(ImageOps.exif_transpose(file)), notes
    except FileNotFoundError:
        raise ValueError(f"no picture {path}: there is no such file; give a PNG, JPEG or WebP file") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder: give a PNG, JPEG or WebP file") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path} is no picture: expected PNG, JPEG or WebP") from None
    except Image.DecompressionBombError:
        raise ValueError(
            f"the picture {path} has too many pixels: give one with sides of {SMALLEST} to {LARGEST} pixels"
        ) from None
    except (OSError, SyntaxError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"the picture {path} cannot be read: {reason}") from None


def _as_tensor(picture: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1]"""
    return torch.from_numpy(np.asarray(picture, np.float32) / 255).permute(2, 0, 1).contiguous()


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":  # 16 bits and more: Pillow would clip, not scale
        values = np.asarray(picture, np.float64)
        scale = 65535 if picture.mode != "F" else max(float(values.max()), 1e-12)
        return Image.fromarray((np.clip(values / scale, 0, 1) * 255).round().astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")
