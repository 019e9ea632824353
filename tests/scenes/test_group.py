"""A group is its scenes, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rewardsds.runs.loop import make_optimizer
from rewardsds.scenes.base import Scene
from rewardsds.scenes.gaussians.scene import GaussianScene
from rewardsds.scenes.gaussians.settings import GaussianSettings
from rewardsds.scenes.group import SceneGroup
from rewardsds.scenes.image import LatentImageScene
from rewardsds.scenes.settings import CameraSettings

SETTINGS = GaussianSettings(
    initial_gaussians=60,
    max_gaussians=90,
    densify_start=2,
    densify_every=2,
    densify_threshold=0.5,
    prune_start=2,
)

CAMERA = CameraSettings(resolution=(16,), views=2)


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def scene(seed: int, settings: GaussianSettings = SETTINGS) -> GaussianScene:
    return GaussianScene(generators([seed]), settings, camera=CAMERA)


def optimise(scene: Scene, seeds: Sequence[int], steps: int = 6) -> dict[str, Tensor]:
    """Towards a red picture, which adds and removes Gaussians on the way."""
    optimizer, own = make_optimizer(scene), generators(seeds)
    red = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    for step in range(steps):
        scene.before_step(step, optimizer)
        rendering = scene.render(scene.sample_cameras(own, step), own)
        assert rendering.images is not None
        loss = (rendering.images - red).square().sum()
        extra = scene.regularisation(rendering)
        optimizer.zero_grad()
        (loss if extra is None else loss + extra).backward()
        optimizer.step()
        scene.after_step(step, optimizer, own)
    return dict(scene.state_dict())


ALL = {"sh_degree": 2, "sh_degree_every": 2, "prune_screen_size": 0.4}


@pytest.mark.parametrize("changes", [{}, ALL, {**ALL, "strategy": "mcmc"}])
def test_items_are_what_they_would_be_alone(changes: dict[str, Any]):
    settings = SETTINGS.model_copy(update=changes)
    group = optimise(SceneGroup([scene(3, settings), scene(8, settings)]), [3, 8])
    for index, seed in enumerate([3, 8]):
        alone = optimise(scene(seed, settings), [seed])
        assert len(alone["means"]) != settings.initial_gaussians
        if settings.sh_degree:
            assert alone["degree"] == 2
            assert alone["harmonics"].any()
        for key, value in alone.items():
            torch.testing.assert_close(group[f"{index}/{key}"], value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("changes", [{}, ALL])
def test_state_goes_out_and_in_again(changes: dict[str, Any]):
    settings = SETTINGS.model_copy(update=changes)
    first = SceneGroup([scene(3, settings), scene(8, settings)])
    state = optimise(first, [3, 8])
    second = SceneGroup([scene(0, settings), scene(1, settings)])
    second.load_state_dict(state)
    again = second.state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(state[key], again[key]) for key in state)
    names = [group["name"] for group in second.parameter_groups()]
    assert len(set(names)) == len(names)


def test_its_step_is_that_of_every_scene():
    scenes = [scene(3), scene(8)]
    group = SceneGroup(scenes)
    group.step = 7
    assert [one.step for one in scenes] == [7, 7]
    assert group.step == 7


def test_only_scenes_of_one_item_make_a_group():
    with pytest.raises(ValueError, match="one item each"):
        SceneGroup([LatentImageScene((4, 8, 8), generators([0, 1]))])
    with pytest.raises(ValueError, match="one item each"):
        SceneGroup([])
