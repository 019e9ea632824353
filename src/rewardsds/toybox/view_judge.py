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
import torch.nn.functional as F
from torch import Tensor, nn

from rewardsds.pretrained import embedded_weights
from rewardsds.toybox.judge import IMAGE_SIZE, Residual

SIDES = ("front", "left", "back", "right")
"""By the azimuth of the camera around the toy, counted from where it faces: 0°, 90°, 180°, 270°, 45° either way."""


def side_of(azimuth: float) -> int:
    """Index into SIDES for an azimuth in radians."""
    return round(azimuth / (math.pi / 2)) % len(SIDES)


class ViewJudgeNetwork(nn.Module):
    """ResNet-style with GroupNorm and global pooling: images (M, 3, 64, 64) in [0, 1] → logits (M, 4) of SIDES."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.stem = nn.Conv2d(3, width, 5, 2, 2)
        stages, before = [], width
        for out, stride in ((2 * width, 1), (4 * width, 2), (4 * width, 1), (8 * width, 2), (8 * width, 1)):
            stages.append(Residual(before, out, stride))
            before = out
        self.stages = nn.Sequential(*stages)
        self.sides = nn.Linear(2 * before, len(SIDES))

    def forward(self, images: Tensor) -> Tensor:
        features = self.stages(F.relu(self.stem(images * 4 - 2)))
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
        if images.ndim < 3 or images.shape[-3] != 3:
            raise ValueError(f"the judge of views takes images (..., 3, H, W), got {tuple(images.shape)}")
        leading = images.shape[:-3]
        flat = images.detach().reshape(-1, *images.shape[-3:]).to(self.device, torch.float32)
        if flat.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
            flat = F.interpolate(flat, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", antialias=True).clamp(0, 1)
        found = torch.cat([self.network(part).softmax(-1) for part in flat.split(128)]).cpu()
        return found.reshape(*leading, len(SIDES))


def save_view_judge(network: ViewJudgeNetwork, folder: Path, kinds: Sequence[str] = ()) -> None:
    """config.json and model.safetensors in half precision."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {"width": network.width, "sides": list(SIDES), "kinds": list(kinds), "image_size": IMAGE_SIZE}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {
        name: value.detach().cpu().to(torch.float16).contiguous()
        for name, value in network.state_dict().items()
    }
    save_file(state, folder / "model.safetensors")


def load_view_judge(folder: Path | None = None, device: str | torch.device = "cpu") -> ViewJudge:
    """The packaged judge of views, or one that training has written. Raises ValueError where there is none."""
    from safetensors.torch import load_file

    folder = folder or embedded_weights("view-judge")
    if not (folder / "config.json").exists():
        raise ValueError(
            f"no judge of views in {folder}: train one with `rewardsds toybox train --stage view-judge`"
        )
    config = json.loads((folder / "config.json").read_text())
    network = ViewJudgeNetwork(config["width"])
    network.load_state_dict(
        {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
    )
    return ViewJudge(network, config["kinds"], device)
