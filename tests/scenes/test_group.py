"""A group is its scenes, side by side."""

from __future__ import annotations

from collections.abc import Sequence

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


def scene(seed: int) -> GaussianScene:
    return GaussianScene(generators([seed]), SETTINGS, camera=CAMERA)


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


def test_items_are_what_they_would_be_alone():
    group = optimise(SceneGroup([scene(3), scene(8)]), [3, 8])
    for index, seed in enumerate([3, 8]):
        alone = optimise(scene(seed), [seed])
        assert len(alone["means"]) != SETTINGS.initial_gaussians
        for key, value in alone.items():
            torch.testing.assert_close(group[f"{index}/{key}"], value, atol=1e-6, rtol=1e-5)


def test_state_goes_out_and_in_again():
    first = SceneGroup([scene(3), scene(8)])
    state = optimise(first, [3, 8])
    second = SceneGroup([scene(0), scene(1)])
    second.load_state_dict(state)
    again = second.state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(state[key], again[key]) for key in state)
    names = [group["name"] for group in second.parameter_groups()]
    assert len(set(names)) == len(names)


def test_only_scenes_of_one_item_make_a_group():
    with pytest.raises(ValueError, match="one item each"):
        SceneGroup([LatentImageScene((4, 8, 8), generators([0, 1]))])
    with pytest.raises(ValueError, match="one item each"):
        SceneGroup([])
