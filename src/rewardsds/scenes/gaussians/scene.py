"""3D Gaussians as a scene that score distillation can optimise."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from rewardsds.scenes.base import Rendering
from rewardsds.scenes.cameras import Cameras
from rewardsds.scenes.gaussians.density import (
    PARAMETERS,
    append_gaussians,
    keep_gaussians,
    limited,
    replace_parameters,
    split_offsets,
)
from rewardsds.scenes.gaussians.ply import write_ply
from rewardsds.scenes.gaussians.rasterization import rasterization
from rewardsds.scenes.gaussians.reference import quaternion_to_matrix
from rewardsds.scenes.gaussians.settings import GaussianSettings
from rewardsds.scenes.object3d import Colour, Object3D
from rewardsds.scenes.settings import BackgroundSettings, CameraSettings

MINIMUM_GAUSSIANS = 64  # pruning leaves at least these, the most opaque: an empty scene has no gradient
SPLIT_SHRINK = 1.6  # a split Gaussian's halves are smaller by this factor (arXiv 2308.04079, sec. 5.2)
TRAINING_BLUR = 0.3  # eps2d in pixels² at the training resolution


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians as the rasteriser takes them: means (N, 3), quats (N, 4) wxyz, scales (N, 3),
    opacities (N,) in [0, 1], colours (N, 3) in [0, 1]."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colours: Tensor


class GaussianScene(Object3D):
    """One object made of Gaussians. It holds exactly one item: B items are B scenes.

    Optimised are means (N, 3), log scales (N, 3), quaternions (N, 4) wxyz, opacity logits (N,) and colour
    logits (N, 3), without view dependence. `gradient_sum` and `gradient_count` (N,) gather screen-space
    gradients since the last densification.
    """

    means: Parameter
    log_scales: Parameter
    quats: Parameter
    opacity_logits: Parameter
    colour_logits: Parameter
    gradient_sum: Tensor
    gradient_count: Tensor

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
        for name, value in self._initial(generators[0]).items():
            setattr(self, name, Parameter(value.to(self.device)))
        self._reset_statistics()
        self._means2d: list[tuple[Tensor, Tensor]] = []

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

    def _reset_statistics(self) -> None:
        self.gradient_sum = torch.zeros(len(self), device=self.device)
        self.gradient_count = torch.zeros(len(self), device=self.device)

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
        if cameras is None or len(cameras.batch_shape) != 2:
            shape = None if cameras is None else tuple(cameras.batch_shape)
            raise ValueError(f"a Gaussian scene is rendered from cameras of batch shape (G, V), got {shape}")
        groups, views = cameras.batch_shape
        size = size or self.resolution
        viewmats = cameras.opencv_world_to_camera().flatten(0, 1).to(self.device)
        behind = torch.stack([self.plain_background(generators, background) for _ in range(groups)])
        g = self.gaussians()
        renders, alphas, info = rasterization(
            g.means,
            g.quats,
            g.scales,
            g.opacities,
            g.colours,
            viewmats,
            cameras.intrinsics(size, size).flatten(0, 1).to(self.device),
            size,
            size,
            eps2d=TRAINING_BLUR * max(1.0, size / self.resolution) ** 2,
            backgrounds=behind.repeat_interleave(views, dim=0),
            render_mode="RGB+ED",
        )
        if info["means2d"].requires_grad:
            self._means2d.append((info["means2d"], (info["radii"] > 0).all(-1)))
        renders = renders.permute(0, 3, 1, 2).unflatten(0, (groups, views))
        alpha = alphas.permute(0, 3, 1, 2).unflatten(0, (groups, views))
        return Rendering(images=renders[:, :, :3], depth=renders[:, :, 3:], alpha=alpha)

    # --- its shape --------------------------------------------------------------------------------------

    def density(self, points: Tensor) -> Tensor:
        """Σ opacity · exp(−½ d²) over Gaussians, d their Mahalanobis distance (arXiv 2309.16653, section 3.2)."""
        return self._blend(points)[0]

    def colour(self, points: Tensor) -> Tensor:
        """Mean of the Gaussians' colours, weighted by what they add to the density."""
        return self._blend(points)[1]

    @torch.no_grad()
    def _blend(self, points: Tensor, chunk: int = 4096) -> tuple[Tensor, Tensor]:
        """Density (M,) and colour (M, 3) at points (M, 3)."""
        g = self.gaussians()
        inverse = (quaternion_to_matrix(g.quats) / g.scales[:, None, :]).transpose(1, 2)  # N 3 3: S⁻¹ Rᵀ
        densities, colours = [], []
        for part in points.to(g.means).split(chunk):
            delta = inverse @ (part[:, None, :] - g.means)[..., None]  # M N 3 1
            weights = g.opacities * torch.exp(-0.5 * delta.square().sum((-1, -2)))  # M N
            density = weights.sum(-1)
            densities.append(density)
            colours.append(weights @ g.colours / density.clamp(min=1e-12)[:, None])
        return torch.cat(densities), torch.cat(colours)

    # --- optimising -------------------------------------------------------------------------------------

    def parameter_groups(self) -> list[dict[str, Any]]:
        s = self.settings
        rates = {
            "means": s.means_learning_rate,
            "log_scales": s.scales_learning_rate,
            "quats": s.rotations_learning_rate,
            "opacity_logits": s.opacities_learning_rate,
            "colour_logits": s.colours_learning_rate,
        }
        return [{"params": [getattr(self, name)], "lr": rates[name], "name": name} for name in PARAMETERS]

    def regularisation(self, rendering: Rendering) -> Tensor | None:
        """Entropy of alpha over pixels and variance of log scales over Gaussians, weighted and summed."""
        s = self.settings
        terms = []
        if s.opacity_entropy_weight and rendering.alpha is not None:
            alpha = rendering.alpha.clamp(1e-4, 1 - 1e-4)
            entropy = -(alpha * alpha.log() + (1 - alpha) * (1 - alpha).log())
            terms.append(s.opacity_entropy_weight * entropy.sum())
        if s.anisotropy_weight:
            terms.append(s.anisotropy_weight * self.log_scales.var(dim=-1, unbiased=False).sum())
        return torch.stack(terms).sum() if terms else None

    def before_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Sets the means' learning rate: exponential from its first to its final value."""
        super().before_step(step, optimizer)
        s = self.settings
        progress = min(step / s.means_decay_steps, 1.0)
        rate = s.means_learning_rate * (s.means_final_learning_rate / s.means_learning_rate) ** progress
        for group in optimizer.param_groups:
            if group.get("name") == "means":
                group["lr"] = rate
        self._means2d.clear()

    def after_step(
        self, step: int, optimizer: torch.optim.Optimizer, generators: Sequence[torch.Generator]
    ) -> None:
        """Gathers the screen-space gradients of this step's renders; on schedule densifies, prunes, resets.

        The parameters may be replaced by new ones: the optimiser's groups (found by `name`) and its moments
        follow, moments of new Gaussians start at zero. Draws come from generators[0].
        """
        super().after_step(step, optimizer, generators)
        s = self.settings
        self._gather_gradients()
        count = step + 1  # steps done
        if count % s.densify_every == 0:
            if s.densify_start <= count < s.densify_stop:
                self._densify(optimizer, generators[0])
            if count >= s.prune_start:
                self._prune(optimizer)
        if s.opacity_reset_every and count % s.opacity_reset_every == 0:
            self._reset_opacities(optimizer)

    def _gather_gradients(self) -> None:
        """Adds the norm of d loss / d screen position of every view in which a Gaussian was seen."""
        for means2d, visible in self._means2d:
            if means2d.grad is not None:
                norm = means2d.grad.norm(dim=-1)  # V N
                self.gradient_sum += torch.where(visible, norm, torch.zeros_like(norm)).sum(0)
                self.gradient_count += visible.sum(0)
        self._means2d.clear()

    @torch.no_grad()
    def _densify(self, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        """Clone small and split large Gaussians of high gradient (arXiv 2308.04079, sec. 5.2)."""
        s = self.settings
        seen = self.gradient_count > 0
        gradient = self.gradient_sum / self.gradient_count.clamp(min=1)
        mean = gradient[seen].mean() if bool(seen.any()) else gradient.new_zeros(())
        wanted = seen & (gradient > s.densify_threshold * mean)
        chosen = limited(wanted, gradient, s.max_gaussians - len(self))  # each adds one Gaussian
        large = self.log_scales.amax(-1).exp() > s.split_scale
        self._split(chosen & large, optimizer, generator, clones=chosen & ~large)
        self._reset_statistics()

    def _split(
        self, split: Tensor, optimizer: torch.optim.Optimizer, generator: torch.Generator, clones: Tensor
    ) -> None:
        """Each of `split` (N,) is replaced by two smaller ones drawn from it; each of `clones` is copied."""
        offsets = split_offsets(self.quats[split], self.log_scales[split], 2, generator)  # 2 S 3
        halves = {name: getattr(self, name).detach()[split].clone() for name in PARAMETERS}
        halves["log_scales"] = halves["log_scales"] - torch.log(torch.tensor(SPLIT_SHRINK))
        copies = {name: getattr(self, name).detach()[clones].clone() for name in PARAMETERS}
        new = [copies, *({**halves, "means": halves["means"] + offset} for offset in offsets)]
        replaced = keep_gaussians(self._parameters(), ~split, optimizer)
        for extra in new:
            replaced = append_gaussians(replaced, extra, optimizer)
        self._adopt(replaced)

    @torch.no_grad()
    def _prune(self, optimizer: torch.optim.Optimizer) -> None:
        """Remove what is nearly transparent, too large, or out of bounds."""
        s = self.settings
        opacity = self.opacity_logits.sigmoid()
        keep = (
            (opacity >= s.prune_opacity)
            & (self.log_scales.amax(-1).exp() <= s.prune_scale)
            & (self.means.norm(dim=-1) <= s.bounds)
        )
        if int(keep.sum()) < MINIMUM_GAUSSIANS:
            keep = limited(torch.ones_like(keep), keep.float() + opacity, MINIMUM_GAUSSIANS)
        if not bool(keep.all()):
            self.gradient_sum, self.gradient_count = self.gradient_sum[keep], self.gradient_count[keep]
            self._adopt(keep_gaussians(self._parameters(), keep, optimizer))

    @torch.no_grad()
    def _reset_opacities(self, optimizer: torch.optim.Optimizer) -> None:
        """Opacities fall to at most the initial one, to be earned again (arXiv 2308.04079, sec. 5.2)."""
        limit = float(torch.logit(torch.tensor(self.settings.initial_opacity)))
        reset = self.opacity_logits.detach().clamp(max=limit)
        zeroed = replace_parameters(
            {"opacity_logits": self.opacity_logits},
            {"opacity_logits": reset},
            torch.zeros_like,
            optimizer,
        )
        self._adopt(zeroed)

    def _parameters(self) -> dict[str, Parameter]:
        return {name: getattr(self, name) for name in PARAMETERS}

    def _adopt(self, parameters: Mapping[str, Parameter]) -> None:
        for name, parameter in parameters.items():
            setattr(self, name, parameter)

    # --- keeping ----------------------------------------------------------------------------------------

    def state_dict(self) -> Mapping[str, Tensor]:
        """Everything that the next step depends on, flat tensors with N first."""
        state = {name: getattr(self, name).detach() for name in PARAMETERS}
        return {**state, "gradient_sum": self.gradient_sum, "gradient_count": self.gradient_count}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes back `state_dict()`. Build the optimiser (and load its state) after this, not before.

        With the present number of Gaussians the parameters are filled in place; with another one they are
        replaced. Raises ValueError when tensors are missing or their shapes do not fit together.
        """
        expected = self.state_dict()
        missing = sorted(expected.keys() - state.keys())
        if missing:
            raise ValueError(f"the state of a Gaussian scene lacks {', '.join(missing)}")
        count = len(state["means"])
        for name, tensor in expected.items():
            shape = (count, *tensor.shape[1:])
            if state[name].shape != shape:
                raise ValueError(f"{name} has shape {tuple(state[name].shape)}, expected {shape}")
        with torch.no_grad():
            for name in PARAMETERS:
                parameter: Parameter = getattr(self, name)
                if len(parameter) == count:
                    parameter.copy_(state[name])
                else:
                    setattr(self, name, Parameter(state[name].to(parameter).clone()))
        self.gradient_sum = state["gradient_sum"].to(self.gradient_sum).clone()
        self.gradient_count = state["gradient_count"].to(self.gradient_count).clone()
        self._means2d.clear()

    def export_ply(self, path: str | os.PathLike[str]) -> None:
        """Write a 3DGS PLY. The blur of training renders is built into the scales, so that viewers that work
        at higher resolutions show no thinner splats than were trained."""
        with torch.no_grad():
            g = self.gaussians()
            # At the origin a picture is 2 · distance · tan(fov / 2) wide, that is 2 · relative distance.
            relative_distance = sum(self.camera.relative_distance) / 2
            pixel = 2 * relative_distance / self.resolution
            scales = (g.scales**2 + TRAINING_BLUR * pixel**2).sqrt()
            write_ply(path, g.means, g.quats, scales, g.opacities, g.colours)
