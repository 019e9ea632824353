"""3D Gaussian splatting in plain torch: the definition that the fast kernels are held to.

It follows the published rules (3DGS, arXiv 2308.04079; gsplat, arXiv 2409.06765) and evaluates every
Gaussian at every pixel, so it is slow, and simple enough to be checked by hand.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ALPHA = 0.999  # no Gaussian is fully opaque, so that transmittance stays invertible
MIN_ALPHA = 1.0 / 255.0  # what an 8-bit picture cannot show is skipped
MIN_TRANSMITTANCE = 1e-4  # a pixel whose transmittance would fall to this or below is finished

RenderMode = Literal["RGB", "RGB+D", "RGB+ED"]

# Legend of the shape comments: C cameras, N Gaussians, H W image, P = H · W pixels.


def quaternion_to_matrix(quats: Tensor) -> Tensor:
    """Rotation matrices (N, 3, 3) of quaternions (N, 4) in the order wxyz, which need not be normalised."""
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)  # N each
    return torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ],
        dim=-1,
    ).reshape(*quats.shape[:-1], 3, 3)  # N 3 3  # fmt: skip


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """EWA projection of Gaussians to the image plane (arXiv 2308.04079, eq. 5; arXiv 2409.06765, app. A).

    The arguments are those of `rasterization`. Returns
        means2d (C, N, 2) pixels, conics (C, N, 3) upper triangle (xx, xy, yy) of the inverse 2D covariance,
        depths (C, N) along the optical axis, radii (C, N, 2) int32: half extent in x and y, in pixels, of the
        ellipse in which alpha reaches 1/255; 0 for what cannot be seen, whose other values mean nothing.
    """
    rotation = viewmats[:, None, :3, :3]  # C 1 3 3
    p = (rotation @ means[None, :, :, None]).squeeze(-1) + viewmats[:, None, :3, 3]  # C N 3
    depths = p[..., 2]  # C N
    in_range = (depths > near_plane) & (depths < far_plane)  # C N
    z = torch.where(in_range, depths, torch.ones_like(depths))  # C N, keeps what is culled free of infinities

    fx, fy = Ks[:, None, 0, 0], Ks[:, None, 1, 1]  # C 1
    cx, cy = Ks[:, None, 0, 2], Ks[:, None, 1, 2]  # C 1
    means2d = torch.stack([fx * p[..., 0] / z + cx, fy * p[..., 1] / z + cy], dim=-1)  # C N 2

    # Far outside the picture the affine approximation breaks down, so its point is clamped to 15% beyond it.
    slack_x, slack_y = 0.15 * width / fx, 0.15 * height / fy  # C 1
    tx = z * torch.clamp(p[..., 0] / z, min=-(cx / fx + slack_x), max=(width - cx) / fx + slack_x)  # C N
    ty = z * torch.clamp(p[..., 1] / z, min=-(cy / fy + slack_y), max=(height - cy) / fy + slack_y)  # C N
    zero = torch.zeros_like(z)  # C N
    jacobian = torch.stack(
        [fx / z, zero, -fx * tx / z**2, zero, fy / z, -fy * ty / z**2], dim=-1
    ).reshape(*z.shape, 2, 3)  # C N 2 3  # fmt: skip

    half = quaternion_to_matrix(quats) * scales[:, None, :]  # N 3 3: R S
    covariance = half @ half.transpose(-1, -2)  # N 3 3
    to_image = jacobian @ rotation  # C N 2 3
    covariance2d = to_image @ covariance @ to_image.transpose(-1, -2)  # C N 2 2
    covariance2d = covariance2d + eps2d * torch.eye(2, dtype=means.dtype, device=means.device)  # C N 2 2
    xx, xy, yy = covariance2d[..., 0, 0], covariance2d[..., 0, 1], covariance2d[..., 1, 1]  # C N
    determinant = xx * yy - xy * xy  # C N
    in_range = in_range & (determinant > 0)  # C N
    determinant = torch.where(in_range, determinant, torch.ones_like(determinant))  # C N
    conics = torch.stack([yy, -xy, xx], dim=-1) / determinant[..., None]  # C N 3

    with torch.no_grad():
        # opacity · exp(−m²/2) = 1/255 at m standard deviations from the mean
        m = torch.sqrt(2 * torch.log((opacities / MIN_ALPHA).clamp(min=1.0)))  # N
        reach = m[..., None] * torch.stack([xx, yy], dim=-1).clamp(min=0).sqrt()  # C N 2
        size = means2d.new_tensor([width, height])  # 2
        on_screen = ((means2d + reach > 0) & (means2d - reach < size)).all(-1)  # C N
        visible = in_range & on_screen & (opacities >= MIN_ALPHA)  # C N
        radii = torch.where(visible[..., None], reach.ceil(), torch.zeros_like(reach)).int()  # C N 2
    return means2d, conics, depths, radii


def composite(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    depths: Tensor,
    radii: Tensor,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor]:
    """Front-to-back alpha compositing of one camera's Gaussians (arXiv 2308.04079, eq. 3).

    means2d (N, 2), conics (N, 3), opacities (N,), features (N, F), depths (N,), radii (N, 2).
    Returns the composited features (H, W, F) on black and the alpha (H, W, 1).
    """
    with torch.no_grad():
        visible = (radii > 0).all(-1).nonzero().squeeze(-1)  # M
        order = visible[torch.argsort(depths[visible], stable=True)]  # M, nearest first
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pixels = torch.stack([x, y], dim=-1).reshape(-1, 2).to(means2d) + 0.5  # P 2, pixel centres

    delta = means2d[order][:, None, :] - pixels  # M P 2
    a, b, c = conics[order][:, None, :].unbind(-1)  # M 1 each
    dx, dy = delta.unbind(-1)  # M P each
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy  # M P
    alpha = (opacities[order][:, None] * torch.exp(-sigma)).clamp(max=MAX_ALPHA)  # M P
    alpha = torch.where((sigma >= 0) & (alpha >= MIN_ALPHA), alpha, torch.zeros_like(alpha))  # M P

    with torch.no_grad():  # transmittance only falls, so "finished" is a threshold on it
        unfinished = torch.cumprod(1 - alpha, dim=0) > MIN_TRANSMITTANCE  # M P
    alpha = torch.where(unfinished, alpha, torch.zeros_like(alpha))  # M P
    after = torch.cumprod(1 - alpha, dim=0)  # M P, transmittance behind each Gaussian
    one = torch.ones_like(after[:1]) if len(after) else after.new_ones(1, height * width)  # 1 P
    after = torch.cat([one, after], dim=0)  # M+1 P
    weights = alpha * after[:-1]  # M P
    image = weights.transpose(0, 1) @ features[order]  # P F
    return image.reshape(height, width, -1), (1 - after[-1]).reshape(height, width, 1)


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
    """Render N Gaussians from C cameras; the signature and the results of gsplat's `rasterization`.

    means (N, 3) world units; quats (N, 4) wxyz, any norm; scales (N, 3) standard deviations, positive;
    opacities (N,) in [0, 1]; colors (N, 3) or one set per camera (C, N, 3); viewmats (C, 4, 4) world to
    camera with OpenCV axes; Ks (C, 3, 3) intrinsics in pixels; eps2d: variance in pixels² that is added to
    every splat, so that none falls between the pixels; backgrounds (C, 3), black when None.
    render_mode: "RGB"; "RGB+D" adds depth weighted by alpha, "RGB+ED" adds the expected depth (that, divided
    by alpha). All Gaussian parameters and backgrounds carry gradient.

    Returns renders (C, H, W, 3 or 4), alphas (C, H, W, 1), and a dict with `means2d` (C, N, 2) (its `.grad`
    is there after backward), `conics` (C, N, 3), `depths` (C, N), `radii` (C, N, 2), `width`, `height`.
    """
    cameras = len(viewmats)
    means2d, conics, depths, radii = project(
        means, quats, scales, opacities, viewmats, Ks, width, height, near_plane, far_plane, eps2d
    )
    if means2d.requires_grad:
        means2d.retain_grad()
    colors = colors.expand(cameras, -1, -1)  # C N 3
    features = torch.cat([colors, depths[..., None]], dim=-1)  # C N 4
    images, alphas = [], []
    for c in range(cameras):
        image, alpha = composite(
            means2d[c], conics[c], opacities, features[c], depths[c], radii[c], width, height
        )
        images.append(image)
        alphas.append(alpha)
    info = {
        "means2d": means2d,
        "conics": conics,
        "depths": depths,
        "radii": radii,
        "width": width,
        "height": height,
    }
    alpha = torch.stack(alphas)  # C H W 1
    return finish(torch.stack(images), alpha, backgrounds, render_mode), alpha, info


def finish(features: Tensor, alphas: Tensor, backgrounds: Tensor | None, render_mode: RenderMode) -> Tensor:
    """Adds backgrounds and picks channels; features (C, H, W, 4): colour on black, depth times alpha."""
    colour, depth = features[..., :3], features[..., 3:]  # C H W 3, C H W 1
    if backgrounds is not None:
        colour = colour + (1 - alphas) * backgrounds[:, None, None, :]  # C H W 3
    if render_mode == "RGB":
        return colour
    if render_mode == "RGB+ED":
        depth = depth / alphas.clamp(min=1e-10)  # C H W 1
    return torch.cat([colour, depth], dim=-1)  # C H W 4
