"""A NeRF as a scene that score distillation can optimise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from rewardsds.errors import NotFiniteError
from rewardsds.scenes.base import Rendering
from rewardsds.scenes.cameras import Cameras
from rewardsds.scenes.nerf import regularisers
from rewardsds.scenes.nerf.environment import Environment
from rewardsds.scenes.nerf.field import Field
from rewardsds.scenes.nerf.fit import fit_shape
from rewardsds.scenes.nerf.occupancy import OccupancyGrid
from rewardsds.scenes.nerf.settings import NeRFSettings, scheduled
from rewardsds.scenes.nerf.volume import Samples, accumulate, render_weights, sample_rays
from rewardsds.scenes.object3d import RADIUS, Colour, Object3D
from rewardsds.scenes.settings import BackgroundSettings, CameraSettings

OF_A_FIELD = (
    "levels", "features", "log2_table", "base_resolution", "growth", "neurons", "hidden_layers", "density_activation",
    "colour_activation", "blob", "blob_scale", "blob_radius",
)  # fmt: skip
"""Settings with which the same weights mean another object, or none."""
POINTS_AT_ONCE = 2**18  # of questions about the shape: memory


class NeRFScene(Object3D):
    """One object that is a density and a colour at every point. It holds exactly one item: B items are B scenes."""

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        settings: NeRFSettings | None = None,
        *,
        camera: CameraSettings | None = None,
        background: BackgroundSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """generators: one CPU generator, from which the initial weights are drawn."""
        super().__init__(camera, background, device)
        if len(generators) != 1:
            raise ValueError(
                f"a NeRF scene holds one item and takes one generator, got {len(generators)}; make one scene per item"
            )
        s = self.settings = settings or NeRFSettings()
        self.field = Field(s, generators[0]).to(self.device)
        self.environment: Environment | None = None
        if s.environment:
            self.environment = Environment(s.environment_layers, s.environment_neurons, generators[0])
            self.environment.to(self.device)
        self.occupancy = OccupancyGrid(s.occupancy_resolution, s.occupancy_decay, s.occupancy_threshold)
        self.occupancy.to(self.device)
        self.occupancy.update(self.density, self._step_length(True), fresh=True)

    def _step_length(self, training: bool) -> float:
        """Length of a sample in world units."""
        s = self.settings
        return 2 * RADIUS / (s.samples_per_ray if training else s.evaluation_samples_per_ray)

    # --- seeing -----------------------------------------------------------------------------------------

    def render(
        self,
        cameras: Cameras | None,
        generators: Sequence[torch.Generator] | None = None,
        size: int | None = None,
        background: Colour | None = None,
    ) -> Rendering:
        """As `Object3D.render`; depth is the expected one along the camera's axis, 0 where nothing is.

        In training (with generators) each ray's samples are shifted by a random part of their length, a group's
        background may be replaced, and `penalty` (G,) holds the regularisers; otherwise nothing is drawn. A given
        background replaces the environment too.
        """
        cameras, groups, views = self.groups_and_views(cameras)
        size = size or self.resolution
        cameras = cameras.to(self.device)
        origins, directions = (rays.flatten(0, -2) for rays in cameras.rays(size, size))
        behind = self._behind(directions, groups, generators, background)
        training = generators is not None
        shift = torch.full((len(origins),), 0.5)
        if generators is not None:
            shift = torch.rand((len(origins),), generator=generators[0])
        shift = shift.to(self.device)
        # without gradient nothing is kept from one part of the rays to the next: memory is that of a part
        bins = self.settings.samples_per_ray if training else self.settings.evaluation_samples_per_ray
        part = len(origins) if torch.is_grad_enabled() else max(1, self.settings.samples_at_once // bins)
        colours, alphas, distances, penalties = zip(
            *(
                self._render_rays(*rays, training)
                for rays in zip(origins.split(part), directions.split(part), shift.split(part))
            )
        )
        alpha, distance = torch.cat(alphas), torch.cat(distances)
        images = torch.cat(colours) + (1 - alpha)[:, None] * behind
        forward = -cameras.camera_to_world[..., :3, 2].flatten(0, 1)  # V 3
        along = (directions.unflatten(0, (groups * views, -1)) * forward[:, None]).sum(-1).flatten()
        shape = (groups, views, size, size)
        return Rendering(
            images=images.reshape(*shape, 3).permute(0, 1, 4, 2, 3),
            alpha=alpha.reshape(shape)[:, :, None],
            depth=(distance * along).reshape(shape)[:, :, None],
            penalty=torch.cat(penalties).reshape(groups, -1).sum(1) if training else None,
        )

    def _behind(
        self,
        directions: Tensor,
        groups: int,
        generators: Sequence[torch.Generator] | None,
        background: Colour | None,
    ) -> Tensor:
        """Colours (R, 3) behind rays (R, 3) of groups, one after the other; the views of a group share a plain one."""
        plain = torch.stack([self.plain_background(generators, background) for _ in range(groups)])
        plain = plain.repeat_interleave(len(directions) // groups, dim=0)
        if self.environment is None or background is not None:
            return plain
        seen = self.environment(directions)
        if generators is None:
            return seen
        replaced = torch.rand((groups,), generator=generators[0]) < self.settings.environment_replacement
        chosen = replaced.to(self.device).repeat_interleave(len(directions) // groups)
        return torch.where(chosen[:, None], plain, seen)

    def _render_rays(
        self, origins: Tensor, directions: Tensor, shift: Tensor, training: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of rays (R, 3): colours on black (R, 3), alpha, expected distance and penalty (R,)."""
        step, rays = self._step_length(training), len(origins)
        samples = sample_rays(
            origins, directions, step, shift, self.occupancy.occupied, self.settings.samples_at_once
        )
        samples, known = self._lit(samples, step, rays)
        encoded = self.field.encode(samples.points, known)
        density = self.field.density(samples.points, encoded)
        if not training and not bool(density.isfinite().all()):
            raise NotFiniteError("the NeRF holds NaN or infinite densities and cannot be rendered")
        weights, _ = render_weights(density, step, samples.ray, rays)
        colour = accumulate(weights, self.field.colour(samples.points, encoded), samples.ray, rays)
        alpha = accumulate(weights, None, samples.ray, rays)
        distance = accumulate(weights, samples.distance[:, None], samples.ray, rays)[:, 0]
        distance = distance / alpha.clamp(min=1e-6)
        penalty = self._penalty(samples, weights, directions, alpha, distance) if training else alpha
        return colour, alpha, distance, penalty

    @torch.no_grad()
    def _lit(self, samples: Samples, step: float, rays: int) -> tuple[Samples, Tensor | None]:
        """The samples that light gets through to, and their encodings, where those were needed to know.

        What lies behind a surface need not be evaluated with gradient.
        """
        limit = self.settings.early_stop
        if limit == 0 or len(samples) == 0:
            return samples, None
        encoded = self.field.encode(samples.points)
        density = self.field.density(samples.points, encoded)
        _, transmittance = render_weights(density, step, samples.ray, rays)
        lit = (~(transmittance <= limit)).nonzero()[:, 0]  # NaN stays, to be told
        if len(lit) == len(samples):
            return samples, encoded
        return samples[lit], encoded[lit]

    def _penalty(
        self, samples: Samples, weights: Tensor, directions: Tensor, alpha: Tensor, distance: Tensor
    ) -> Tensor:
        """(R,) the regularisers of rays, weighted for the present step."""
        s = self.settings
        orientation, opacity, sparsity, z_variance = (
            scheduled(weight, self.step)
            for weight in (s.orientation_weight, s.opacity_weight, s.sparsity_weight, s.z_variance_weight)
        )
        penalty = torch.zeros_like(alpha)
        if orientation and len(samples):
            normals = self.field.normals(samples.points)
            facing = regularisers.orientation(normals, directions[samples.ray])
            penalty = penalty + orientation * accumulate(
                weights.detach() * facing, None, samples.ray, len(alpha)
            )
        if opacity:
            penalty = penalty + opacity * regularisers.opacity_entropy(alpha)
        if sparsity:
            penalty = penalty + sparsity * regularisers.sparsity(alpha)
        if z_variance:
            penalty = penalty + z_variance * regularisers.z_variance(
                weights, samples.distance, distance.detach(), alpha, samples.ray
            )
        return penalty

    # --- its shape --------------------------------------------------------------------------------------

    def density(self, points: Tensor) -> Tensor:
        """Per world unit of length; 0 outside the ball of radius 1, of which nothing is ever rendered."""
        return self._asked(points, lambda part: self.field.density(part) * (part.norm(dim=-1) < RADIUS))

    def colour(self, points: Tensor) -> Tensor:
        return self._asked(points, self.field.colour)

    @torch.no_grad()
    def _asked(self, points: Tensor, question: Callable[[Tensor], Tensor]) -> Tensor:
        points = points.to(self.device, torch.float32)
        return torch.cat([question(part) for part in points.split(POINTS_AT_ONCE)])

    def start_from(
        self,
        points: Tensor,
        colours: Tensor,
        inside: Callable[[Tensor], Tensor] | None,
        generator: torch.Generator,
        steps: int = 300,
    ) -> None:
        """Fits density and colour to a shape, in place of the blob.

        points: (M, 3) on its surface, in the ball of radius 1. colours: (M, 3) in [0, 1], theirs. inside: points
        (K, 3) → (K,) bool; without it, what the points enclose. Surfaces that enclose nothing become thin sheets.
        generator: a CPU generator. Raises ValueError for points that show no shape. Call it before the optimiser is
        made.
        """
        fit_shape(self.field, points, colours, inside, generator, steps, self._step_length(True))
        self.occupancy.update(self.density, self._step_length(True), fresh=True)

    def start_from_nerf(self, other: NeRFScene) -> list[str]:
        """Takes density and colour of another scene over; the environment too where both have the same kind.

        Returns the names of the settings that differ in what a field is: then nothing is taken over. Call it before the
        optimiser is made.
        """
        different = [
            name for name in OF_A_FIELD if getattr(self.settings, name) != getattr(other.settings, name)
        ]
        if different:
            return different
        self.field.load_state_dict(other.field.state_dict())
        if self.environment is not None and other.environment is not None:
            same = ("environment_layers", "environment_neurons")
            if all(getattr(self.settings, name) == getattr(other.settings, name) for name in same):
                self.environment.load_state_dict(other.environment.state_dict())
        self.occupancy.update(self.density, self._step_length(True), fresh=True)
        return []

    # --- optimising -------------------------------------------------------------------------------------

    def parameter_groups(self) -> list[dict[str, Any]]:
        s = self.settings
        # Adam reads these two of each group; together they are AdamW
        common = {"eps": s.epsilon, "weight_decay": s.weight_decay, "decoupled_weight_decay": True}
        networks = [*self.field.density_network.parameters(), *self.field.colour_network.parameters()]
        groups: list[dict[str, Any]] = [
            {"name": "grid", "params": [self.field.grid.table], "lr": s.grid_learning_rate, **common},
            {"name": "networks", "params": networks, "lr": s.network_learning_rate, **common},
        ]
        if self.environment is not None:
            own = list(self.environment.parameters())
            groups.append({"name": "environment", "params": own, "lr": s.environment_learning_rate, **common})
        return groups

    def regularisation(self, rendering: Rendering) -> Tensor | None:
        """The sum of the groups' penalties; None where no regulariser has a weight now."""
        s = self.settings
        weights = (s.orientation_weight, s.opacity_weight, s.sparsity_weight, s.z_variance_weight)
        if rendering.penalty is None or not any(scheduled(weight, self.step) for weight in weights):
            return None
        return self.camera.pixel_weight(self.step) * rendering.penalty.sum()

    def after_step(
        self, step: int, optimizer: torch.optim.Optimizer, generators: Sequence[torch.Generator]
    ) -> None:
        """On schedule looks anew at which parts of space hold something, at points from generators[0]."""
        super().after_step(step, optimizer, generators)
        if (step + 1) % self.settings.occupancy_every == 0:
            self.occupancy.update(self.density, self._step_length(True), generators[0])

    # --- keeping ----------------------------------------------------------------------------------------

    def _modules(self) -> dict[str, Module]:
        modules: dict[str, Module] = {"field": self.field, "occupancy": self.occupancy}
        return modules if self.environment is None else {**modules, "environment": self.environment}

    def state_dict(self) -> Mapping[str, Tensor]:
        """Everything that the next step depends on."""
        return {
            f"{name}.{key}": value
            for name, module in self._modules().items()
            for key, value in module.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes back `state_dict()`, in place. Raises ValueError for a state of other settings, or NaN in it."""
        expected = self.state_dict()
        for said, keys in (
            ("lacks", expected.keys() - state.keys()),
            ("has unknown", state.keys() - expected.keys()),
        ):
            if keys:
                raise ValueError(f"the state of a NeRF scene {said} {', '.join(sorted(keys))}")
        for name, tensor in expected.items():
            if state[name].shape != tensor.shape:
                raise ValueError(
                    f"{name} has shape {tuple(state[name].shape)}, but these settings make it {tuple(tensor.shape)}"
                )
            if not bool(state[name].isfinite().all()):
                raise ValueError(f"{name} holds NaN or infinite values")
        with torch.no_grad():
            for name, tensor in expected.items():
                tensor.copy_(state[name])
        self.occupancy.refresh(self._step_length(True))
