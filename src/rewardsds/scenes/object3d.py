"""What every 3D scene of one object shares: how it is looked at in training and afterwards."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rewardsds.scenes.base import Rendering
from rewardsds.scenes.cameras import Cameras, sample_cameras
from rewardsds.scenes.settings import BackgroundSettings, CameraSettings
from rewardsds.scenes.trajectory import read_trajectory

RADIUS = 1.0  # objects are expected in the ball of this radius around the origin
START_RADIUS = 0.9  # of the ball that shapes to start from are scaled to fit into
Colour = tuple[float, float, float]


class IntoBall(NamedTuple):
    """centre (3,) float64: what is taken from points. factor: what they are then multiplied by."""

    centre: Tensor
    factor: float

    def moved(self, points: Tensor) -> Tensor:
        """Points (M, 3) float32."""
        return ((points.double() - self.centre) * self.factor).float()


def into_ball(points: Tensor, radius: float = START_RADIUS) -> IntoBall:
    """What brings points (M, 3) just into the ball of a radius, their bounding box around the origin.

    Raises ValueError where all of them lie at one place."""
    places = points.double()
    centre = (places.amin(0) + places.amax(0)) / 2
    farthest = float((places - centre).norm(dim=-1).max())
    if not 0 < farthest < math.inf:
        raise ValueError("all of it lies at one point")
    return IntoBall(centre, radius / farthest)


class Object3D(ABC):
    """One object: a scene of exactly one item, seen in one or more groups of V views. B items are B of them.

    step: as of `Scene`; training resolution and schedules follow it. relative_distance: mean of distance × tan(field
    of view / 2) over training cameras; None as long as those of a trajectory are not known.
    """

    def __init__(
        self,
        camera: CameraSettings | None = None,
        background: BackgroundSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.camera = camera or CameraSettings()
        self.background = background or BackgroundSettings()
        self.device = torch.device(device)
        self.step = 0
        self._in_progress = False
        self._trajectory: Cameras | None = None
        self.relative_distance: float | None = None
        if self.camera.trajectory is None:
            self.relative_distance = sum(self.camera.relative_distance) / 2

    @property
    def batch(self) -> int:
        return 1

    @property
    def resolution(self) -> int:
        """Pixels of training renders: of the step in progress, and between steps of the last that was done."""
        return self.camera.resolution_at(self.step if self._in_progress else max(self.step - 1, 0))

    # --- seeing -----------------------------------------------------------------------------------------

    def trajectory(self) -> Cameras | None:
        """The cameras (T,) of the settings' file, None without one. It is read when they are first asked for: an object
        that is only looked at does without them. Raises ValueError, in one line, where it holds none."""
        if self._trajectory is None and self.camera.trajectory is not None:
            self._trajectory = read_trajectory(self.camera.trajectory)
            self.relative_distance = float(self._trajectory.relative_distance().double().mean())
        return self._trajectory

    def sample_cameras(self, generators: Sequence[torch.Generator], step: int) -> Cameras:
        """Cameras (G, V) of a step, from generators[0]."""
        return sample_cameras(self.camera, generators[0], step, self.trajectory()).to(self.device)

    @abstractmethod
    def render(
        self,
        cameras: Cameras | None,
        generators: Sequence[torch.Generator] | None = None,
        size: int | None = None,
        background: Colour | None = None,
    ) -> Rendering:
        """Images, alpha and depth from cameras (G, V), `size` pixels square; carries gradient.

        size: the training resolution when None. generators: when given (training), backgrounds and sampling positions
        are drawn from generators[0]. background: a plain colour instead of the scene's own.
        """

    def groups_and_views(self, cameras: Cameras | None) -> tuple[Cameras, int, int]:
        """The cameras of a render, G and V. Raises ValueError for those of another batch shape than (G, V)."""
        if cameras is None or len(cameras.batch_shape) != 2:
            shape = None if cameras is None else tuple(cameras.batch_shape)
            raise ValueError(f"an object is rendered from cameras of batch shape (G, V), got {shape}")
        groups, views = cameras.batch_shape
        return cameras, groups, views

    def render_images(self, cameras: Cameras, size: int, background: Colour | None = None) -> Tensor:
        """Images (G, V, 3, size, size) clamped to [0, 1], on the evaluation background, without gradient."""
        with torch.no_grad():
            images = self.render(cameras, size=size, background=background).images
        assert images is not None
        return images.clamp(0, 1)

    def plain_background(
        self, generators: Sequence[torch.Generator] | None, background: Colour | None = None
    ) -> Tensor:
        """A colour (3,) in [0, 1] on the scene's device: the one given, drawn in training, or the evaluation's."""
        s = self.background
        if background is not None:
            return torch.tensor(background, device=self.device)
        if generators is None or not s.augmentation:
            return torch.tensor(s.evaluation, device=self.device)
        low, high = s.grey
        grey = low + (high - low) * torch.rand((), generator=generators[0])
        tint = s.tint * (2 * torch.rand((3,), generator=generators[0]) - 1)
        return (grey + tint).clamp(0, 1).to(self.device)

    # --- its shape --------------------------------------------------------------------------------------

    @property
    def reach(self) -> float:
        """Radius of a ball around the origin outside of which nothing of it can be, at least `RADIUS`."""
        return RADIUS

    @abstractmethod
    def density(self, points: Tensor) -> Tensor:
        """(M,) of points (M, 3), without gradient: larger inside than outside, smooth, of any scale."""

    @abstractmethod
    def colour(self, points: Tensor) -> Tensor:
        """(M, 3) in [0, 1] of points (M, 3) on the surface, without gradient."""

    # --- optimising -------------------------------------------------------------------------------------

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]: ...

    def regularisation(self, rendering: Rendering) -> Tensor | None:
        return None

    def before_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        self.step = step
        self._in_progress = True

    def after_step(
        self, step: int, optimizer: torch.optim.Optimizer, generators: Sequence[torch.Generator]
    ) -> None:
        self.step = step + 1
        self._in_progress = False

    @abstractmethod
    def state_dict(self) -> Mapping[str, Tensor]: ...

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...
