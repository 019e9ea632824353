"""Small Gaussian scenes and steps of their optimisation, for tests."""

import torch
from torch import Tensor

from rewardsds.scenes.base import Rendering
from rewardsds.scenes.gaussians.scene import GaussianScene
from rewardsds.scenes.gaussians.settings import GaussianSettings
from rewardsds.scenes.settings import BackgroundSettings, CameraSettings


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(seed: int = 0, background: BackgroundSettings | None = None, **settings) -> GaussianScene:
    own = GaussianSettings.model_validate({"initial_gaussians": 200, **settings})
    return GaussianScene(
        [generator(seed)], own, camera=CameraSettings(resolution=(32,)), background=background
    )


def images_of(rendering: Rendering) -> Tensor:
    assert rendering.images is not None
    return rendering.images


def step(scene: GaussianScene, optimizer, g: torch.Generator, number: int) -> None:
    """One step towards the colour (0.2, 0.5, 0.8)."""
    scene.before_step(number, optimizer)
    rendering = scene.render(scene.sample_cameras([g], number), [g])
    loss = (images_of(rendering) - torch.tensor([0.2, 0.5, 0.8])[:, None, None]).square().sum()
    regularisation = scene.regularisation(rendering)
    if regularisation is not None:
        loss = loss + regularisation
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scene.after_step(number, optimizer, [g])


def moments(scene: GaussianScene, optimizer, name: str) -> Tensor:
    return optimizer.state[getattr(scene, name)]["exp_avg"]
