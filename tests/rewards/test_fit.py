"""Pictures of other shapes, against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers import SiglipImageProcessorPil

from rewardsds.rewards.pictures import square


def picture(height: int, width: int) -> Tensor:
    """Smooth, in whole 255ths."""
    small = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(small, (height, width), mode="bilinear")
    return (smooth * 255).round() / 255


def pillow(images: Tensor) -> Image.Image:
    return Image.fromarray((images[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 255


def test_the_middle_of_a_wide_and_of_a_high_picture():
    for height, width in ((40, 64), (64, 40)):
        images = picture(height, width)
        expected = ImageOps.fit(pillow(images), (20, 20), Image.Resampling.BICUBIC)
        torch.testing.assert_close(square(images, 20), tensor(expected), rtol=0, atol=6 / 255)


def test_the_whole_of_a_wide_picture_with_black_above_and_below():
    images = picture(30, 60)
    padded = square(images, 20, "pad")
    assert padded.shape == (1, 3, 20, 20)
    assert (padded[:, :, :5] == 0).all()
    assert (padded[:, :, 15:] == 0).all()
    inner = pillow(images).resize((20, 10), Image.Resampling.BICUBIC)
    torch.testing.assert_close(padded[:, :, 5:15], tensor(inner), rtol=0, atol=2 / 255)


@pytest.mark.parametrize("height, width", [(30, 60), (64, 40), (12, 50)])
def test_the_whole_of_a_picture_squeezed_as_siglip_has_it(height: int, width: int):
    images = picture(height, width)
    processor = SiglipImageProcessorPil(
        size={"height": 20, "width": 20}, image_mean=[0.0] * 3, image_std=[1.0] * 3
    )
    expected = processor(pillow(images), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(square(images, 20, "stretch"), expected, rtol=0, atol=2 / 255)


def test_extreme_shapes_and_the_right_size():
    assert square(picture(1, 300), 16).shape == (1, 3, 16, 16)
    for fit in ("pad", "stretch"):
        assert square(picture(1, 300), 16, fit).shape == (1, 3, 16, 16)
    images = picture(16, 16)
    assert square(images, 16) is images


@pytest.mark.parametrize("shape, size", [((97, 97), 32), ((40, 23), 16), ((11, 11), 24), ((64, 64), 63)])
def test_it_is_torchs_own_resizing_in_value_and_gradient(shape: tuple[int, int], size: int):
    images = (
        0.2 + 0.6 * torch.rand((2, 3, *shape), generator=torch.Generator().manual_seed(0))
    ).requires_grad_()
    shorter = min(shape)
    whole = [size if side == shorter else round(side * size / shorter) for side in shape]
    theirs = torch.nn.functional.interpolate(
        images, whole, mode="bicubic", antialias=True, align_corners=False
    ).clamp(0, 1)
    top, left = (whole[0] - size) // 2, (whole[1] - size) // 2
    theirs = theirs[..., top : top + size, left : left + size]
    ours = square(images, size)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    slopes = [torch.autograd.grad(made.square().sum(), images)[0] for made in (ours, theirs)]
    torch.testing.assert_close(slopes[0], slopes[1], atol=1e-4, rtol=1e-4)
