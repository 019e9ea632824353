"""3D Gaussians as a scene that score distillation can optimise."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from rewardsds.errors import InvisibleError
from rewardsds.scenes.base import Rendering
from rewardsds.scenes.cameras import Cameras
from rewardsds.scenes.export import turntable_cameras
from rewardsds.scenes.gaussians import harmonics as sh
from rewardsds.scenes.gaussians.density import PARAMETERS
from rewardsds.scenes.gaussians.field import evaluate, squared_ends
from rewardsds.scenes.gaussians.limits import check_count, check_gaussians
from rewardsds.scenes.gaussians.ply import write_ply
from rewardsds.scenes.gaussians.rasterization import rasterization
from rewardsds.scenes.gaussians.reference import MIN_ALPHA
from rewardsds.scenes.gaussians.settings import GaussianSettings
from rewardsds.scenes.gaussians.splat import write_splat
from rewardsds.scenes.gaussians.starts import brought_in, check_room, from_ply, from_points, unblurred
from rewardsds.scenes.gaussians.strategies import STRATEGIES
from rewardsds.scenes.object3d import RADIUS, Colour, Object3D
from rewardsds.scenes.settings import BackgroundSettings, CameraSettings

TRAINING_BLUR = 0.3  # eps2d in pixels² at the training resolution


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians as the rasteriser takes them: means (N, 3), quats (N, 4) wxyz, scales (N, 3),
    opacities (N,) in [0, 1], colours (N, 3) in [0, 1]: the mean over directions of view. harmonics (N, K, 3): what is
    added to it along a direction, as `harmonics.basis` orders it; None without view dependence."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colours: Tensor
    harmonics: Tensor | None = None


class GaussianScene(Object3D):
    """One object made of Gaussians. It holds exactly one item: B items are B scenes.

    Optimised are means (N, 3), log scales (N, 3), quaternions (N, 4) wxyz, opacity logits (N,), colour logits (N, 3),
    and with sh_degree above 0 the coefficients (N, K, 3) of spherical harmonics of degree 1 and above, of which those
    up to `degree` are in use. `gradient_sum` and `gradient_count` (N,) gather screen-space gradients, in halves of the
    picture's size, since the last densification; `screen_size` (N,) is the largest half extent in a view since the
    last pruning, as a share of the picture, where the settings ask for it.
    """

    means: Parameter
    log_scales: Parameter
    quats: Parameter
    opacity_logits: Parameter
    colour_logits: Parameter
    harmonics: Parameter
    gradient_sum: Tensor
    gradient_count: Tensor
    screen_size: Tensor | None

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        settings: GaussianSettings | None = None,
        *,
        camera: CameraSettings | None = None,
        background: BackgroundSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """generators: one CPU generator, from which the initial Gaussians are drawn."""
        super().__init__(camera, background, device)
        if len(generators) != 1:
            raise ValueError(
                f"a Gaussian scene holds one item and takes one generator, got {len(generators)}; "
                "make one scene per item"
            )
        self.settings = settings or GaussianSettings()
        self.names = (*PARAMETERS, "harmonics") if self.settings.sh_degree else PARAMETERS
        self.strategy = STRATEGIES[self.settings.strategy]()
        self.degree = self.settings.degree_at(0)
        self._renders: list[tuple[Tensor, Tensor, int]] = []  # means2d, radii, size of this step's renders
        self._start(self._initial(generators[0]))

    def _start(self, values: Mapping[str, Tensor]) -> None:
        """New parameters with the given values; harmonics are zero where they are not given."""
        count = len(values["means"])
        grey = torch.zeros(count, sh.count(self.settings.sh_degree), 3)
        for name in self.names:
            value = values.get(name, grey) if name == "harmonics" else values[name]
            setattr(self, name, Parameter(value.to(self.device)))
        self.reset_statistics()
        self.reset_screen_size()
        self._renders.clear()

    def _initial(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Means uniform in a ball, round Gaussians of one size and opacity, colours near grey."""
        s = self.settings
        count = s.initial_gaussians
        direction = torch.nn.functional.normalize(torch.randn((count, 3), generator=generator), dim=-1)
        radius = s.initial_radius * torch.rand((count, 1), generator=generator) ** (1 / 3)
        spacing = s.initial_radius * (4 / 3 * torch.pi / count) ** (1 / 3)
        return {
            "means": direction * radius,
            "log_scales": torch.full((count, 3), s.initial_scale * spacing).log(),
            "quats": torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
            "opacity_logits": torch.full((count,), s.initial_opacity).logit(),
            "colour_logits": s.initial_colour_spread * torch.randn((count, 3), generator=generator),
        }

    def start_from(
        self,
        points: Tensor,
        colours: Tensor,
        generator: torch.Generator,
        normals: Tensor | None = None,
    ) -> None:
        """Puts Gaussians on a surface in place of the present ones, as `starts.from_points` says.

        Call it before the optimiser is made.
        """
        self._start(from_points(self.settings, points, colours, generator, normals))

    def start_from_ply(self, path: str | os.PathLike[str]) -> None:
        """Puts the Gaussians of a 3DGS PLY in place of the present ones, as `starts.from_ply` says.

        Spherical harmonics of the file are in use from the first step on. Call it before the optimiser is made.
        """
        values, degree = from_ply(self.settings, path, self._blur())
        self._start(values)
        self.degree = max(self.degree, degree)

    def start_from_gaussians(self, other: GaussianScene, name: str) -> None:
        """Puts the Gaussians of another scene in place of the present ones, whatever its settings were.

        They look as there: the blur of its renders stays, coefficients of spherical harmonics are added as zeros or
        dropped. What they were about to do there, its statistics, is not taken over. Where the bounds are narrower than
        they were there, Gaussians are brought into them, as `starts.from_ply` says. name: of the other, for errors.
        Raises ValueError for more than max_gaussians. Call it before the optimiser is made.
        """
        s = self.settings
        check_room(s, name, len(other))
        values = {key: getattr(other, key).detach().cpu().clone() for key in PARAMETERS}
        means, scales = values["means"], values["log_scales"].exp()
        own, theirs = self._blur(), other._blur()
        if s.bounds < other.settings.bounds:
            means, scales = brought_in(s, name, means, (scales.square() + theirs).sqrt())
            values |= {"means": means, "log_scales": unblurred(scales, own)}
        elif own != theirs:
            values["log_scales"] = unblurred((scales.square() + theirs).sqrt(), own)
        if s.sh_degree:
            coefficients = torch.zeros(len(other), sh.count(s.sh_degree), 3)
            kept = min(coefficients.shape[1], sh.count(other.degree))
            if kept:
                coefficients[:, :kept] = other.harmonics.detach().cpu()[:, :kept]
            values["harmonics"] = coefficients
        self._start(values)
        self.degree = max(self.degree, min(other.degree, s.sh_degree))

    def reset_statistics(self) -> None:
        self.gradient_sum = torch.zeros(len(self), device=self.device)
        self.gradient_count = torch.zeros(len(self), device=self.device)

    def reset_screen_size(self) -> None:
        measured = self.settings.prune_screen_size is not None
        self.screen_size = torch.zeros(len(self), device=self.device) if measured else None

    def __len__(self) -> int:
        """How many Gaussians there are now."""
        return self.means.shape[0]

    def gaussians(self) -> Gaussians:
        """The Gaussians in the rasteriser's terms; carries gradient."""
        return Gaussians(
            self.means,
            self.quats,
            self.log_scales.exp(),
            self.opacity_logits.sigmoid(),
            self.colour_logits.sigmoid(),
            self.harmonics if self.degree else None,
        )

    # --- seeing -----------------------------------------------------------------------------------------

    def render(
        self,
        cameras: Cameras | None,
        generators: Sequence[torch.Generator] | None = None,
        size: int | None = None,
        background: Colour | None = None,
    ) -> Rendering:
        """As `Object3D.render`; depth is the expected one, 0 where nothing is.

        In pictures larger than the training resolution the splats' blur grows in proportion, so that they show what was
        trained, only with more pixels. One background colour is drawn for all views of a group.
        """
        cameras, groups, views = self.groups_and_views(cameras)
        size = size or self.resolution
        viewmats = cameras.opencv_world_to_camera().flatten(0, 1).to(self.device)
        behind = torch.stack([self.plain_background(generators, background) for _ in range(groups)])
        g = self.gaussians()
        colours = g.colours
        if g.harmonics is not None:
            directions = sh.directions_of_view(g.means, viewmats)
            colours = sh.view_colours(g.colours, g.harmonics, directions, self.degree)
        renders, alphas, info = rasterization(
            g.means,
            g.quats,
            g.scales,
            g.opacities,
            colours,
            viewmats,
            cameras.intrinsics(size, size).flatten(0, 1).to(self.device),
            size,
            size,
            eps2d=TRAINING_BLUR * max(1.0, size / self.resolution) ** 2,
            backgrounds=behind.repeat_interleave(views, dim=0),
            render_mode="RGB+ED",
        )
        if generators is not None and not bool((alphas > 0).any()) and self._vanished():
            raise InvisibleError(
                "nothing is seen of the Gaussians any more: they are too transparent, or out of sight, and have no "
                "gradient by which that could change"
            )
        if info["means2d"].requires_grad:
            self._renders.append((info["means2d"], info["radii"], size))
        renders = renders.permute(0, 3, 1, 2).unflatten(0, (groups, views))
        alpha = alphas.permute(0, 3, 1, 2).unflatten(0, (groups, views))
        return Rendering(images=renders[:, :, :3], depth=renders[:, :, 3:], alpha=alpha)

    def _vanished(self) -> bool:
        """Whether no Gaussian is drawn from four sides, or, where cameras may look elsewhere, none could be."""
        with torch.no_grad():
            if not bool((self.opacity_logits.sigmoid() >= MIN_ALPHA).any()):
                return True
            if self.camera.trajectory is not None:
                return False
            alpha = self.render(turntable_cameras(4), size=64).alpha
        return alpha is not None and not bool((alpha > 0).any())

    def check_visible(self) -> None:
        """Raises InvisibleError where all Gaussians are too transparent to be drawn, or to be changed ever."""
        highest = float(self.opacity_logits.detach().sigmoid().max())
        if highest < MIN_ALPHA:
            raise InvisibleError(
                f"no Gaussian can be seen at the start: opacities are at most {highest:.2g}, and none below 1/255 is "
                f"drawn or changed; give a higher gaussians.initial_opacity (it is {self.settings.initial_opacity:g}), "
                "or another object to start from (init)"
            )

    # --- its shape --------------------------------------------------------------------------------------

    @property
    def reach(self) -> float:
        """As `Object3D.reach`; a Gaussian ends where it adds `field.CUTOFF` to the density. Those that are not finite
        are never seen, and do not count."""
        with torch.no_grad():
            g = self.gaussians()
            ends = squared_ends(g.opacities).sqrt() * g.scales.amax(-1)
            places = g.means.norm(dim=-1) + ends
            places = places[places.isfinite()]
            return max(RADIUS, float(places.max())) if len(places) else RADIUS

    def density(self, points: Tensor) -> Tensor:
        """Σ opacity · exp(−½ d²) over Gaussians, d their Mahalanobis distance (arXiv 2309.16653, section 3.2).

        Terms below `field.CUTOFF` are left out. Raises ValueError where the scene has exploded.
        """
        return self._blend(points, with_colour=False)[0]

    def colour(self, points: Tensor) -> Tensor:
        """Mean colour of the Gaussians, weighted by what they add to the density; the nearest's where none reaches."""
        return self._blend(points, with_colour=True)[1]

    @torch.no_grad()
    def _blend(self, points: Tensor, with_colour: bool) -> tuple[Tensor, Tensor]:
        g = self.finite_gaussians()
        density, colour = evaluate(points, g.means, g.quats, g.scales, g.opacities, g.colours, with_colour)
        return density.to(self.device), colour.to(self.device)

    def finite_gaussians(self) -> Gaussians:
        """The Gaussians; raises ValueError where a value is NaN or infinite."""
        g = self.gaussians()
        held = [g.means, g.quats, g.scales, g.opacities, g.colours]
        check_gaussians("the scene", *held, *([] if g.harmonics is None else [g.harmonics]))
        return g

    # --- optimising -------------------------------------------------------------------------------------

    def parameter_groups(self) -> list[dict[str, Any]]:
        s = self.settings
        rates = {
            "means": s.means_learning_rate,
            "log_scales": s.scales_learning_rate,
            "quats": s.rotations_learning_rate,
            "opacity_logits": s.opacities_learning_rate,
            "colour_logits": s.colours_learning_rate,
            "harmonics": s.harmonics_learning_rate,
        }
        common = {"betas": (0.9, s.beta2), "eps": s.epsilon}
        return [
            {"params": [getattr(self, name)], "lr": rates[name], "name": name, **common}
            for name in self.names
        ]

    def means_learning_rate(self, optimizer: torch.optim.Optimizer) -> float:
        """The present one."""
        return next(float(group["lr"]) for group in optimizer.param_groups if group.get("name") == "means")

    def regularisation(self, rendering: Rendering) -> Tensor | None:
        """Entropy of alpha over pixels; variance of log scales, opacity and scale over Gaussians; weighted, summed."""
        s = self.settings
        terms = []
        if s.opacity_entropy_weight and rendering.alpha is not None:
            alpha = rendering.alpha.clamp(1e-4, 1 - 1e-4)
            entropy = -(alpha * alpha.log() + (1 - alpha) * (1 - alpha).log())
            terms.append(self.camera.pixel_weight(self.step) * s.opacity_entropy_weight * entropy.sum())
        if s.anisotropy_weight:
            terms.append(s.anisotropy_weight * self.log_scales.var(dim=-1, unbiased=False).sum())
        if s.resolved_opacity_weight:
            terms.append(s.resolved_opacity_weight * self.opacity_logits.sigmoid().sum())
        if s.resolved_scale_weight:
            terms.append(s.resolved_scale_weight * self.log_scales.exp().sum())
        return torch.stack(terms).sum() if terms else None

    def before_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Sets the means' learning rate, exponential from its first to its final value, and the degree of harmonics."""
        super().before_step(step, optimizer)
        s = self.settings
        self.degree = max(self.degree, s.degree_at(step))
        progress = min(step / s.means_decay_steps, 1.0)
        rate = s.means_learning_rate * (s.means_final_learning_rate / s.means_learning_rate) ** progress
        for group in optimizer.param_groups:
            if group.get("name") == "means":
                group["lr"] = rate
        self.strategy.before_step(self, step, optimizer)
        self._renders.clear()

    def after_step(
        self, step: int, optimizer: torch.optim.Optimizer, generators: Sequence[torch.Generator]
    ) -> None:
        """Gathers what this step's renders tell of the Gaussians, and lets the strategy change them.

        The parameters may be replaced by new ones: the optimiser's groups (found by `name`) and its moments
        follow, moments of new Gaussians start at zero. Draws come from generators[0].
        """
        super().after_step(step, optimizer, generators)
        self._gather()
        self.strategy.after_step(self, step + 1, optimizer, generators[0])

    @torch.no_grad()
    def _gather(self) -> None:
        """Adds the norm of d loss / d screen position of every view in which a Gaussian was seen."""
        for means2d, radii, size in self._renders:
            if means2d.grad is None:
                continue
            radii = radii.to(self.device)
            visible = (radii > 0).all(-1)  # V N
            if self.strategy.uses_gradients:
                norm = 0.5 * size * means2d.grad.to(self.device).norm(dim=-1)  # V N
                self.gradient_sum += torch.where(visible, norm, torch.zeros_like(norm)).sum(0)
                self.gradient_count += visible.sum(0)
            if self.screen_size is not None:
                largest = radii.amax(-1).masked_fill(~visible, 0).amax(0) / size  # N
                self.screen_size = torch.maximum(self.screen_size, largest)
        self._renders.clear()

    def parameters(self) -> dict[str, Parameter]:
        """What is optimised, by name."""
        return {name: getattr(self, name) for name in self.names}

    def adopt(self, parameters: Mapping[str, Parameter]) -> None:
        for name, parameter in parameters.items():
            setattr(self, name, parameter)

    # --- keeping ----------------------------------------------------------------------------------------

    def state_dict(self) -> Mapping[str, Tensor]:
        """Everything that the next step and files depend on: tensors with N first, and as () the degree of harmonics in
        use and the relative distance of a trajectory."""
        state = {name: getattr(self, name).detach() for name in self.names}
        state |= {"gradient_sum": self.gradient_sum, "gradient_count": self.gradient_count}
        if self.screen_size is not None:
            state["screen_size"] = self.screen_size
        if self.settings.sh_degree:
            state["degree"] = torch.tensor(self.degree)
        if self.camera.trajectory is not None and self.relative_distance is not None:
            state["relative_distance"] = torch.tensor(self.relative_distance, dtype=torch.float64)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes back `state_dict()`. Build the optimiser (and load its state) after this, not before.

        With the present number of Gaussians the parameters are filled in place; with another one they are
        replaced. Raises ValueError when tensors are missing, their shapes do not fit together, or Gaussians are not
        finite.
        """
        expected = dict(self.state_dict())
        expected.pop("relative_distance", None)  # older states lack it
        missing = sorted(expected.keys() - state.keys())
        if missing:
            raise ValueError(f"the state of a Gaussian scene lacks {', '.join(missing)}")
        count = len(state["means"])
        check_count("the state", count)
        for name, tensor in expected.items():
            shape = (count, *tensor.shape[1:]) if tensor.ndim else ()
            if state[name].shape != shape:
                raise ValueError(f"{name} has shape {tuple(state[name].shape)}, expected {shape}")
        check_gaussians("the state", *(state[name] for name in self.names))
        with torch.no_grad():
            for name in self.names:
                parameter: Parameter = getattr(self, name)
                if len(parameter) == count:
                    parameter.copy_(state[name])
                else:
                    setattr(self, name, Parameter(state[name].to(parameter).clone()))
        self.gradient_sum = state["gradient_sum"].to(self.gradient_sum).clone()
        self.gradient_count = state["gradient_count"].to(self.gradient_count).clone()
        if self.screen_size is not None:
            self.screen_size = state["screen_size"].to(self.screen_size).clone()
        if self.settings.sh_degree:
            self.degree = min(int(state["degree"]), self.settings.sh_degree)
        if self.relative_distance is None and "relative_distance" in state:
            self.relative_distance = float(state["relative_distance"])
        self._renders.clear()

    # --- files ------------------------------------------------------------------------------------------

    def export_ply(self, path: str | os.PathLike[str]) -> None:
        """Write a 3DGS PLY. The blur of training renders is built into the scales, so that viewers that work
        at higher resolutions show no thinner splats than were trained."""
        with torch.no_grad():
            g, blur = self.finite_gaussians(), self._blur()
            scales = (g.scales**2 + blur).sqrt()
            write_ply(path, g.means, g.quats, scales, g.opacities, g.colours, self._harmonics_in_use(), blur)

    def export_splat(self, path: str | os.PathLike[str]) -> None:
        """Write a .splat, with the blur of training renders as in `export_ply`; colours do not depend on the view."""
        with torch.no_grad():
            g = self.finite_gaussians()
            scales = (g.scales**2 + self._blur()).sqrt()
            write_splat(path, g.means, g.quats, scales, g.opacities, g.colours)

    def _blur(self) -> float:
        """Variance in world units² that training renders add to a Gaussian at the origin."""
        if self.relative_distance is None:
            self.trajectory()
        assert self.relative_distance is not None
        # There a picture is 2 · distance · tan(fov / 2) wide, that is 2 · relative distance.
        pixel = 2 * self.relative_distance / self.resolution
        return TRAINING_BLUR * pixel**2

    def _harmonics_in_use(self) -> Tensor | None:
        return self.harmonics[:, : sh.count(self.degree)] if self.degree else None
