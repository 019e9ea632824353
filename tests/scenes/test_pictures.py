"""Pictures as users have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rewardsds.scenes.pictures import read_picture

RED = torch.tensor([200, 30, 30]) / 255


def save(picture: Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)  # pyright: ignore[reportArgumentType]
    return path


def middle(image: torch.Tensor) -> torch.Tensor:
    return image[:, image.shape[1] // 2, image.shape[2] // 2]


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_common_formats(ending: str, tmp_path: Path):
    path = save(Image.new("RGB", (100, 100), (200, 30, 30)), tmp_path / f"picture.{ending}")
    image, notes = read_picture(path, 64)
    assert image.shape == (3, 64, 64)
    torch.testing.assert_close(middle(image), RED, atol=0.03, rtol=0)
    assert notes == []


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "YCbCr"])
def test_colour_modes(mode: str, tmp_path: Path):
    grey = Image.new("RGB", (40, 40), (255, 255, 255)).convert("L" if mode in ("1", "LA") else "RGB")
    ending = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    image, _ = read_picture(save(grey.convert(mode), tmp_path / f"picture.{ending}"), 32)
    assert image.min() > 0.97


def test_transparency_is_laid_on_white(tmp_path: Path):
    half = Image.new("RGBA", (40, 40), (255, 0, 0, 128))
    image, _ = read_picture(save(half, tmp_path / "half.png"), 32)
    torch.testing.assert_close(middle(image), torch.tensor([1.0, 0.5, 0.5]), atol=0.01, rtol=0)


def test_sixteen_bits_are_scaled(tmp_path: Path):
    values = np.full((40, 40), 32768, np.uint16)
    image, _ = read_picture(save(Image.fromarray(values), tmp_path / "deep.png"), 32)
    torch.testing.assert_close(middle(image), torch.full((3,), 0.5), atol=0.01, rtol=0)


def test_the_middle_of_a_wide_picture_and_the_first_frame_of_an_animation(tmp_path: Path):
    wide = Image.new("RGB", (120, 40), (0, 0, 0))
    wide.paste((200, 30, 30), (40, 0, 80, 40))
    image, notes = read_picture(save(wide, tmp_path / "wide.png"), 32)
    assert image[0].mean() > 0.75
    assert "not square" in notes[0]
    frames = [Image.new("RGB", (40, 40), colour) for colour in ((200, 30, 30), (0, 0, 255))]
    path = save(frames[0], tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    image, notes = read_picture(path, 32)
    torch.testing.assert_close(middle(image), RED, atol=0.01, rtol=0)
    assert "first frame" in notes[0]


def test_orientation_of_the_camera_is_applied(tmp_path: Path):
    lying = Image.new("RGB", (40, 40), (0, 0, 0))
    lying.paste((255, 255, 255), (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to view
    image, _ = read_picture(save(lying, tmp_path / "turned.png", exif=exif), 32)
    assert image[:, :, 20:].mean() > 0.9
    assert image[:, :, :12].mean() < 0.1


def test_what_is_no_picture_says_so(tmp_path: Path):
    (tmp_path / "text.png").write_text("no picture")
    whole = save(Image.effect_noise((64, 64), 80).convert("RGB"), tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    save(Image.new("RGB", (1, 1)), tmp_path / "dot.png")
    save(Image.new("1", (20_000, 20_000)), tmp_path / "huge.png")
    for name, reason in {
        "text.png": "is no picture",
        "cut.jpg": "cannot be read",
        "dot.png": "1 × 1 pixels",
        "huge.png": "too many pixels: give one with sides of 8 to 12000",
        "nothing.png": "no picture",
        ".": "is a folder",
    }.items():
        with pytest.raises(ValueError, match=reason) as error:
            read_picture(tmp_path / name, 64)
        assert "\n" not in str(error.value)
