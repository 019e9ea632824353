"""How Gaussians come and go: 3DGS's rules, and MCMC's against the paper's formulas and numerical integrals."""

from __future__ import annotations

import copy
import importlib
import math
from typing import Any

import pytest
import torch
from gaussian_steps import generator, images_of, make, moments, step
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from rewardsds.runs.loop import make_optimizer
from rewardsds.scenes.gaussians.density import PARAMETERS
from rewardsds.scenes.gaussians.rasterization import rasterization
from rewardsds.scenes.gaussians.scene import GaussianScene
from rewardsds.scenes.gaussians.settings import GaussianSettings
from rewardsds.scenes.gaussians.strategies import (
    _draw,
    add_noise,
    densify,
    grow,
    prune,
    relocate,
    shared_opacity_and_scale,
)

# --- 3DGS's -------------------------------------------------------------------------------------------------


def test_an_absolute_threshold_takes_what_lies_above_it() -> None:
    scene = make(densify_gradient=0.5, split_scale=1.0)
    optimizer = make_optimizer(scene)
    scene.gradient_sum = torch.full((200,), 0.9)
    scene.gradient_sum[7:10] = 1.1
    scene.gradient_count = torch.full((200,), 2.0)
    densify(scene, optimizer, generator())
    assert len(scene) == 203
    scene.gradient_sum += 0.4  # every one below: with a relative threshold the highest would be taken
    scene.gradient_count += 1
    densify(scene, optimizer, generator())
    assert len(scene) == 203


def test_gradients_are_told_in_halves_of_the_picture() -> None:
    """A picture of twice the size, blurred alike, has the same gradients of its mean."""
    found = []
    for size in (32, 64):
        scene = make(initial_opacity=0.5)
        rendering = scene.render(scene.sample_cameras([generator()], 0), size=size)
        images_of(rendering).square().mean().backward()
        scene._gather()
        found.append(scene.gradient_sum)
    torch.testing.assert_close(found[0], found[1], rtol=0.15, atol=0.05 * float(found[0].max()))
    assert float(found[0].sum() / found[1].sum()) == pytest.approx(1, abs=0.05)


def test_what_fills_the_picture_is_removed() -> None:
    scene = make(prune_screen_size=0.4, prune_scale=10.0, split_scale=10.0)
    optimizer = make_optimizer(scene)
    with torch.no_grad():
        scene.log_scales[5] = math.log(0.5)
        scene.opacity_logits[5] = 2.0
    step(scene, optimizer, generator(), 0)
    assert scene.screen_size is not None
    assert scene.screen_size[5] > 0.4
    assert scene.screen_size.topk(2).values[1] < 0.4
    kept = torch.cat([scene.means.detach()[:5], scene.means.detach()[6:]])
    densify(scene, optimizer, generator())  # what was seen is not forgotten here
    count = len(scene)
    prune(scene, optimizer)
    assert len(scene) == count - 1
    assert torch.equal(scene.means.detach()[:100], kept[:100])
    assert scene.screen_size.shape == (len(scene),)
    assert not scene.screen_size.any()


def test_screen_sizes_survive_a_checkpoint() -> None:
    first = make(prune_screen_size=0.4)
    step(first, make_optimizer(first), generator(), 0)
    second = make(seed=3, prune_screen_size=0.4)
    second.load_state_dict(first.state_dict())
    assert first.screen_size is not None
    assert second.screen_size is not None
    assert first.screen_size.any()
    assert torch.equal(first.screen_size, second.screen_size)


# --- MCMC's: opacity and scale ------------------------------------------------------------------------------


def relocated(opacity: float, copies: int) -> tuple[float, float]:
    new, factor = shared_opacity_and_scale(
        torch.tensor([opacity], dtype=torch.float64), torch.tensor([copies])
    )
    return float(new), float(factor)


def test_two_copies_by_hand() -> None:
    """o' = 1 − √½ = 0.292893; factor = 0.5 / (2 · 0.292893 − 0.292893² / √2) = 0.5 / 0.525126."""
    assert relocated(0.5, 2) == pytest.approx((0.292893, 0.952152), abs=1e-6)


@pytest.mark.parametrize("opacity, copies", [(0.3, 1), (0.3, 3), (0.9, 2), (0.99, 7), (0.6, 20)])
def test_equation_9_as_it_is_printed(opacity: float, copies: int) -> None:
    new = 1 - (1 - opacity) ** (1 / copies)
    total = 0.0
    for i in range(1, copies + 1):
        for k in range(i):
            total += math.comb(i - 1, k) * (-1) ** k * new ** (k + 1) / math.sqrt(k + 1)
    assert relocated(opacity, copies) == pytest.approx((new, opacity / total), rel=1e-9)


@given(st.floats(0.005, 0.9999), st.integers(1, 400))
def test_copies_add_up_to_the_old_one_along_a_line(opacity: float, copies: int) -> None:
    """∫ alpha over a line through the middle, of the old one and of all copies on top of each other."""
    new, factor = relocated(opacity, copies)
    assert 1 - (1 - new) ** copies == pytest.approx(opacity, rel=1e-6)

    def alpha(x: float) -> float:
        return 1 - (1 - new * math.exp(-0.5 * (x / factor) ** 2)) ** copies

    found = 2 * quad(alpha, 0, 12 * factor, limit=200)[0]
    assert found == pytest.approx(opacity * math.sqrt(2 * math.pi), rel=1e-5)


@pytest.mark.parametrize("opacity, copies", [(0.4, 2), (0.9, 2), (0.9, 5)])
def test_copies_look_like_the_old_one(opacity: float, copies: int) -> None:
    def picture(opacity: float, scale: float, number: int) -> torch.Tensor:
        viewmats, Ks = torch.eye(4)[None], torch.tensor([[[60.0, 0, 32], [0, 60, 32], [0, 0, 1]]])
        return rasterization(
            torch.tensor([[0.0, 0.0, 3.0]]).repeat(number, 1),
            torch.tensor([[1.0, 0, 0, 0]]).repeat(number, 1),
            torch.full((number, 3), scale),
            torch.full((number,), opacity),
            torch.ones(number, 3),
            viewmats,
            Ks,
            64,
            64,
            eps2d=0.0,
        )[0]

    new, factor = relocated(opacity, copies)
    old = picture(opacity, 0.4, 1)
    together = (picture(new, 0.4 * factor, copies) - old).abs()
    piled = (picture(opacity, 0.4, copies) - old).abs()
    assert together.max() < 0.07
    assert together.mean() < 0.25 * piled.mean()


# --- MCMC's: moving, adding, shaking ------------------------------------------------------------------------


def mcmc(**settings: Any) -> GaussianScene:
    return make(strategy="mcmc", **settings)


def opaque_views(scene: GaussianScene) -> torch.Tensor:
    return scene.render_images(scene.sample_cameras([generator(4)], 0), 32)


def test_the_dead_move_to_the_living_and_the_picture_stays() -> None:
    scene = mcmc(initial_opacity=0.5, sh_degree=1)
    optimizer = make_optimizer(scene)
    step(scene, optimizer, generator(), 0)
    dead = torch.arange(0, 200, 10)
    alive = torch.ones(200, dtype=torch.bool)
    alive[dead] = False
    with torch.no_grad():
        scene.opacity_logits[dead] = -8.0
        scene.harmonics.copy_(torch.randn(200, 3, 3, generator=generator(2)))
    living = {name: value.detach()[alive].clone() for name, value in scene.parameters().items()}
    untouched = scene.state_dict()["means"].clone()
    before = opaque_views(scene)
    relocate(scene, optimizer, generator(3))

    assert len(scene) == 200
    after = scene.parameters()
    assert torch.equal(after["means"].detach()[alive], untouched[alive])
    for new in dead.tolist():
        (source,) = (living["means"] == after["means"].detach()[new]).all(-1).nonzero()
        for name in ("quats", "colour_logits", "harmonics"):
            assert torch.equal(after[name].detach()[new], living[name][source[0]])
        sigma = after["opacity_logits"].detach()[new].sigmoid()
        assert sigma < living["opacity_logits"][source[0]].sigmoid()
        copies = int((after["means"].detach() == after["means"].detach()[new]).all(-1).sum())
        expected = 1 - (1 - living["opacity_logits"][source[0]].sigmoid()) ** (1 / copies)
        torch.testing.assert_close(sigma, expected)
    for name in PARAMETERS:
        assert not moments(scene, optimizer, name)[dead].any()
    changed = (opaque_views(scene) - before).abs().mean()
    with torch.no_grad():  # as it would be with full opacity for all copies
        same = (after["means"].detach()[:, None] == living["means"]).all(-1)
        scene.opacity_logits.copy_(living["opacity_logits"][same.float().argmax(-1)])
    assert changed < 0.4 * (opaque_views(scene) - before).abs().mean()
    step(scene, optimizer, generator(), 1)  # and it goes on


def test_what_is_too_large_or_out_of_bounds_moves_too() -> None:
    scene = mcmc(bounds=1.2, prune_scale=0.3)
    with torch.no_grad():
        scene.means[3] = torch.tensor([0.0, 0.9, 0.9])
        scene.log_scales[4, 1] = 0.0
    relocate(scene, make_optimizer(scene), generator())
    assert scene.means.norm(dim=-1).max() <= 0.6
    assert scene.log_scales.max() < math.log(0.3)


def test_numbers_grow_by_a_twentieth_up_to_the_maximum() -> None:
    scene = mcmc(initial_gaussians=100, max_gaussians=112, initial_opacity=0.6)
    optimizer, g = make_optimizer(scene), generator()
    before = opaque_views(scene)
    counts = []
    for _ in range(4):
        grow(scene, optimizer, g)
        counts.append(len(scene))
    assert counts == [105, 110, 112, 112]
    assert (opaque_views(scene) - before).abs().mean() < 0.005
    assert optimizer.param_groups[0]["params"][0] is scene.means


def test_draws_follow_the_weights() -> None:
    drawn = _draw(torch.tensor([0.0, 1.0, 3.0, 0.0]), 4000, generator())
    counts = torch.bincount(drawn, minlength=4)
    assert counts[0] == counts[3] == 0
    assert int(counts[2]) == pytest.approx(3000, abs=120)


def test_noise_moves_the_faint_along_their_shape() -> None:
    count = 4000
    scene = mcmc(initial_gaussians=count, means_learning_rate=0.01, position_noise=200.0)
    optimizer = make_optimizer(scene)
    half = math.sqrt(0.5)
    with torch.no_grad():
        scene.quats.copy_(torch.tensor([half, 0.0, 0.0, half]).expand(count, 4))  # x axis turned onto y
        scene.log_scales.copy_(torch.tensor([0.5, 0.1, 0.2]).log().expand(count, 3))
        scene.opacity_logits[:2000] = math.log(0.005 / 0.995)  # where the noise has half its strength
        scene.opacity_logits[2000:] = 0.0
    before = scene.means.detach().clone()
    add_noise(scene, optimizer, generator())
    moved = scene.means.detach() - before
    strength = 200 * 0.01 * 0.5
    expected = strength * torch.tensor([0.1, 0.5, 0.2]) ** 2
    torch.testing.assert_close(moved[:2000].std(0), expected, rtol=0.05, atol=0)
    assert moved[2000:].abs().max() < 1e-8


def test_mcmc_goes_by_its_schedule() -> None:
    scene = mcmc(densify_start=2, densify_stop=7, densify_every=2)
    optimizer, g = make_optimizer(scene), generator()
    counts = []
    for number in range(9):
        step(scene, optimizer, g, number)
        counts.append(len(scene))
    assert counts == [200, 210, 210, 220, 220, 231, 231, 231, 231]


MCMC: dict[str, Any] = {
    "strategy": "mcmc", "densify_start": 2, "densify_every": 2, "bounds": 0.6, "prune_opacity": 0.09,
    "position_noise": 1e5, "sh_degree": 2, "sh_degree_every": 3, "prune_screen_size": 0.5,
}  # fmt: skip


def test_mcmc_interrupted_and_resumed_equals_undisturbed() -> None:
    scene, g = make(**MCMC), generator(1)
    optimizer = make_optimizer(scene)
    for number in range(5):
        step(scene, optimizer, g, number)
    saved = {name: tensor.clone() for name, tensor in scene.state_dict().items()}
    saved_optimizer = copy.deepcopy(optimizer.state_dict())
    saved_generator = g.get_state()
    for number in range(5, 9):
        step(scene, optimizer, g, number)

    resumed, h = make(seed=7, **MCMC), generator()
    resumed.load_state_dict(saved)
    assert resumed.degree == 1
    other = make_optimizer(resumed)
    other.load_state_dict(saved_optimizer)
    h.set_state(saved_generator)
    for number in range(5, 9):
        step(resumed, other, h, number)
    assert resumed.degree == scene.degree == 2
    assert len(resumed) != 200
    for name, tensor in scene.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_opacities_and_scales_are_pulled_down_with_mcmc_only() -> None:
    scene = make(opacity_entropy_weight=0, anisotropy_weight=0, opacity_weight=2.0, scale_weight=3.0)
    with torch.no_grad():
        scene.opacity_logits.zero_()
        scene.log_scales.copy_(torch.tensor([0.1, 0.2, 0.3]).log().expand(200, 3))
    rendering = scene.render(scene.sample_cameras([generator()], 0))
    value = scene.regularisation(rendering)
    assert value is not None
    assert value.item() == pytest.approx(2.0 * 200 * 0.5 + 3.0 * 200 * 0.6, rel=1e-5)
    assert GaussianSettings().resolved_opacity_weight == GaussianSettings().resolved_scale_weight == 0
    assert GaussianSettings(strategy="mcmc").resolved_opacity_weight > 0
    assert GaussianSettings(strategy="mcmc").resolved_scale_weight > 0
    assert GaussianSettings(strategy="mcmc", scale_weight=0).resolved_scale_weight == 0


def test_gsplats_relocation_agrees(gsplat_device: str) -> None:
    gsplat: Any = importlib.import_module("gsplat.relocation")
    opacities = torch.tensor([0.1, 0.5, 0.9, 0.99])
    copies = torch.tensor([2, 3, 5, 40])
    binoms = torch.tensor([[float(math.comb(n, k)) for k in range(51)] for n in range(51)])
    new, scales = gsplat.compute_relocation(
        *(given.to(gsplat_device) for given in (opacities, torch.ones(4, 3), copies.clone(), binoms))
    )
    expected, factor = shared_opacity_and_scale(opacities, copies)
    torch.testing.assert_close(new.cpu(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scales.cpu(), factor[:, None].expand(4, 3), rtol=1e-3, atol=0)
