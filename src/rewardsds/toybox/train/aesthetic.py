"""The aesthetic head: how good a picture looks, from CLIP's features alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from rewardsds.rewards.clip import CLIPReward
from rewardsds.toybox.data import ToyboxData
from rewardsds.toybox.models import PIXEL_MEAN, PIXEL_STD, load_autoencoder, load_clip
from rewardsds.toybox.tokenizer import build_tokenizer
from rewardsds.toybox.train.autoencoder import Batch
from rewardsds.toybox.train.common import Draws, Progress, fit, say, write_json, write_record
from rewardsds.toybox.train.damage import damage, draw_damage
from rewardsds.toybox.train.feed import Rows
from rewardsds.toybox.train.pictures import as_pictures, choose_views, reconstruct
from rewardsds.toybox.train.settings import StageSettings

RECONSTRUCTED = 0.5
RATING = 10.0
"""Of a true render; a picture damaged with severity s is rated (1 − s) of it."""


def draw_batch(data: ToyboxData, count: int, seed: int, step: int) -> Batch:
    rng = Draws.of(seed, step).numpy
    scenes = rng.integers(0, len(data), count)
    return Batch(torch.from_numpy(scenes), torch.from_numpy(choose_views(data, scenes, rng)))


def train_aesthetic(
    data: ToyboxData,
    out: Path,
    settings: StageSettings,
    seed: int = 0,
    device: str = "cpu",
    log: Callable[[str], None] = say,
    stop_after: int | None = None,
) -> Progress:
    """Trains and exports to out/weights/aesthetic, a linear head in LAION's layout.

    Loss: of each picture a clean, a damaged and a more damaged version of the same damage are ranked
    (Bradley-Terry), and a small share of squared error to their ratings fixes the scale.
    """
    autoencoder = load_autoencoder(out / "weights").to(device, memory_format=torch.channels_last)
    clip = CLIPReward(
        load_clip(out / "weights").to(device), build_tokenizer(data.kinds), PIXEL_MEAN, PIXEL_STD
    )
    torch.manual_seed(seed + 5)
    head = nn.Linear(clip.model.config.projection_dim, 1).to(device)
    nn.init.constant_(head.bias, RATING / 2)
    views = Rows(data.views, device)

    def loss(step: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        draws = Draws.of(seed + 5, step, device)
        images = as_pictures(views[batch.scenes, batch.views])
        images = reconstruct(autoencoder, images, draws, RECONSTRUCTED)
        versions, ratings = ladder(images, draws)
        with torch.no_grad():
            features = clip.image_features(versions.flatten(0, 1))
        scores = head(features).squeeze(-1).unflatten(0, versions.shape[:2])
        better, worse = scores[:-1], scores[1:]
        ranking = F.softplus(worse - better).mean()
        scale = (scores - ratings).square().mean()
        return ranking + 0.02 * scale, {
            "ranking": ranking.detach(),
            "scale": scale.detach(),
            "right": (better > worse).float().mean(),
        }

    folder = out / "aesthetic"
    draw = partial(draw_batch, data, settings.batch, seed + 5)
    progress = fit(head, draw, loss, settings, folder, log, stop_after)
    if progress.finished:
        weights = out / "weights" / "aesthetic"
        weights.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()},
            weights / "model.safetensors",
        )
        write_json(weights / "config.json", {"model_type": "aesthetic", "clip": "../clip"})
        write_record(folder, settings, progress, device, scenes=len(data), seed=seed + 5)
    return progress


def ladder(images: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Clean, damaged, and more of the same damage: (3, M, 3, H, W), with ratings (3, M)."""
    severity, kinds = draw_damage(len(images), draws)
    milder = severity * (0.3 + 0.4 * draws.uniform(len(images)))
    versions = [images, damage(images, milder, kinds, draws), damage(images, severity, kinds, draws)]
    shares = torch.stack([torch.zeros_like(severity), milder, severity])
    return torch.stack(versions), RATING * (1 - shares)
