"""Batches of pictures and truths out of a data set, and the corruptions that training adds."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rewardsds.toybox.data import ToyboxData
from rewardsds.toybox.specification import COLOURS, GROUNDS, KINDS
from rewardsds.toybox.train.common import Draws

FRONT = 4
PRESENT = 0.012
ABSENT = 0.003
"""A toy is in a picture when it covers PRESENT of the pixels; below ABSENT it is not; between, nobody is
asked.
"""


def pictures(
    data: ToyboxData, scenes: np.ndarray, views: np.ndarray, device: str | torch.device = "cpu"
) -> Tensor:
    """(M,) scenes and (M,) views → (M, 3, 64, 64) in [0, 1], channels last in memory."""
    return as_pictures(torch.from_numpy(data.views[scenes, views]).to(device))


def as_pictures(views: Tensor) -> Tensor:
    """(M, 64, 64, 3) uint8 → (M, 3, 64, 64) in [0, 1], channels last in memory."""
    return views.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def truth(data: ToyboxData, scenes: np.ndarray, views: np.ndarray) -> tuple[Tensor, Tensor]:
    """Which (kind, colour) pairs a picture shows, and which of them count in a loss.

    Returns present (M, K, C) of 0 and 1 and asked (M, K, C), which is 0 where a toy shows too little to say.
    """
    present = np.zeros((len(scenes), len(KINDS), len(COLOURS)), np.float32)
    asked = np.ones_like(present)
    for row, (scene, view) in enumerate(zip(scenes, views)):
        shares = data.visible[scene, view]
        for (kind, colour), share in zip(data.scenes[scene]["toys"], shares):
            place = row, KINDS.index(kind), COLOURS.index(colour)
            if share >= PRESENT:
                present[place] = 1
            elif share >= ABSENT:
                asked[place] = 0
    # Of two equal toys one that shows is enough.
    asked = np.maximum(asked, present)
    return torch.from_numpy(present), torch.from_numpy(asked)


def kinds_of(present: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """(M, K, C) of `truth` → the same for kinds alone, (M, K)."""
    kinds = present.amax(-1)
    return kinds, torch.maximum(kinds, asked.amin(-1))


def grounds_of(data: ToyboxData, scenes: np.ndarray) -> Tensor:
    """(M,) index into GROUNDS."""
    return torch.tensor([GROUNDS.index(data.scenes[scene]["spec"].ground) for scene in scenes])


def all_visible(data: ToyboxData, scenes: np.ndarray, view: int) -> np.ndarray:
    """(M,) whether every toy of the scene covers at least PRESENT of that view."""
    counts = np.array([len(data.scenes[scene]["toys"]) for scene in scenes])
    shown = (data.visible[scenes, view] >= PRESENT).sum(-1)
    return shown >= counts


def choose_views(
    data: ToyboxData, scenes: np.ndarray, rng: np.random.Generator, front: float = 0.6
) -> np.ndarray:
    """(M,) views: the front view for a share, else one of the four around where all toys show (or the
    front).
    """
    views = np.full(len(scenes), FRONT)
    around = rng.integers(0, 4, len(scenes))
    wanted = rng.random(len(scenes)) >= front
    for row in np.nonzero(wanted)[0]:
        if all_visible(data, scenes[row : row + 1], int(around[row]))[0]:
            views[row] = around[row]
    return views


def augment(images: Tensor, draws: Draws, strength: float = 1.0) -> Tensor:
    """Brightness, contrast, a little noise, and a slight blur on a third: (M, 3, H, W) in [0, 1], both ways.

    No flips (left and right mean something) and no shifts of hue (colours do too).
    """
    count = len(images)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * draws.uniform(count, 1, 1, 1)

    gain = draw(1 - 0.12 * strength, 1 + 0.12 * strength)
    shift = draw(-0.05 * strength, 0.05 * strength)
    changed = images * gain + shift
    weight = draw(0, 0.9 * strength) * (draw(0, 1) < 0.35)
    soft = F.avg_pool2d(F.pad(changed, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    changed = changed + weight.clamp(max=1) * (soft - changed)
    noise = draws.normal(*images.shape)
    return (changed + noise * draw(0, 0.03 * strength)).clamp(0, 1)


def reconstruct(autoencoder, images: Tensor, draws: Draws, share: float, noise: float = 0.15) -> Tensor:
    """A share of the pictures through the autoencoder with noise on their latents, as previews come out of
    it.
    """
    from rewardsds.toybox.models import decode_latents, encode_images

    count = round(share * len(images))
    if count == 0:
        return images
    with torch.no_grad():
        latents = encode_images(autoencoder, images[:count])
        level = noise * draws.uniform(count, 1, 1, 1)
        latents = latents + level * draws.normal(*latents.shape)
        return torch.cat([decode_latents(autoencoder, latents), images[count:]])
