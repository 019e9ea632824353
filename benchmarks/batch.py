"""What benchmarks of many items share: settings from the command line, and latents optimised side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rewardsds.distillation.guidance import RewardSDS
from rewardsds.priors.base import Prior
from rewardsds.runs.loop import make_optimizer
from rewardsds.runs.randomness import generator
from rewardsds.scenes.image import LatentImageScene
from rewardsds.toybox.captions import parse
from rewardsds.toybox.specification import SceneSpec


def optimise_latents(
    scene: LatentImageScene,
    guidance: RewardSDS,
    prior: Prior,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    after_step: Callable[[int], None] = lambda step: None,
) -> Tensor:
    """The pictures (B, 3, H, W) after all steps; item b draws what a run with seed b draws."""
    optimizer = make_optimizer(scene)
    generators = [generator(seed, "noise") for seed in seeds]
    for step in range(steps):
        optimizer.zero_grad()
        guidance(latents=scene.latents, prompt=prompts, step=step, generators=generators).backward()
        optimizer.step()
        after_step(step)
    with torch.no_grad():
        return prior.decode(scene.latents)[:, 0]


def known_spec(prompt: str) -> SceneSpec:
    """What a prompt of the toybox's own describes."""
    spec = parse(prompt).spec
    assert spec is not None, prompt
    return spec


def assigned(assignments: list[str]) -> dict[str, Any]:
    """["inversion.steps=4", "candidates=8"] → {"inversion": {"steps": "4"}, "candidates": "8"}."""
    values: dict[str, Any] = {}
    for item in assignments:
        name, value = item.split("=", 1)
        *path, last = name.split(".")
        inner = values
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return values
