"""A scene that shows each item in several groups of views: each group is asked about by itself."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from fake_task import TinySettings, quiet, redness, tiny_prior
from rewardsds.distillation.guidance import RewardSDS
from rewardsds.runs.loop import Job, start
from rewardsds.runs.randomness import generator
from rewardsds.runs.settings import RunSettings
from rewardsds.scenes.export import save_png, turntable_cameras
from rewardsds.scenes.gaussians.scene import GaussianScene
from rewardsds.scenes.gaussians.settings import GaussianSettings
from rewardsds.scenes.group import SceneGroup
from rewardsds.scenes.settings import CameraSettings


def build(settings: RunSettings) -> Job:
    assert isinstance(settings, TinySettings)
    seeds = [settings.seed + item for item in range(settings.items)]
    camera = CameraSettings(views=2, groups=(3, 1), resolution=(8,), milestones=(2,))
    scenes = [
        GaussianScene([generator(seed, "init")], GaussianSettings(initial_gaussians=70), camera=camera)
        for seed in seeds
    ]

    def preview() -> Tensor:
        return scenes[0].render_images(turntable_cameras(1), 16)[0, 0]

    def export(folder: Path) -> list[str]:
        save_png(preview(), folder / "image.png")
        return ["image.png"]

    return Job(
        scene=scenes[0] if len(scenes) == 1 else SceneGroup(scenes),
        guidance=RewardSDS(tiny_prior(8), redness, candidates=4, guidance_scale=5.0),
        prompts=["red"] * len(seeds),
        seeds=seeds,
        preview=preview,
        export=export,
    )


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def made(folder: Path, items: int, seed: int = 0) -> list[dict]:
    start(TinySettings(seed=seed, items=items, steps=4, threads=1, out=folder), build, console=quiet())
    return metrics(folder)


def test_each_group_has_its_own_timestep_noises_and_weights(tmp_path):
    lines = made(tmp_path / "run", 1)
    assert [len(line["timesteps"]) for line in lines] == [3, 3, 1, 1]
    assert [len(line["rewards"][0]) for line in lines] == [3, 3, 1, 1]
    assert len(set(lines[0]["timesteps"])) > 1
    for line in lines:
        torch.testing.assert_close(
            torch.tensor(line["weights"]).sum(0), torch.full((len(line["timesteps"]),), 0.8)
        )
    assert len(set(lines[0]["gradient_norm"])) == 3


def test_items_with_groups_are_what_they_are_alone(tmp_path):
    together = made(tmp_path / "two", 2, seed=5)
    alone = [made(tmp_path / str(seed), 1, seed) for seed in (5, 6)]
    for line, first, second in zip(together, *alone):
        assert line["timesteps"] == first["timesteps"] + second["timesteps"]
        for row, one, other in zip(line["rewards"], first["rewards"], second["rewards"]):
            torch.testing.assert_close(torch.tensor(row), torch.tensor(one + other), atol=1e-5, rtol=1e-4)
