"""Rasterise Gaussians wherever they are: by gsplat's CUDA kernels, or by numba kernels on the CPU."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import warnings
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from rewardsds.scenes.gaussians import numba_kernels as kernels
from rewardsds.scenes.gaussians.reference import RenderMode, finish
from rewardsds.scenes.parallel import run_jobs
from rewardsds.scenes.parallel import threads as threads


def rasterization(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    backgrounds: Tensor | None = None,
    render_mode: RenderMode = "RGB",
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render N Gaussians from C cameras; arguments and results are those of `reference.rasterization`.

    On CUDA gsplat (arXiv 2409.06765) does the work, on the CPU numba kernels in float32; cameras carry no
    gradient there. Equal input gives bit-identical values and gradients on the CPU, with any number of threads. Where
    gsplat cannot be used, which is warned of once, and on other devices, pictures are made on the CPU and moved;
    `info` then stays there. Raises ValueError for inputs that do not fit together.
    """
    _check(means, quats, scales, opacities, colors, viewmats, Ks, width, height, backgrounds, render_mode)
    if means.is_cuda and len(means) and _gsplat_is_usable():
        return _gsplat(
            means, quats, scales, opacities, colors, viewmats, Ks, width, height,
            near_plane, far_plane, eps2d, backgrounds, render_mode,
        )  # fmt: skip
    if means.device.type != "cpu":
        image, alphas, info = rasterization(
            means.cpu(), quats.cpu(), scales.cpu(), opacities.cpu(), colors.cpu(), viewmats.cpu(), Ks.cpu(),
            width, height, near_plane, far_plane, eps2d,
            None if backgrounds is None else backgrounds.cpu(), render_mode,
        )  # fmt: skip
        return image.to(means.device), alphas.to(means.device), info
    if viewmats.requires_grad or Ks.requires_grad:
        raise ValueError("cameras carry no gradient on the CPU: detach viewmats and Ks")

    means2d, conics, depths, radii = _Project.apply(
        means.float(), quats.float(), scales.float(), opacities.detach().float(),
        viewmats.float(), Ks.float(), width, height, near_plane, far_plane, eps2d,
    )  # fmt: skip
    if means2d.requires_grad:
        means2d.retain_grad()
    count = (len(viewmats), len(means))
    splats = torch.cat(
        [
            means2d,
            conics,
            opacities.float()[None, :, None].expand(*count, 1),
            colors.float().expand(*count, 3),
            depths[..., None],
        ],
        dim=-1,
    )  # C N 10
    image, transmittance = _Rasterize.apply(splats, depths.detach(), radii, width, height)
    alphas = 1 - transmittance[..., None]  # C H W 1
    info = {
        "means2d": means2d,
        "conics": conics,
        "depths": depths,
        "radii": radii,
        "width": width,
        "height": height,
    }
    background = None if backgrounds is None else backgrounds.float()
    return finish(image, alphas, background, render_mode), alphas, info


def _check(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    backgrounds: Tensor | None,
    render_mode: str,
) -> None:
    n, c = len(means), len(viewmats)
    expected: list[tuple[str, Tensor, tuple[tuple[int, ...], ...]]] = [
        ("means", means, ((n, 3),)),
        ("quats", quats, ((n, 4),)),
        ("scales", scales, ((n, 3),)),
        ("opacities", opacities, ((n,),)),
        ("colors", colors, ((n, 3), (c, n, 3))),
        ("viewmats", viewmats, ((c, 4, 4),)),
        ("Ks", Ks, ((c, 3, 3),)),
    ]
    if backgrounds is not None:
        expected.append(("backgrounds", backgrounds, ((c, 3),)))
    for name, tensor, shapes in expected:
        if tuple(tensor.shape) not in shapes:
            wanted = " or ".join(str(shape) for shape in shapes)
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {wanted}")
        if tensor.device != means.device:
            raise ValueError(f"{name} is on {tensor.device}, but means are on {means.device}")
    if width < 1 or height < 1:
        raise ValueError(f"the picture must have at least one pixel, got {width}×{height}")
    if render_mode not in ("RGB", "RGB+D", "RGB+ED"):
        raise ValueError(f"render_mode is RGB, RGB+D or RGB+ED, got {render_mode!r}")


@cache
def gsplat_problem() -> str | None:
    """Why gsplat cannot be used here, in a line; None where it can. The first call builds its kernels."""
    if importlib.util.find_spec("gsplat") is None:
        return "gsplat is not installed: pip install 'rewardsds[cuda]'"
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where it tells of building them
            kernels_of_gsplat = importlib.import_module("gsplat.cuda._backend")._C
    except Exception as error:  # whatever a compiler or a linker ends with
        return f"gsplat could not build its kernels: {' '.join(str(error).split())[:200]}"
    if kernels_of_gsplat is not None:
        return None
    return "gsplat finds no CUDA toolkit (nvcc) to build its kernels with"


@cache
def _gsplat_is_usable() -> bool:
    problem = gsplat_problem()
    if problem is not None:
        warnings.warn(f"Gaussians are rasterised on the CPU, since {problem}", stacklevel=2)
    return problem is None


def _gsplat(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float,
    far_plane: float,
    eps2d: float,
    backgrounds: Tensor | None,
    render_mode: RenderMode,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """gsplat 1.5.3 (1.6 has another limit of alpha) with packed=False, so that info holds (C, N, ...) tensors.

    Its rules are those of `reference`: the same variance eps2d on the diagonal, the same limits of alpha and
    transmittance, the affine approximation clamped at the same 15%, an expected depth divided by alpha, backgrounds
    without depth. `radii` (C, N, 2) are half extents along x and y; only their rounding up before Gaussians at the
    border are culled differs. The gradient of `means2d` is by pixels (its own strategies scale it afterwards) and is
    there because nothing that follows copies the tensor. Colours are given for each camera, as spherical harmonics are
    evaluated in `harmonics.py` on all devices.
    """
    import gsplat  # pyright: ignore[reportMissingImports]

    renders, alphas, info = gsplat.rasterization(
        means.float(), quats.float(), scales.float(), opacities.float(), colors.float(), viewmats.float(), Ks.float(),
        width, height, near_plane=near_plane, far_plane=far_plane, eps2d=eps2d,
        backgrounds=None if backgrounds is None else backgrounds.float(), render_mode=render_mode, packed=False,
    )  # fmt: skip
    if info["means2d"].requires_grad:
        info["means2d"].retain_grad()
    return renders, alphas, info


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


class _Project(Function):
    """(means, quats, scales, opacities, cameras) → means2d, conics, depths, radii; as `reference.project`."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        width: int,
        height: int,
        near_plane: float,
        far_plane: float,
        eps2d: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        shape = (len(viewmats), len(means))
        means2d, conics = torch.empty(*shape, 2), torch.empty(*shape, 3)
        depths, radii = torch.empty(shape), torch.empty(*shape, 2, dtype=torch.int32)
        size = (np.float32(width), np.float32(height))
        limits = (np.float32(near_plane), np.float32(far_plane), np.float32(eps2d))
        inputs = [_array(t) for t in (means, quats, scales, opacities, viewmats, Ks)]
        outputs = [t.numpy() for t in (means2d, conics, depths, radii)]
        run_jobs(kernels.project_forward, len(means), *inputs, *size, *limits, *outputs)
        ctx.save_for_backward(means, quats, scales, viewmats, Ks, conics, radii)
        ctx.size = size
        ctx.mark_non_differentiable(radii)
        return means2d, conics, depths, radii

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        g_means2d, g_conics, g_depths, _ = gradients
        means, quats, scales, viewmats, Ks, conics, radii = ctx.saved_tensors
        g_means, g_quats, g_scales = (
            torch.empty(means.shape),
            torch.empty(quats.shape),
            torch.empty(scales.shape),
        )
        inputs = [_array(t) for t in (means, quats, scales, viewmats, Ks)]
        projected = [_array(t) for t in (conics, radii, g_means2d, g_conics, g_depths)]
        outputs = [t.numpy() for t in (g_means, g_quats, g_scales)]
        run_jobs(kernels.project_backward, len(means), *inputs, *ctx.size, *projected, *outputs)
        return g_means, g_quats, g_scales, *[None] * 8


class _Rasterize(Function):
    """(splats (C, N, 10), depths, radii) → image (C, H, W, 4) on black, transmittance (C, H, W)."""

    @staticmethod
    def forward(
        ctx: Any, splats: Tensor, depths: Tensor, radii: Tensor, width: int, height: int
    ) -> tuple[Tensor, Tensor]:
        cameras = len(splats)
        tiles_x, tiles_y = -(-width // kernels.TILE_WIDTH), -(-height // kernels.TILE_HEIGHT)
        tiles = tiles_x * tiles_y
        order = _array(torch.argsort(depths, dim=-1, stable=True))  # C N, nearest first
        packed, radii_array = _array(splats), _array(radii)

        counts = np.zeros((cameras, tiles), dtype=np.int64)
        run_jobs(kernels.count_intersections, cameras, packed, radii_array, tiles_x, tiles_y, counts)
        offsets = np.zeros(cameras * tiles + 1, dtype=np.int64)
        np.cumsum(counts.reshape(-1), out=offsets[1:])
        lists = np.empty(offsets[-1], dtype=np.int32)
        cursor = offsets[:-1].reshape(cameras, tiles).copy()
        run_jobs(
            kernels.list_intersections, cameras, order, packed, radii_array, tiles_x, tiles_y, cursor, lists
        )

        image, transmittance = torch.empty(cameras, height, width, 4), torch.empty(cameras, height, width)
        last = np.empty((cameras, height, width), dtype=np.int32)
        run_jobs(
            kernels.rasterize_forward, cameras * tiles, packed, radii_array, offsets, lists, tiles_x,
            image.numpy(), transmittance.numpy(), last,
        )  # fmt: skip
        ctx.save_for_backward(splats, radii, transmittance)
        ctx.lists = (offsets, lists, tiles_x, tiles, last)
        return image, transmittance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        g_image, g_transmittance = gradients
        splats, radii, transmittance = ctx.saved_tensors
        offsets, lists, tiles_x, tiles, last = ctx.lists
        cameras = len(splats)
        g_lists = np.empty((len(lists), kernels.SPLAT), dtype=np.float32)
        run_jobs(
            kernels.rasterize_backward, cameras * tiles, _array(splats), _array(radii), offsets, lists,
            tiles_x, _array(transmittance), last, _array(g_image), _array(g_transmittance), g_lists,
        )  # fmt: skip
        g_splats = torch.zeros_like(splats)
        run_jobs(kernels.sum_intersections, cameras, offsets, lists, tiles, g_lists, g_splats.numpy())
        return g_splats, None, None, None, None
