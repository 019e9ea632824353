"""How the number of Gaussians changes while they are optimised: 3DGS's rules, or MCMC's.

A strategy is told before and after every step of the optimiser. It replaces the scene's parameters; the optimiser's
groups and moments follow (see `density.py`). All draws come from the CPU generator that is passed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from rewardsds.scenes.gaussians.density import (
    append_gaussians,
    forget_moments,
    keep_gaussians,
    limited,
    replace_parameters,
    split_offsets,
)
from rewardsds.scenes.gaussians.reference import quaternion_to_matrix

if TYPE_CHECKING:
    from rewardsds.scenes.gaussians.scene import GaussianScene

MINIMUM_GAUSSIANS = 64  # pruning leaves at least these, the most opaque: an empty scene has no gradient
SPLIT_SHRINK = 1.6  # a split Gaussian's halves are smaller by this factor (arXiv 2308.04079, sec. 5.2)
HIGHEST_OPACITY = 1 - 1e-6  # logits stay finite
NOISE_STEEPNESS, NOISE_OPACITY = 100.0, 0.005  # where MCMC's noise fades out (arXiv 2404.09591, eq. 8)


class Strategy(Protocol):
    uses_gradients: bool  # whether screen-space gradients have to be gathered

    def before_step(self, scene: GaussianScene, step: int, optimizer: torch.optim.Optimizer) -> None: ...

    def after_step(
        self,
        scene: GaussianScene,
        steps_done: int,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> None: ...


class DefaultStrategy:
    """3DGS's adaptive control (arXiv 2308.04079, section 5.2), with a limit to the number of Gaussians."""

    uses_gradients = True

    def before_step(self, scene: GaussianScene, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Resets opacities where it is time: before a step, so that a run never ends with one."""
        if step in scene.settings.opacity_resets(step + 1)[-1:]:
            reset_opacities(scene, optimizer)

    def after_step(
        self,
        scene: GaussianScene,
        steps_done: int,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> None:
        s = scene.settings
        if steps_done % s.densify_every == 0:
            if s.densify_start <= steps_done < s.densify_stop:
                densify(scene, optimizer, generator)
            if steps_done >= s.prune_start:
                prune(scene, optimizer)


class MCMCStrategy:
    """Gaussians as samples (arXiv 2404.09591): none is removed, useless ones move to where others are."""

    uses_gradients = False

    def before_step(self, scene: GaussianScene, step: int, optimizer: torch.optim.Optimizer) -> None:
        pass

    def after_step(
        self,
        scene: GaussianScene,
        steps_done: int,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> None:
        s = scene.settings
        if steps_done % s.densify_every == 0 and s.densify_start <= steps_done < s.densify_stop:
            relocate(scene, optimizer, generator)
            grow(scene, optimizer, generator)
        add_noise(scene, optimizer, generator)


STRATEGIES: dict[str, type[Strategy]] = {"default": DefaultStrategy, "mcmc": MCMCStrategy}


# --- 3DGS ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def densify(scene: GaussianScene, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
    """Clone small and split large Gaussians of high gradient."""
    s = scene.settings
    seen = scene.gradient_count > 0
    gradient = scene.gradient_sum / scene.gradient_count.clamp(min=1)
    if s.densify_gradient is None:
        mean = gradient[seen].mean() if bool(seen.any()) else gradient.new_zeros(())
        threshold = s.densify_threshold * mean
    else:
        threshold = gradient.new_tensor(s.densify_gradient)
    wanted = seen & (gradient > threshold)
    chosen = limited(wanted, gradient, s.max_gaussians - len(scene))  # each adds one Gaussian
    large = scene.log_scales.amax(-1).exp() > s.split_scale
    _split(scene, chosen & large, optimizer, generator, clones=chosen & ~large)
    scene.reset_statistics()


def _split(
    scene: GaussianScene,
    split: Tensor,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    clones: Tensor,
) -> None:
    """Each of `split` (N,) is replaced by two smaller ones drawn from it; each of `clones` is copied."""
    offsets = split_offsets(scene.quats[split], scene.log_scales[split], 2, generator)  # 2 S 3
    parameters = scene.parameters()
    halves = {name: value.detach()[split].clone() for name, value in parameters.items()}
    halves["log_scales"] = halves["log_scales"] - torch.log(torch.tensor(SPLIT_SHRINK))
    copies = {name: value.detach()[clones].clone() for name, value in parameters.items()}
    new = [copies, *({**halves, "means": halves["means"] + offset} for offset in offsets)]
    replaced = keep_gaussians(parameters, ~split, optimizer)
    for extra in new:
        replaced = append_gaussians(replaced, extra, optimizer)
    if scene.screen_size is not None:  # of those that were seen; `prune` still needs it
        fresh = scene.screen_size.new_zeros(len(replaced["means"]) - int((~split).sum()))
        scene.screen_size = torch.cat([scene.screen_size[~split], fresh])
    scene.adopt(replaced)


@torch.no_grad()
def useful(scene: GaussianScene) -> Tensor:
    """(N,) bool: neither nearly transparent, nor too large, nor out of bounds."""
    s = scene.settings
    keep = (
        (scene.opacity_logits.sigmoid() >= s.prune_opacity)
        & (scene.log_scales.amax(-1).exp() <= s.prune_scale)
        & (scene.means.norm(dim=-1) <= s.bounds)
    )
    if scene.screen_size is not None and s.prune_screen_size is not None:
        keep &= scene.screen_size <= s.prune_screen_size
    return keep


@torch.no_grad()
def prune(scene: GaussianScene, optimizer: torch.optim.Optimizer) -> None:
    """Remove what is not useful."""
    keep = useful(scene)
    if int(keep.sum()) < MINIMUM_GAUSSIANS:
        score = keep.float() + scene.opacity_logits.sigmoid()
        keep = limited(torch.ones_like(keep), score, MINIMUM_GAUSSIANS)
    if not bool(keep.all()):
        scene.gradient_sum, scene.gradient_count = scene.gradient_sum[keep], scene.gradient_count[keep]
        scene.adopt(keep_gaussians(scene.parameters(), keep, optimizer))
    scene.reset_screen_size()


@torch.no_grad()
def reset_opacities(scene: GaussianScene, optimizer: torch.optim.Optimizer) -> None:
    """Opacities fall to at most `opacity_reset`, to be earned again."""
    limit = float(torch.logit(torch.tensor(scene.settings.resolved_opacity_reset)))
    reset = scene.opacity_logits.detach().clamp(max=limit)
    zeroed = replace_parameters(
        {"opacity_logits": scene.opacity_logits},
        {"opacity_logits": reset},
        torch.zeros_like,
        optimizer,
    )
    scene.adopt(zeroed)


# --- MCMC ---------------------------------------------------------------------------------------------------


def shared_opacity_and_scale(opacities: Tensor, copies: Tensor) -> tuple[Tensor, Tensor]:
    """Opacity (M,) of each of n copies that together replace a Gaussian, and the factor (M,) for its scales.

    opacities (M,) of the old ones, copies (M,) n, at least 1. In the middle the copies let through what the old one
    did, o' = 1 − (1 − o)^(1/n), and along a line they add up to the same (arXiv 2404.09591, eq. 9). Its double sum over
    binomials is here one, by the hockey-stick identity: factor = o / Σₖ C(n, k) (−1)^(k+1) o'^k / √k, k = 1 … n. In
    double precision; terms beyond the hundredth are below rounding.
    """
    o = opacities.double().clamp(max=HIGHEST_OPACITY)
    n = copies.double()
    new = -torch.expm1(torch.log1p(-o) / n)  # M
    terms = int(copies.max()) if len(copies) else 0
    total = torch.zeros_like(o)
    power = torch.ones_like(o)  # C(n, k) o'^k, 0 for k > n
    for k in range(1, min(terms, 100) + 1):
        power = power * new * (n - k + 1).clamp(min=0) / k
        total += power * ((-1) ** (k + 1) / k**0.5)
    return new.to(opacities), (o / total).to(opacities)


@torch.no_grad()
def _share(scene: GaussianScene, sources: Tensor) -> None:
    """Makes each source fainter, so that it and its copies look like itself; sources (M,) may repeat."""
    copies = torch.bincount(sources, minlength=len(scene)) + 1  # N
    chosen = (copies > 1).nonzero().squeeze(-1)
    opacities, factor = shared_opacity_and_scale(scene.opacity_logits[chosen].sigmoid(), copies[chosen])
    lowest = min(max(1.01 * scene.settings.prune_opacity, 1e-4), HIGHEST_OPACITY)  # or they would go at once
    scene.opacity_logits[chosen] = opacities.clamp(min=lowest, max=HIGHEST_OPACITY).logit()
    scene.log_scales[chosen] += factor.log()[:, None]


def _draw(weights: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Indices (number,), drawn with replacement by their weights, on the CPU."""
    ends = weights.detach().double().cpu().cumsum(0)
    places = torch.rand(number, generator=generator, dtype=torch.float64) * ends[-1]
    return torch.searchsorted(ends, places, right=True).clamp(max=len(weights) - 1).to(weights.device)


@torch.no_grad()
def relocate(scene: GaussianScene, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
    """Useless Gaussians become copies of others, which are drawn by their opacity and share it with them."""
    alive = useful(scene)
    dead = (~alive).nonzero().squeeze(-1)
    living = alive.nonzero().squeeze(-1)
    if len(dead) and len(living):
        sources = living[_draw(scene.opacity_logits[living].sigmoid(), len(dead), generator)]
        _share(scene, sources)
        parameters = scene.parameters()
        for parameter in parameters.values():
            parameter[dead] = parameter[sources]
        forget_moments(parameters, torch.cat([dead, sources]), optimizer)
    scene.reset_screen_size()


@torch.no_grad()
def grow(scene: GaussianScene, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
    """Add some copies of Gaussians, which are drawn by their opacity and share it with them."""
    s = scene.settings
    number = min(s.max_gaussians, int((1 + s.growth) * len(scene))) - len(scene)
    if number <= 0:
        return
    sources = _draw(scene.opacity_logits.sigmoid(), number, generator)
    _share(scene, sources)
    parameters = scene.parameters()
    forget_moments(parameters, sources, optimizer)
    copies = {name: value.detach()[sources].clone() for name, value in parameters.items()}
    scene.adopt(append_gaussians(parameters, copies, optimizer))
    scene.reset_statistics()
    scene.reset_screen_size()


@torch.no_grad()
def add_noise(scene: GaussianScene, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
    """Moves the faint ones at random, along their own shape (arXiv 2404.09591, eq. 8)."""
    strength = scene.settings.position_noise * scene.means_learning_rate(optimizer)
    if strength == 0:
        return
    noise = torch.randn((len(scene), 3), generator=generator).to(scene.means)
    faint = torch.sigmoid(-NOISE_STEEPNESS * (scene.opacity_logits.sigmoid() - NOISE_OPACITY))
    root = quaternion_to_matrix(scene.quats) * scene.log_scales.exp()[:, None, :]  # N 3 3: R S
    along = (root @ (root.transpose(1, 2) @ (faint[:, None] * noise)[..., None])).squeeze(-1)  # N 3: Σ η
    scene.means.add_(strength * along)
