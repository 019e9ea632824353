"""Which triangle is seen at each pixel, and where on it.

A pixel's ray meets the plane of a triangle p₀ p₁ p₂ (camera space) at barycentrics b that solve, up to scale,
[p₀ p₁ p₂] b = direction. Cramer's rule makes each bᵢ the dot product of the direction with an edge's plane, pⱼ × pₖ
(Olano and Greer, "Triangle scan conversion using 2D homogeneous coordinates", 1997). That is perspective-correct as it
stands, and triangles that reach behind the camera need no clipping. Neighbours share an edge's plane up to its sign, to
the bit, so no ray slips through between them.

Only visibility is found here; gradients flow through what is looked up in a texture afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from rewardsds.scenes.cameras import Cameras
from rewardsds.scenes.parallel import kernel, run_jobs

NEAR = 1e-3  # world units before the camera
BAND = 128  # rows that a job fills


@dataclass(frozen=True)
class Fragments:
    """What C cameras see at each pixel.

    triangle: (C, H, W) int64, −1 where nothing is. barycentric: (C, H, W, 3) float32, of the triangle's corners, 0
    where nothing is. depth: (C, H, W) float32, distance along the camera's view direction, 0 where nothing is.
    """

    triangle: Tensor
    barycentric: Tensor
    depth: Tensor

    @property
    def mask(self) -> Tensor:
        """(C, H, W) bool: where something is."""
        return self.triangle >= 0

    def interpolate(self, faces: Tensor, values: Tensor) -> Tensor:
        """(P, K) of values (V, K) of vertices at the P pixels of `mask`, in its order."""
        mask = self.mask
        corners = values[faces[self.triangle[mask]]]  # P 3 K
        return (corners * self.barycentric[mask][..., None]).sum(1)


def rasterise(vertices: Tensor, faces: Tensor, cameras: Cameras, height: int, width: int) -> Fragments:
    """Triangles seen from cameras (C,) through pixel centres, both sides of them; the nearest counts, of equally near
    ones the first.

    vertices: (V, 3), faces: (F, 3) int64, on any device: the work is done on the CPU (numba), where it takes
    milliseconds, and what comes back lies where the vertices do. The same input gives the same bits, with any number of
    threads.
    """
    points = _camera_space(vertices.detach().cpu(), cameras.to("cpu"))
    half = torch.tan(0.5 * cameras.field_of_view.detach().cpu().double())
    return _rasterise(points, half, faces.detach().cpu(), height, width, vertices.device)


def rasterise_uvs(uvs: Tensor, faces: Tensor, size: int) -> Fragments:
    """The triangle of an atlas that covers the centre of each texel: fragments of one "camera", size × size."""
    return _rasterise(*_uv_space(uvs), faces.detach().cpu(), size, size, uvs.device)


def atlas_texels(uvs: Tensor, faces: Tensor, size: int) -> Fragments:
    """As `rasterise_uvs`; a triangle that covers no texel's centre gets the texel that its middle lies in, at its
    middle, where no other triangle has it. Of several such triangles in one texel the largest counts."""
    found = rasterise_uvs(uvs, faces, size)
    triangle, barycentric, depth = (
        part.flatten(0, 2) for part in (found.triangle, found.barycentric, found.depth)
    )  # views: what is written into them is in `found`
    lone = torch.ones(len(faces), dtype=torch.bool, device=triangle.device)
    lone[triangle[triangle >= 0]] = False
    missing = torch.nonzero(lone).squeeze(-1)
    corners = uvs.detach()[faces[missing]].double()  # M 3 2
    first, second = (corners[:, 1:] - corners[:, :1]).unbind(1)
    areas = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).abs()
    order = areas.argsort(descending=True, stable=True)
    column, row = (corners.mean(1) * size).long().clamp(0, size - 1)[order].unbind(-1)
    texel, which = np.unique((row * size + column).cpu().numpy(), return_index=True)
    texel, which = (torch.from_numpy(array).to(triangle.device) for array in (texel, which))
    free = triangle[texel] < 0
    texel, which = texel[free], which[free]
    triangle[texel] = missing[order][which]
    barycentric[texel] = 1 / 3
    depth[texel] = 1.0
    return found


def _camera_space(vertices: Tensor, cameras: Cameras) -> Tensor:
    """(C, V, 3) float64: to the right, up, and forward."""
    if len(cameras.batch_shape) != 1:
        raise ValueError(f"cameras of batch shape (C,) are needed, got {tuple(cameras.batch_shape)}")
    pose = cameras.camera_to_world.detach().double()
    points = (vertices.double() - pose[:, None, :3, 3]) @ pose[:, :3, :3]
    return points * points.new_tensor([1.0, 1.0, -1.0])


def _uv_space(uvs: Tensor) -> tuple[Tensor, Tensor]:
    """The atlas as a wall at distance 1 that fills the picture of a camera of 90 degrees."""
    flat = uvs.detach().cpu().double()
    wall = torch.stack([2 * flat[:, 0] - 1, 1 - 2 * flat[:, 1], torch.ones_like(flat[:, 0])], dim=-1)
    return wall[None], torch.ones(1, dtype=torch.float64)


def _rasterise(
    points: Tensor, half: Tensor, faces: Tensor, height: int, width: int, device: torch.device
) -> Fragments:
    """points: (C, V, 3) float64 in camera space. half: (C,) tangent of half of the vertical field of view."""
    if height < 1 or width < 1:
        raise ValueError(f"the picture must have at least one pixel, got {width}×{height}")
    count = len(points)
    triangle = np.full((count, height, width), -1, dtype=np.int64)
    barycentric = np.zeros((count, height, width, 3), dtype=np.float32)
    depth = np.zeros((count, height, width), dtype=np.float32)
    boxes = _boxes(points, half, faces, height, width)
    arguments = (
        points.contiguous().numpy(), half.contiguous().numpy(), faces.contiguous().numpy(), boxes.numpy(),
        height, width, triangle, barycentric, depth,
    )  # fmt: skip
    run_jobs(_rasterise_bands, count * -(-height // BAND), *arguments)
    found = (torch.from_numpy(array).to(device) for array in (triangle, barycentric, depth))
    return Fragments(*found)


def _boxes(points: Tensor, half: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    """(C, F, 4) int32: first and last column, first and last row of pixels that a triangle can cover.

    A triangle that reaches behind a camera may cover any pixel; of one that covers none the last is before the first.
    """
    depth = points[..., 2]
    pixel = (
        points[..., :2] / torch.where(depth > NEAR, depth, 1.0)[..., None] / (half[:, None, None] / height)
    )
    column, row = (pixel[..., 0] + width - 1) / 2, (height - 1 - pixel[..., 1]) / 2  # C V
    sides = []
    for place, last in ((column, width - 1), (row, height - 1)):
        corners = place[:, faces]  # C F 3
        low, high = corners.amin(-1) - 1e-6, corners.amax(-1) + 1e-6  # a margin for rounding
        sides += [low.ceil().clamp(0, last + 1), high.floor().clamp(-1, last)]
    boxes = torch.stack(sides, dim=-1).to(torch.int32)
    before = (depth > NEAR)[:, faces]
    boxes[~before.all(-1)] = torch.tensor([0, width - 1, 0, height - 1], dtype=torch.int32)
    boxes[~before.any(-1)] = torch.tensor([0, -1, 0, -1], dtype=torch.int32)
    return boxes


# Without fastmath: fused products would give neighbours different planes of the edge that they share.
@partial(kernel, fastmath=False)
def _rasterise_bands(start, stop, points, half, faces, boxes, height, width, triangle, barycentric, depth):
    """Jobs are bands of rows, camera by camera."""
    bands = -(-height // BAND)
    for job in range(start, stop):
        c = job // bands
        first = (job % bands) * BAND
        last = min(first + BAND, height)
        nearest = np.full((last - first, width), np.inf)
        scale = half[c] / height
        for f in range(faces.shape[0]):
            x0, x1 = boxes[c, f, 0], boxes[c, f, 1]
            y0, y1 = max(boxes[c, f, 2], first), min(boxes[c, f, 3], last - 1)
            if x0 > x1 or y0 > y1:
                continue
            a, b, d = faces[f, 0], faces[f, 1], faces[f, 2]
            ax, ay, az = points[c, a, 0], points[c, a, 1], points[c, a, 2]
            bx, by, bz = points[c, b, 0], points[c, b, 1], points[c, b, 2]
            dx, dy, dz = points[c, d, 0], points[c, d, 1], points[c, d, 2]
            # planes through the eye and the edges
            e0x, e0y, e0z = by * dz - bz * dy, bz * dx - bx * dz, bx * dy - by * dx
            e1x, e1y, e1z = dy * az - dz * ay, dz * ax - dx * az, dx * ay - dy * ax
            e2x, e2y, e2z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
            volume = ax * e0x + ay * e0y + az * e0z
            if volume == 0:
                continue
            for y in range(y0, y1 + 1):
                up = (height - 2 * y - 1) * scale
                for x in range(x0, x1 + 1):
                    right = (2 * x + 1 - width) * scale
                    w0 = e0x * right + e0y * up + e0z
                    w1 = e1x * right + e1y * up + e1z
                    w2 = e2x * right + e2y * up + e2z
                    if volume > 0:
                        if w0 < 0 or w1 < 0 or w2 < 0:
                            continue
                    elif w0 > 0 or w1 > 0 or w2 > 0:
                        continue
                    total = w0 + w1 + w2
                    if total == 0:
                        continue
                    z = volume / total
                    if z <= NEAR or z >= nearest[y - first, x]:
                        continue
                    nearest[y - first, x] = z
                    triangle[c, y, x] = f
                    depth[c, y, x] = z
                    barycentric[c, y, x, 0] = w0 / total
                    barycentric[c, y, x, 1] = w1 / total
                    barycentric[c, y, x, 2] = w2 / total


def reference_rasterise(
    vertices: Tensor, faces: Tensor, cameras: Cameras, height: int, width: int, chunk: int = 64
) -> Fragments:
    """What `rasterise` does, in plain torch on the vertices' device: every pixel against every triangle, `chunk`
    triangles at a time."""
    points = _camera_space(vertices.detach(), cameras.to(vertices.device))
    rays = _rays(cameras.to(vertices.device), height, width)  # C H W 3
    shape = rays.shape[:-1]
    nearest = rays.new_full(shape, torch.inf)
    triangle = torch.full(shape, -1, dtype=torch.int64, device=rays.device)
    barycentric = torch.zeros_like(rays)
    for start in range(0, len(faces), chunk):
        a, b, c = points[:, faces[start : start + chunk]].unbind(2)  # C K 3
        planes = torch.stack(
            [torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 2
        )
        volume = (a * planes[:, :, 0]).sum(-1)  # C K
        w = torch.einsum("chwx,ckex->chwke", rays, planes)
        sign = volume.sign()[:, None, None]  # C 1 1 K
        total = w.sum(-1)
        z = volume[:, None, None] / total
        hit = (w * sign[..., None] >= 0).all(-1) & (sign != 0) & (total != 0) & (z > NEAR)
        z = torch.where(hit, z, torch.inf)
        best, which = z.min(-1)  # of equally near ones the first
        closer = best < nearest
        own = w.gather(3, which[..., None, None].expand(*shape, 1, 3)).squeeze(3)
        barycentric = torch.where(closer[..., None], own / own.sum(-1, keepdim=True), barycentric)
        triangle = torch.where(closer, start + which, triangle)
        nearest = torch.where(closer, best, nearest)
    depth = torch.where(triangle >= 0, nearest, torch.zeros_like(nearest))
    return Fragments(triangle, barycentric.float(), depth.float())


def _rays(cameras: Cameras, height: int, width: int) -> Tensor:
    """(C, H, W, 3) float64: to the right, up and forward (1), of each pixel's centre."""
    scale = torch.tan(0.5 * cameras.field_of_view.double())[:, None, None] / height
    y, x = torch.meshgrid(
        torch.arange(height, device=scale.device), torch.arange(width, device=scale.device), indexing="ij"
    )
    right, up = (2 * x + 1 - width) * scale, (height - 2 * y - 1) * scale
    return torch.stack([right, up, torch.ones_like(right)], dim=-1)
