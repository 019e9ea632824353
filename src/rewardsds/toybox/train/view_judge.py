"""The judge of views, on the judge's scenes, from a seed of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rewardsds.toybox.data import ToyboxData
from rewardsds.toybox.models import load_autoencoder
from rewardsds.toybox.train.common import Draws, Progress, fit, say, write_record
from rewardsds.toybox.train.feed import Rows
from rewardsds.toybox.train.pictures import PRESENT, as_pictures, augment, pictures, reconstruct
from rewardsds.toybox.train.settings import StageSettings
from rewardsds.toybox.view_judge import ViewJudge, ViewJudgeNetwork, save_view_judge, side_of

RECONSTRUCTED = 0.25
SEED = 9_000_011
"""Added to the run's seed, so that this judge shares its draws with no other network."""
TOLD = 0.85
"""A kind's sides are told where front and back are told apart in at least this share of validation pictures, in which
toys may hide each other."""


FACED = ("backpack", "car", "chair", "couch", "cup", "dog", "penguin", "sheep")
"""Kinds that look otherwise from the front than from behind. What others show says nothing about the side."""


def faced_pictures(data: ToyboxData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scenes, views and toys (M,) of all pictures whose largest toy is one of FACED."""
    count = data.views.shape[1]
    scenes, views = np.repeat(np.arange(len(data)), count), np.tile(np.arange(count), len(data))
    toys, asked = largest_toys(data, scenes, views)
    faced = [data.scenes[scene]["toys"][toy][0] in FACED for scene, toy in zip(scenes, toys, strict=True)]
    chosen = asked & np.array(faced)
    return scenes[chosen], views[chosen], toys[chosen]


def largest_toys(data: ToyboxData, scenes: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,) index of the toy that covers most of each picture, and (M,) whether it covers enough to be asked about."""
    shares = data.visible[scenes, views]
    largest = shares.argmax(-1)
    return largest, shares.max(-1) >= PRESENT


def sides(data: ToyboxData, scenes: np.ndarray, views: np.ndarray, toys: np.ndarray) -> Tensor:
    """(M,) index into SIDES from which each picture shows its toy: the camera's azimuth, less the toy's yaw."""
    found = []
    for scene, view, toy in zip(scenes, views, toys, strict=True):
        x, y = data.poses[scene, view, :2, 3]
        found.append(side_of(math.atan2(y, x) - data.scenes[scene]["yaws"][toy]))
    return torch.tensor(found)


class Batch(NamedTuple):
    """(M,) scenes, (M,) views, and (M,) index into SIDES."""

    scenes: Tensor
    views: Tensor
    truth: Tensor


def draw_batch(
    data: ToyboxData, faced: tuple[np.ndarray, np.ndarray, np.ndarray], count: int, seed: int, step: int
) -> Batch:
    """faced: the `faced_pictures` to draw from."""
    drawn = Draws.of(seed, step).numpy.integers(0, len(faced[0]), count)
    scenes, views, toys = (values[drawn] for values in faced)
    return Batch(torch.from_numpy(scenes), torch.from_numpy(views), sides(data, scenes, views, toys))


def train_view_judge(
    data: ToyboxData,
    validation: ToyboxData,
    out: Path,
    settings: StageSettings,
    seed: int = 0,
    device: str = "cpu",
    log: Callable[[str], None] = say,
    stop_after: int | None = None,
) -> Progress:
    """Trains and exports to out/weights/view-judge.

    Loss: cross-entropy of the side. A share of the pictures comes through the autoencoder, others are blurred and
    noisy. Which kinds it tells is measured on `validation` and written beside the weights.
    """
    faced = faced_pictures(data)
    if not len(faced[0]):
        raise ValueError(f"no scene shows a toy with a front: {', '.join(FACED)}")
    autoencoder = load_autoencoder(out / "weights").to(device, memory_format=torch.channels_last)
    torch.manual_seed(seed + SEED)
    model = ViewJudgeNetwork().to(device)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    views = Rows(data.views, device)

    def loss(step: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        draws = Draws.of(seed + SEED, step, device)
        images = as_pictures(views[batch.scenes, batch.views])
        images = augment(reconstruct(autoencoder, images, draws, RECONSTRUCTED), draws)
        logits = model(images.contiguous(memory_format=torch.channels_last))
        value = F.cross_entropy(logits, batch.truth)
        return value, {"right": (logits.detach().argmax(-1) == batch.truth).float().mean()}

    folder = out / "view-judge"
    draw = partial(draw_batch, data, faced, settings.batch, seed + SEED)
    progress = fit(model, draw, loss, settings, folder, log, stop_after)
    if progress.finished:
        judge = ViewJudge(model, device=device)
        told = [
            kind
            for kind, share in front_from_back(judge, validation, device).items()
            if share["pictures"] >= 10 and share["told"] >= TOLD
        ]
        log(f"it tells the front of: {', '.join(told) or 'no kind'}")
        save_view_judge(model, out / "weights" / "view-judge", told)
        write_record(folder, settings, progress, device, scenes=len(data), seed=seed + SEED)
    return progress


@torch.no_grad()
def front_from_back(judge: ViewJudge, data: ToyboxData, device: str) -> dict[str, dict[str, float]]:
    """By kind: in what share of true pictures from the front or from behind the judge says the right one of the two.

    All pictures of a data set in which a toy of the kind is the largest, of FACED. `pictures`: how many from the front
    or behind. `side`: share in which all four sides are told, of pictures from anywhere.
    """
    found: dict[str, list[tuple[bool, bool | None]]] = {}
    chosen = faced_pictures(data)
    for part in np.array_split(np.arange(len(chosen[0])), max(1, len(chosen[0]) // 256)):
        scenes, views, toys = (values[part] for values in chosen)
        truth = sides(data, scenes, views, toys).tolist()
        given = judge.probabilities(pictures(data, scenes, views, device))
        for scene, toy, right, shares in zip(scenes, toys, truth, given, strict=True):
            kind = data.scenes[scene]["toys"][toy][0]
            front = bool(shares[0] > shares[2]) == (right == 0) if right in (0, 2) else None
            found.setdefault(kind, []).append((int(shares.argmax()) == right, front))
    result = {}
    for kind, answers in sorted(found.items()):
        facing = [front for _, front in answers if front is not None]
        result[kind] = {
            "pictures": len(facing),
            "told": sum(facing) / len(facing) if facing else float("nan"),
            "side": sum(side for side, _ in answers) / len(answers),
        }
    return result
