"""gsplat's kernels against those of the CPU and against the plain rasteriser, in value and in gradient.

They run on a GPU (`-m cuda`), and compiled for the CPU (`-m slow`), see `cuda_on_cpu`.
"""

import copy
import importlib
import inspect
from typing import Any

import pytest
import torch
from comparing import assert_same, random, run

from rewardsds.scenes.gaussians import harmonics, rasterization, reference
from rewardsds.scenes.gaussians import scene as scene_module
from rewardsds.scenes.gaussians.scene import GaussianScene
from rewardsds.scenes.gaussians.settings import GaussianSettings
from rewardsds.scenes.settings import CameraSettings


def by_gsplat(*arguments, **options):
    """`rasterization.rasterization`, by gsplat wherever the tensors are."""
    bound = inspect.signature(rasterization.rasterization).bind(*arguments, **options)
    bound.apply_defaults()
    return rasterization._gsplat(*bound.args)


def run_by_gsplat(gsplat_device, scene, width, height, **options):
    """As `run`; everything is brought back to the CPU."""
    moved = copy.copy(scene)
    for name in ("means", "quats", "scales", "opacities", "colors"):
        setattr(moved, name, getattr(scene, name).detach().to(gsplat_device).requires_grad_())
    moved.viewmats, moved.Ks = scene.viewmats.to(gsplat_device), scene.Ks.to(gsplat_device)
    if options.get("backgrounds") is not None:
        options["backgrounds"] = options["backgrounds"].to(gsplat_device)
    function = rasterization.rasterization if gsplat_device == "cuda" else by_gsplat
    renders, alphas, gradients, info = run(function, moved, width, height, **options)
    there = {name: info[name].detach().cpu() for name in ("radii", "means2d", "depths", "conics")}
    return renders.cpu(), alphas.cpu(), [one.cpu() for one in gradients], there


@pytest.mark.parametrize("plain", [reference.rasterization, rasterization.rasterization])
@pytest.mark.parametrize("render_mode", ["RGB", "RGB+D", "RGB+ED"])
@pytest.mark.parametrize("with_background", [False, True])
def test_values_and_gradients_agree(gsplat_device, random_scene, plain, render_mode, with_background):
    """Three cameras; the gradient of positions in the picture is by pixels on both sides."""
    scene = random_scene(600, 13, 40, 24, scale=0.3 if render_mode == "RGB+ED" else 0.08)
    options = {"render_mode": render_mode, "backgrounds": random(3, 3) if with_background else None}
    assert_same(run_by_gsplat(gsplat_device, scene, 40, 24, **options), run(plain, scene, 40, 24, **options))


@pytest.mark.parametrize("plain", [reference.rasterization, rasterization.rasterization])
def test_crowded_opaque_scenes_agree(gsplat_device, random_scene, plain):
    """Many Gaussians of opacity up to 1: clipping at 0.999 and early stops are at work."""
    scene = random_scene(400, 5, scale=0.15, opacity=(0.8, 1.0))
    assert_same(run_by_gsplat(gsplat_device, scene, 40, 40), run(plain, scene, 40, 40))


def test_off_screen_and_behind_camera(gsplat_device, random_scene):
    """Cameras in the middle of the Gaussians: some are behind, some far outside, some cut by the border."""
    scene = random_scene(300, 6, ball=3.0, scale=0.1)
    scene.viewmats = scene.viewmats.clone()
    scene.viewmats[:, :3, 3] *= 0.2
    limits = {"near_plane": 0.2, "far_plane": 2.0}
    here = run(rasterization.rasterization, scene, 40, 40, **limits)
    assert_same(run_by_gsplat(gsplat_device, scene, 40, 40, **limits), here)


def test_what_it_tells_beside_the_picture_agrees(gsplat_device, random_scene):
    scene = random_scene(300, 6, ball=3.0, scale=0.1)
    there = run_by_gsplat(gsplat_device, scene, 40, 40)[3]
    here = run(rasterization.rasterization, scene, 40, 40)[3]
    assert there["radii"].shape == here["radii"].shape == (3, 300, 2)
    seen = (here["radii"] > 0).all(-1) & (there["radii"] > 0).all(-1)
    both = (here["radii"] > 0).all(-1) == (there["radii"] > 0).all(-1)
    assert both.float().mean() > 0.98  # at the border of the picture radii are rounded up before, or after
    torch.testing.assert_close(there["radii"][seen], here["radii"][seen], atol=1, rtol=0)
    for name in ("means2d", "depths", "conics"):
        torch.testing.assert_close(there[name][seen], here[name].detach()[seen], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("eps2d", [0.0, 0.3, 4.8])
def test_it_blurs_alike(gsplat_device, random_scene, eps2d):
    scene = random_scene(200, 14)
    plain = run(rasterization.rasterization, scene, 40, 40, eps2d=eps2d)
    assert_same(run_by_gsplat(gsplat_device, scene, 40, 40, eps2d=eps2d), plain)


def test_its_own_spherical_harmonics_agree(gsplat_device, random_scene):
    """gsplat with coefficients of degree 3, against colours of each camera that were made here."""
    gsplat: Any = importlib.import_module("gsplat")
    scene = random_scene(300, 15)
    g = torch.Generator().manual_seed(3)
    base = 0.4 + 0.2 * torch.rand(300, 3, generator=g)
    coefficients = (0.03 * torch.randn(300, 15, 3, generator=g)).requires_grad_()
    directions = harmonics.directions_of_view(scene.means, scene.viewmats)
    scene.colors = harmonics.view_colours(base, coefficients, directions, 3)
    here, _, _ = rasterization.rasterization(*scene.arguments, width=40, height=40)
    own = torch.autograd.grad(here.square().sum(), [coefficients, scene.means])

    there = coefficients.detach().to(gsplat_device).requires_grad_()
    dc = ((base - 0.5) / harmonics.C0).to(gsplat_device)[:, None]
    parameters = [p.detach().to(gsplat_device).requires_grad_() for p in scene.parameters[:4]]
    renders, _, _ = gsplat.rasterization(
        *parameters, torch.cat([dc, there], dim=1), *(one.to(gsplat_device) for one in (scene.viewmats, scene.Ks)),
        40, 40, sh_degree=3, packed=False,
    )  # fmt: skip
    theirs = torch.autograd.grad(renders.square().sum(), [there, parameters[0]])
    assert ((renders.cpu() - here).abs() > 1e-3).float().mean() < 1e-2
    for a, b in zip(theirs, own):
        assert (a.cpu() - b).norm() / b.norm() < 1e-2


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_a_scene_is_optimised_alike(gsplat_device, monkeypatch, strategy):
    settings = GaussianSettings(initial_gaussians=300, sh_degree=1, sh_degree_every=0, strategy=strategy)
    found = []
    for device, function in (("cpu", rasterization.rasterization), (gsplat_device, by_gsplat)):
        monkeypatch.setattr(scene_module, "rasterization", function)
        scene = GaussianScene(
            [torch.Generator().manual_seed(0)],
            settings,
            camera=CameraSettings(resolution=(32,)),
            device=device,
        )
        g = torch.Generator().manual_seed(1)
        optimizer = torch.optim.Adam(scene.parameter_groups())
        for number in range(4):
            scene.before_step(number, optimizer)
            rendering = scene.render(scene.sample_cameras([g], number), [g])
            assert rendering.images is not None
            target = rendering.images.new_tensor([0.2, 0.5, 0.8])[:, None, None]
            optimizer.zero_grad()
            (rendering.images - target).square().sum().backward()
            optimizer.step()
            scene.after_step(number, optimizer, [g])
        found.append({name: value.cpu() for name, value in scene.state_dict().items()})
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=0.05 * float(value.abs().max()), rtol=0.05)
