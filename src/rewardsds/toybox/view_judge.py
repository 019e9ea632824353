"""The judge of views: says from which side a picture shows its largest toy. It measures, and never steers.

An object of two faces (the Janus problem of text to 3D) shows a front from behind too: `evaluation.janus` asks this
judge all around an object.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rewardsds.pretrained import embedded_weights
from rewardsds.toybox.judge import IMAGE_SIZE, Trunk, as_seen, load_weights, save_network

SIDES = ("front", "left", "back", "right")
"""By the azimuth of the camera around the toy, counted from where it faces: 0°, 90°, 180°, 270°, 45° either way."""


def side_of(azimuth: float) -> int:
    """Index into SIDES for an azimuth in radians."""
    return round(azimuth / (math.pi / 2)) % len(SIDES)


class ViewJudgeNetwork(Trunk):
    """The judges' trunk with global pooling: images (M, 3, 64, 64) in [0, 1] → logits (M, 4) of SIDES."""

    def __init__(self, width: int = 16) -> None:
        super().__init__(width)
        self.sides = nn.Linear(2 * self.channels, len(SIDES))

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        return self.sides(torch.cat([features.mean((-2, -1)), features.amax((-2, -1))], dim=-1))


class ViewJudge:
    """A trained judge of views. Not a `Reward`, and not to be made one.

    kinds: toys whose front it tells from their back, as measured on validation scenes; of others it knows no side.
    """

    def __init__(
        self, network: nn.Module, kinds: Sequence[str] = (), device: str | torch.device = "cpu"
    ) -> None:
        self.network = network.to(device).eval().requires_grad_(False)
        self.kinds = tuple(kinds)
        self.device = torch.device(device)

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """(..., 3, H, W) in [0, 1] → (..., 4) of SIDES. Other sizes are resized to 64 px."""
        leading = images.shape[:-3]
        flat = as_seen(images, self.device, "the judge of views")
        found = torch.cat([self.network(part).softmax(-1) for part in flat.split(128)]).cpu()
        return found.reshape(*leading, len(SIDES))


def save_view_judge(network: ViewJudgeNetwork, folder: Path, kinds: Sequence[str] = ()) -> None:
    """config.json and model.safetensors in half precision."""
    config = {"width": network.width, "sides": list(SIDES), "kinds": list(kinds), "image_size": IMAGE_SIZE}
    save_network(network, config, folder)


def load_view_judge(folder: Path | None = None, device: str | torch.device = "cpu") -> ViewJudge:
    """The packaged judge of views, or one that training has written. Raises ValueError where there is none."""
    folder = folder or embedded_weights("view-judge")
    if not (folder / "config.json").exists():
        raise ValueError(
            f"no judge of views in {folder}: train one with `rewardsds toybox train --stage view-judge`"
        )
    config = json.loads((folder / "config.json").read_text())
    network = ViewJudgeNetwork(config["width"])
    load_weights(network, folder)
    return ViewJudge(network, config["kinds"], device)
