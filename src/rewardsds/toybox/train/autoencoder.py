"""The autoencoder, pictures to latents and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rewardsds.toybox.data import ToyboxData
from rewardsds.toybox.models import build_autoencoder, export_autoencoder
from rewardsds.toybox.train.common import Draws, Progress, fit, say, write_record
from rewardsds.toybox.train.feed import Rows
from rewardsds.toybox.train.pictures import as_pictures, pictures
from rewardsds.toybox.train.settings import StageSettings

LATENT_NOISE = 0.1
"""Standard deviation of what is added to latents before decoding: previews are never quite on the data."""
SQUARED, EDGES, SPREAD = 4.0, 1.0, 0.01


class Batch(NamedTuple):
    """(M,) scenes and (M,) views."""

    scenes: Tensor
    views: Tensor


def draw_batch(data: ToyboxData, count: int, seed: int, step: int) -> Batch:
    rng = Draws.of(seed, step).numpy
    scenes, views = rng.integers(0, len(data), count), rng.integers(0, 5, count)
    return Batch(torch.from_numpy(scenes), torch.from_numpy(views))


def train_autoencoder(
    data: ToyboxData,
    out: Path,
    settings: StageSettings,
    seed: int = 0,
    device: str = "cpu",
    log: Callable[[str], None] = say,
    stop_after: int | None = None,
) -> Progress:
    """Trains, measures the scale of the latents, and exports to out/weights/prior/vae.

    Loss: |x − x̂| + 4 (x − x̂)² + |∇x − ∇x̂| + 0.01 · (mean² + (log variance)² of each latent channel),
    pixels in [0, 1]; the last term keeps latents near unit scale, as the KL term of a variational
    autoencoder would.
    """
    torch.manual_seed(seed)  # the initial weights alone; everything else is drawn from its step's generators
    model = build_autoencoder().to(device, memory_format=torch.channels_last)
    views = Rows(data.views, device)

    def loss(step: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        images = as_pictures(views[batch.scenes, batch.views])
        latents = model.encode(images * 2 - 1).latents
        noise = Draws.of(seed, step, device).normal(*latents.shape)
        decoded = model.decode(latents + LATENT_NOISE * noise).sample * 0.5 + 0.5
        error = decoded - images
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        variance, mean = torch.var_mean(latents, dim=(0, 2, 3))
        spread = (mean.square() + (variance + 1e-6).log().square()).mean()
        squared = error.square().mean()
        value = error.abs().mean() + SQUARED * squared + EDGES * edges + SPREAD * spread
        return value, {"psnr": -10 * squared.detach().log10(), "spread": spread.detach()}

    folder = out / "autoencoder"
    draw = partial(draw_batch, data, settings.batch, seed)
    progress = fit(model, draw, loss, settings, folder, log, stop_after)
    if progress.finished:
        scale = 1 / latent_deviation(model, data, device)
        model.register_to_config(scaling_factor=scale)
        export_autoencoder(model, out / "weights")
        write_record(folder, settings, progress, device, scaling_factor=scale, scenes=len(data), seed=seed)
    return progress


@torch.no_grad()
def latent_deviation(model, data: ToyboxData, device: str) -> float:
    """Standard deviation of unscaled latents over evenly chosen pictures."""
    scenes = np.linspace(0, len(data) - 1, min(512, len(data))).astype(int)
    images = pictures(data, scenes, np.arange(len(scenes)) % 5, device)
    return float(torch.cat([model.encode(part * 2 - 1).latents for part in images.split(64)]).std())
