"""The fast kernels against the plain rasteriser, in value and in gradient."""

import re
import sys

import pytest
import torch
from comparing import assert_same, random, run

from rewardsds.scenes.gaussians import numba_kernels, rasterization, reference


@pytest.mark.parametrize("seed, count, width, height", [(0, 1, 16, 16), (1, 40, 40, 24), (2, 300, 33, 50)])
@pytest.mark.parametrize("render_mode", ["RGB", "RGB+D", "RGB+ED"])
def test_random_scenes_agree(random_scene, seed, count, width, height, render_mode):
    scene = random_scene(count, seed, width, height)
    options = {"render_mode": render_mode, "backgrounds": random(3, 3)}
    if render_mode == "RGB+ED":  # dividing by an alpha near 0 blows rounding up: compare opaque pictures
        scene = random_scene(count * 4, seed, width, height, scale=0.4)
    plain = run(reference.rasterization, scene, width, height, **options)
    fast = run(rasterization.rasterization, scene, width, height, **options)
    assert_same(fast, plain)
    torch.testing.assert_close(fast[3]["radii"], plain[3]["radii"], atol=1, rtol=0)
    torch.testing.assert_close(fast[3]["depths"], plain[3]["depths"])


def test_colours_of_each_camera_agree(random_scene):
    scene = random_scene(60, 3)
    scene.colors = random(3, 60, 3).requires_grad_()
    assert_same(run(rasterization.rasterization, scene, 40, 40), run(reference.rasterization, scene, 40, 40))


def test_crowded_opaque_scenes_agree(random_scene):
    """Many Gaussians of opacity up to 1: clipping at 0.999 and early stops are at work."""
    scene = random_scene(400, 5, scale=0.15, opacity=(0.8, 1.0))
    plain = run(reference.rasterization, scene, 40, 40)
    assert plain[1].max() > 0.9995
    assert_same(run(rasterization.rasterization, scene, 40, 40), plain)


def test_off_screen_and_behind_camera(random_scene):
    """Cameras in the middle of the Gaussians: some are behind, some far outside, some cut by the border."""
    scene = random_scene(300, 6, ball=3.0, scale=0.1)
    scene.viewmats = scene.viewmats.clone()
    scene.viewmats[:, :3, 3] *= 0.2
    plain = run(reference.rasterization, scene, 40, 40, near_plane=0.2, far_plane=2.0)
    fast = run(rasterization.rasterization, scene, 40, 40, near_plane=0.2, far_plane=2.0)
    seen = (plain[3]["radii"] > 0).all(-1)
    assert 0.05 < seen.float().mean() < 0.8
    assert_same(fast, plain)
    hidden = ~seen.any(0)
    for gradient in fast[2][:5]:
        assert (gradient[hidden] == 0).all()


def test_float64_reference_bounds_the_kernels_error(random_scene):
    scene = random_scene(100, 7)
    exact = run(reference.rasterization, scene.copy(torch.float64), 40, 40)
    fast = run(rasterization.rasterization, scene, 40, 40)
    assert ((fast[1] - exact[1]).abs() > 1e-5).float().mean() < 1e-3


@pytest.mark.parametrize("function", [reference.rasterization, rasterization.rasterization])
def test_no_gaussians_show_the_background(random_scene, function):
    scene = random_scene(0, 0)
    backgrounds = random(3, 3)
    renders, alphas, _ = function(
        *scene.arguments, width=10, height=6, backgrounds=backgrounds, render_mode="RGB+D"
    )
    assert alphas.shape == (3, 6, 10, 1)
    assert (alphas == 0).all()
    torch.testing.assert_close(renders[..., :3], backgrounds[:, None, None].expand(3, 6, 10, 3))
    renders.sum().backward()
    assert scene.means.grad is not None
    assert scene.means.grad.shape == (0, 3)


def test_background_is_seen_through_what_alpha_leaves(random_scene):
    """render(background) = render(black) + (1 − alpha) · background, and so is its gradient."""
    scene = random_scene(80, 8)
    background = random(3, 3).requires_grad_()
    with_background, alphas, _ = rasterization.rasterization(
        *scene.arguments, width=40, height=40, backgrounds=background
    )
    black, same_alphas, _ = rasterization.rasterization(*scene.arguments, width=40, height=40)
    assert torch.equal(alphas, same_alphas)
    torch.testing.assert_close(with_background, black + (1 - alphas) * background[:, None, None])
    (gradient,) = torch.autograd.grad(with_background.sum(), background)
    torch.testing.assert_close(gradient, (1 - alphas).sum((1, 2)).expand(3, 3))


def test_bit_identical_with_any_number_of_threads(random_scene):
    scene = random_scene(1500, 9, width=64, height=64, views=4)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            renders, alphas, gradients, _ = run(
                rasterization.rasterization, scene, 64, 64, render_mode="RGB+ED"
            )
            results.append([renders, alphas, *gradients])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_number_of_threads_follows_torch_and_numba(monkeypatch):
    monkeypatch.setattr("numba.core.config.NUMBA_NUM_THREADS", 3)
    monkeypatch.setattr(rasterization.torch, "get_num_threads", lambda: 8)
    assert rasterization.threads() == 3
    monkeypatch.setattr(rasterization.torch, "get_num_threads", lambda: 2)
    assert rasterization.threads() == 2


def test_means2d_keeps_its_gradient(random_scene):
    scene = random_scene(20, 10)
    renders, _, info = rasterization.rasterization(*scene.arguments, width=40, height=40)
    renders.sum().backward()
    assert info["means2d"].grad.shape == (3, 20, 2)
    assert info["means2d"].grad.abs().sum() > 0


def test_without_gradient_nothing_is_kept(random_scene):
    scene = random_scene(20, 10)
    with torch.no_grad():
        renders, _, info = rasterization.rasterization(*scene.arguments, width=40, height=40)
    assert not renders.requires_grad
    assert not info["means2d"].requires_grad


def test_not_a_number_is_not_drawn(random_scene):
    scene = random_scene(20, 11)
    clean, _, _ = rasterization.rasterization(*scene.arguments, width=40, height=40)
    with torch.no_grad():
        for tensor, value in zip(scene.parameters[:4], (torch.nan, torch.nan, torch.inf, torch.nan)):
            tensor.copy_(torch.cat([tensor[:-1], torch.full_like(tensor[-1:], value)]))
    dirty, _, _ = rasterization.rasterization(*scene.arguments, width=40, height=40)
    kept = [p[:-1] for p in scene.parameters]
    without, _, _ = rasterization.rasterization(
        *kept, viewmats=scene.viewmats, Ks=scene.Ks, width=40, height=40
    )
    assert torch.equal(dirty, without)
    assert clean.isfinite().all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"opacities": random(5, 1)}, "opacities has shape"),
        ({"quats": random(4, 4)}, "quats has shape"),
        ({"viewmats": random(4, 4)}, "viewmats has shape"),
    ],
)
def test_wrong_shapes_are_named(random_scene, change, message):
    scene = random_scene(5, 12)
    for name, value in change.items():
        setattr(scene, name, value)
    with pytest.raises(ValueError, match=message):
        rasterization.rasterization(*scene.arguments, width=8, height=8)


def test_unknown_render_mode_and_empty_picture(random_scene):
    scene = random_scene(5, 12)
    with pytest.raises(ValueError, match="render_mode"):
        rasterization.rasterization(*scene.arguments, width=8, height=8, render_mode="depth")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one pixel"):
        rasterization.rasterization(*scene.arguments, width=0, height=8)


@pytest.mark.parametrize(
    "backend, told",
    [
        (None, r"gsplat is not installed: pip install 'rewardsds\[cuda\]'"),
        ("_C = None", r"gsplat finds no CUDA toolkit \(nvcc\) to build its kernels with"),
        ("raise RuntimeError('ninja:\\n broken')", "gsplat could not build its kernels: ninja: broken"),
        ("print('built'); _C = object()", None),
    ],
)
def test_gsplat_that_cannot_be_used_is_explained(tmp_path, monkeypatch, capsys, backend, told):
    for name in [name for name in sys.modules if name.split(".")[0] == "gsplat"]:
        monkeypatch.delitem(sys.modules, name)
    if backend is None:
        monkeypatch.setattr(rasterization.importlib.util, "find_spec", lambda name: None)
    else:
        (tmp_path / "gsplat/cuda").mkdir(parents=True)
        (tmp_path / "gsplat/__init__.py").touch()
        (tmp_path / "gsplat/cuda/__init__.py").touch()
        (tmp_path / "gsplat/cuda/_backend.py").write_text(backend)
        monkeypatch.syspath_prepend(tmp_path)
    why = rasterization.gsplat_problem.__wrapped__()
    for name in [name for name in sys.modules if name.split(".")[0] == "gsplat"]:
        monkeypatch.delitem(sys.modules, name)
    assert (why is None) == (told is None)
    assert told is None or re.fullmatch(told, str(why))
    assert capsys.readouterr().out == ""  # which is for results


# --- kernels ------------------------------------------------------------------------------------------------


def test_kernels_work_without_a_folder_for_their_cache(monkeypatch):
    """numba refuses cache=True when it finds no writable folder; the kernel is then compiled uncached."""
    from numba.core import caching

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])

    def fill(start, stop, out):
        for i in range(start, stop):
            out[i] = i

    compiled = numba_kernels.kernel(fill)
    out = torch.zeros(4).numpy()
    compiled(1, 3, out)
    assert out.tolist() == [0, 1, 2, 0]


def test_kernels_work_when_the_cache_cannot_be_written(monkeypatch):
    from numba.core import caching

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)

    def double(start, stop, out):
        for i in range(start, stop):
            out[i] = 2 * out[i]

    compiled = numba_kernels.kernel(double)
    out = torch.ones(3).numpy()
    compiled(0, 2, out)
    compiled(0, 1, out)
    assert out.tolist() == [4, 2, 1]
