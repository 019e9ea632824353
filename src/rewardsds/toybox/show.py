"""A contact sheet of true scenes for a prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rewardsds.scenes.cameras import orbit
from rewardsds.toybox import captions
from rewardsds.toybox.render import Pictures, render
from rewardsds.toybox.world import ToyScene, build

AZIMUTHS = (0.0, 90.0, 180.0, 270.0)


def show(
    prompt: str, out: Path | str, scenes: int = 4, size: int = 192, seed: int = 0
) -> tuple[Path, list[str]]:
    """Draws `scenes` different scenes that the prompt describes, one a row, from the front, right, back and left.

    Returns the picture's path and what the user should know (words that are not known, toys left out). Raises
    ValueError when the prompt names no toy.
    """
    parsed = captions.parse(prompt)
    if parsed.spec is None:
        unknown = f" (unknown: {', '.join(parsed.unknown)})" if parsed.unknown else ""
        raise ValueError(
            f"the prompt {prompt!r} names no toy of the toybox{unknown}; "
            'try "a red apple" or "a penguin with a brown bag in the snow"'
        )
    worlds = [build(parsed.spec, np.random.default_rng((seed, index))) for index in range(scenes)]
    pictures = look(worlds, AZIMUTHS, size)
    gap = 4
    cell = size + gap
    sheet = np.full((scenes * cell + gap, len(AZIMUTHS) * cell + gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures.colour):
        row, column = divmod(index, len(AZIMUTHS))
        sheet[gap + row * cell :, gap + column * cell :][:size, :size] = picture
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)
    return path, parsed.notes


def look(worlds: Sequence[ToyScene], azimuths: Sequence[float], size: int) -> Pictures:
    """Each scene from each azimuth (degrees, 0 is the front) in turn, slightly from above, `size` pixels a side."""
    azimuth = torch.deg2rad(torch.tensor(azimuths)).repeat(len(worlds))
    fov = torch.full_like(azimuth, math.radians(40.0))
    cameras = orbit(azimuth, torch.full_like(azimuth, math.radians(15.0)), 1.05 / torch.tan(0.5 * fov), fov)
    return render(
        worlds,
        np.repeat(np.arange(len(worlds)), len(azimuths)),
        cameras.camera_to_world.numpy(),
        cameras.field_of_view.numpy(),
        size,
    )
