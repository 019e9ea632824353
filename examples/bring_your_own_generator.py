"""Bring your own generator: a small network of ours paints a picture for a prompt.

`RewardSDS` is a loss like any other. What it needs is a differentiable picture in [0, 1]; where the picture
comes from is your affair. Here it is a coordinate MLP: position in, colour out.

    python examples/bring_your_own_generator.py "a green apple and a black backpack"
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from rewardsds import AnnealedRange, BestWorst, RewardSDS, load_prior, load_reward


class Painter(nn.Module):
    """Colours (3, size, size) in [0, 1] from Fourier features of the pixels' positions (arXiv 2006.10739)."""

    def __init__(self, features: int = 64, bandwidth: float = 4.0, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("frequencies", bandwidth * torch.randn(2, features, generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(2 * features, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 3)
            )

    def forward(self, size: int = 64) -> Tensor:
        axis = torch.linspace(-1.0, 1.0, size)
        positions = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
        angles = positions @ self.get_buffer("frequencies")
        colours = self.layers(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return colours.sigmoid().permute(2, 0, 1)


def paint(
    prompt: str, steps: int = 300, prior: str = "toybox", reward: str = "clip", seed: int = 0
) -> tuple[Tensor, RewardSDS]:
    """Train a painter; returns its picture (3, 64, 64) and the guidance (`record`: its last step)."""
    guidance = RewardSDS(
        load_prior(prior, device="cpu"),
        load_reward(reward, device="cpu"),
        candidates=4,
        weighting=BestWorst(k=1),
        guidance_scale=30.0,
        timesteps=AnnealedRange(t_min=(0.5, 0.02), t_max=(0.98, 0.5), steps=steps),
        seed=seed,
    )
    painter = Painter(seed=seed)
    optimiser = torch.optim.Adam(painter.parameters(), lr=3e-3)
    for step in range(steps):
        image = painter()
        loss = guidance(image, prompt)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 50 == 0 and guidance.record.rewards is not None:
            print(f"step {step}: best reward {guidance.record.rewards.max():.3f}")
    return painter().detach(), guidance


def save(image: Tensor, file: Path) -> None:
    """Write a picture (3, H, W) in [0, 1]."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prompt", nargs="?", default="a red apple")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--prior", default="toybox", help="'toybox', a folder, or a hub id")
    parser.add_argument("--reward", default="clip", help="'clip', a folder, or a hub id")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("painted.png"))
    options = parser.parse_args()
    image, _ = paint(options.prompt, options.steps, options.prior, options.reward, options.seed)
    save(image, options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
