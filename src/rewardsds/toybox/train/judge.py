"""The judge, on scenes of its own, from a seed of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rewardsds.toybox.data import ToyboxData
from rewardsds.toybox.judge import JudgeNetwork, save_judge
from rewardsds.toybox.models import load_autoencoder
from rewardsds.toybox.train.clip import presence_loss
from rewardsds.toybox.train.common import Draws, Progress, fit, say, write_record
from rewardsds.toybox.train.feed import Rows
from rewardsds.toybox.train.pictures import as_pictures, augment, choose_views, kinds_of, reconstruct, truth
from rewardsds.toybox.train.settings import StageSettings

RECONSTRUCTED = 0.25
SEED = 7_000_003
"""Added to the run's seed, so that the judge shares its draws with no other network."""


class Batch(NamedTuple):
    """(M,) scenes, (M,) views, and what `truth` says of them, as bool."""

    scenes: Tensor
    views: Tensor
    present: Tensor
    asked: Tensor


def draw_batch(data: ToyboxData, count: int, seed: int, step: int) -> Batch:
    rng = Draws.of(seed, step).numpy
    scenes = rng.integers(0, len(data), count)
    views = choose_views(data, scenes, rng, front=0.5)
    present, asked = truth(data, scenes, views)
    return Batch(torch.from_numpy(scenes), torch.from_numpy(views), present.bool(), asked.bool())


def train_judge(
    data: ToyboxData,
    out: Path,
    settings: StageSettings,
    seed: int = 0,
    device: str = "cpu",
    log: Callable[[str], None] = say,
    stop_after: int | None = None,
) -> Progress:
    """Trains and exports to out/weights/judge.

    Loss: binary cross-entropy of every kind and of every (kind, colour), present ones weighted, toys that
    barely show left out. A share of the pictures comes through the autoencoder, others are blurred and
    noisy: the judge will look at what the prior paints.
    """
    autoencoder = load_autoencoder(out / "weights").to(device, memory_format=torch.channels_last)
    torch.manual_seed(seed + SEED)
    model = JudgeNetwork().to(device)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    views = Rows(data.views, device)

    def loss(step: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        draws = Draws.of(seed + SEED, step, device)
        images = as_pictures(views[batch.scenes, batch.views])
        images = augment(reconstruct(autoencoder, images, draws, RECONSTRUCTED), draws)
        present, asked = batch.present.float(), batch.asked.float()
        kinds, asked_kinds = kinds_of(present, asked)
        kind_logits, pair_logits = model(images.contiguous(memory_format=torch.channels_last))
        of_kinds = presence_loss(kind_logits, kinds, asked_kinds, 3.0)
        of_pairs = presence_loss(pair_logits, present, asked, 6.0)
        with torch.no_grad():
            found = ((pair_logits > 0) & (present > 0)).sum() / present.sum().clamp_min(1)
        return 0.5 * of_kinds + of_pairs, {
            "kinds": of_kinds.detach(),
            "pairs": of_pairs.detach(),
            "found": found,
        }

    folder = out / "judge"
    draw = partial(draw_batch, data, settings.batch, seed + SEED)
    progress = fit(model, draw, loss, settings, folder, log, stop_after)
    if progress.finished:
        save_judge(model, out / "weights" / "judge")
        write_record(folder, settings, progress, device, scenes=len(data), seed=seed + SEED)
    return progress
