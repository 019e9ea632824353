"""CPU kernels of the Gaussian rasteriser: the rules of `reference.py`, forward and backward.

Each kernel works on a range of jobs and releases the GIL; `rasterization.py` hands ranges to threads. No two
jobs write to the same place, and sums over jobs are taken in a fixed order afterwards, so results do not
depend on how many threads there are or on which comes first.

The picture is cut into tiles. A job composites one tile of one camera, Gaussian after Gaussian, nearest
first: the inner loop runs over neighbouring pixels without a branch, which compilers turn into vector
instructions, and sums over pixels stay in registers.

Legend: C cameras, N Gaussians, I intersections of a Gaussian with a tile (all tiles of all cameras).
"""

from __future__ import annotations

import math

import numba
import numpy as np

from rewardsds.scenes.gaussians.reference import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE
from rewardsds.scenes.parallel import kernel

TILE_WIDTH = 8
TILE_HEIGHT = 16
TILE_PIXELS = TILE_WIDTH * TILE_HEIGHT
SPLAT = 10  # floats of a packed splat: x, y, conic xx, xy, yy, opacity, red, green, blue, depth

_MAX_ALPHA = np.float32(MAX_ALPHA)
_MIN_ALPHA = np.float32(MIN_ALPHA)
_MIN_TRANSMITTANCE = np.float32(MIN_TRANSMITTANCE)

# In Python, a float literal is double precision; one of them would make a whole expression double.
_0 = np.float32(0.0)
_1 = np.float32(1.0)
_2 = np.float32(2.0)
_HALF = np.float32(0.5)

# exp(−s) as (polynomial in s/8)^8 on 0 ≤ s ≤ 6, relative error about 1e-6. Beyond, alpha is below 1/255 for
# every opacity of at most 1. The polynomial interpolates exp(−u) at Chebyshev points of [0, 0.75].
_S_MAX = np.float32(6.0)
_EIGHTH = np.float32(0.125)
_NODES = 0.375 + 0.375 * np.cos((np.arange(7) + 0.5) * np.pi / 7)
_E6, _E5, _E4, _E3, _E2, _E1, _E0 = (np.float32(x) for x in np.polyfit(_NODES, np.exp(-_NODES), 6))


@numba.njit(inline="always")
def exp_minus(s):  # pragma: no cover
    """exp(−s), see _E0; s is clamped to _S_MAX."""
    u = (s if s < _S_MAX else _S_MAX) * _EIGHTH
    e = _E0 + u * (_E1 + u * (_E2 + u * (_E3 + u * (_E4 + u * (_E5 + u * _E6)))))
    e = e * e
    e = e * e
    return e * e


@kernel
def project_forward(
    start, stop, means, quats, scales, opacities, viewmats, intrinsics, width, height, near, far, eps2d,
    means2d, conics, depths, radii,
):  # fmt: skip
    """Jobs are Gaussians n. Fills means2d (C, N, 2), conics (C, N, 3), depths (C, N), radii (C, N, 2) int32;
    what cannot be seen gets radii 0 and finite values."""
    for n in range(start, stop):
        # quaternion → R S → world covariance
        qw, qx, qy, qz = quats[n, 0], quats[n, 1], quats[n, 2], quats[n, 3]
        norm = _1 / max(math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz), np.float32(1e-12))
        qw, qx, qy, qz = qw * norm, qx * norm, qy * norm, qz * norm
        s0, s1, s2 = scales[n, 0], scales[n, 1], scales[n, 2]
        m00 = (_1 - _2 * (qy * qy + qz * qz)) * s0
        m01 = _2 * (qx * qy - qw * qz) * s1
        m02 = _2 * (qx * qz + qw * qy) * s2
        m10 = _2 * (qx * qy + qw * qz) * s0
        m11 = (_1 - _2 * (qx * qx + qz * qz)) * s1
        m12 = _2 * (qy * qz - qw * qx) * s2
        m20 = _2 * (qx * qz - qw * qy) * s0
        m21 = _2 * (qy * qz + qw * qx) * s1
        m22 = (_1 - _2 * (qx * qx + qy * qy)) * s2
        opacity = opacities[n]
        reach = math.sqrt(_2 * math.log(opacity / _MIN_ALPHA)) if opacity > _MIN_ALPHA else _0
        px, py, pz = means[n, 0], means[n, 1], means[n, 2]
        for c in range(viewmats.shape[0]):
            w = viewmats[c]
            fx, fy = intrinsics[c, 0, 0], intrinsics[c, 1, 1]
            cx, cy = intrinsics[c, 0, 2], intrinsics[c, 1, 2]
            x = w[0, 0] * px + w[0, 1] * py + w[0, 2] * pz + w[0, 3]
            y = w[1, 0] * px + w[1, 1] * py + w[1, 2] * pz + w[1, 3]
            z = w[2, 0] * px + w[2, 1] * py + w[2, 2] * pz + w[2, 3]
            depths[c, n] = z
            radii[c, n, 0] = 0
            radii[c, n, 1] = 0
            means2d[c, n, 0] = _0
            means2d[c, n, 1] = _0
            conics[c, n, 0] = _1
            conics[c, n, 1] = _0
            conics[c, n, 2] = _1
            if not (z > near and z < far):
                continue
            rz = _1 / z
            u = fx * x * rz + cx
            v = fy * y * rz + cy
            slack_x = np.float32(0.15) * width / fx
            slack_y = np.float32(0.15) * height / fy
            tx = min(max(x * rz, -(cx / fx + slack_x)), (width - cx) / fx + slack_x)
            ty = min(max(y * rz, -(cy / fy + slack_y)), (height - cy) / fy + slack_y)
            j00, j02 = fx * rz, -fx * tx * rz
            j11, j12 = fy * rz, -fy * ty * rz
            # T = J W, then A = T (R S): the 2D covariance is A Aᵀ
            t00 = j00 * w[0, 0] + j02 * w[2, 0]
            t01 = j00 * w[0, 1] + j02 * w[2, 1]
            t02 = j00 * w[0, 2] + j02 * w[2, 2]
            t10 = j11 * w[1, 0] + j12 * w[2, 0]
            t11 = j11 * w[1, 1] + j12 * w[2, 1]
            t12 = j11 * w[1, 2] + j12 * w[2, 2]
            a00 = t00 * m00 + t01 * m10 + t02 * m20
            a01 = t00 * m01 + t01 * m11 + t02 * m21
            a02 = t00 * m02 + t01 * m12 + t02 * m22
            a10 = t10 * m00 + t11 * m10 + t12 * m20
            a11 = t10 * m01 + t11 * m11 + t12 * m21
            a12 = t10 * m02 + t11 * m12 + t12 * m22
            xx = a00 * a00 + a01 * a01 + a02 * a02 + eps2d
            xy = a00 * a10 + a01 * a11 + a02 * a12
            yy = a10 * a10 + a11 * a11 + a12 * a12 + eps2d
            det = xx * yy - xy * xy
            if not (det > _0):
                continue
            rx = reach * math.sqrt(xx)
            ry = reach * math.sqrt(yy)
            if not (
                opacity >= _MIN_ALPHA and u + rx > _0 and u - rx < width and v + ry > _0 and v - ry < height
            ):
                continue
            means2d[c, n, 0] = u
            means2d[c, n, 1] = v
            conics[c, n, 0] = yy / det
            conics[c, n, 1] = -xy / det
            conics[c, n, 2] = xx / det
            radii[c, n, 0] = np.int32(math.ceil(min(rx, np.float32(1e9))))
            radii[c, n, 1] = np.int32(math.ceil(min(ry, np.float32(1e9))))


@kernel
def project_backward(
    start, stop, means, quats, scales, viewmats, intrinsics, width, height, conics, radii,
    g_means2d, g_conics, g_depths, g_means, g_quats, g_scales,
):  # fmt: skip
    """Jobs are Gaussians n; sums over cameras are taken inside. Fills g_means (N, 3), g_quats (N, 4),
    g_scales (N, 3). The gradient of a symmetric matrix is kept as all of its entries."""
    for n in range(start, stop):
        qw, qx, qy, qz = quats[n, 0], quats[n, 1], quats[n, 2], quats[n, 3]
        norm = _1 / max(math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz), np.float32(1e-12))
        qw, qx, qy, qz = qw * norm, qx * norm, qy * norm, qz * norm
        s0, s1, s2 = scales[n, 0], scales[n, 1], scales[n, 2]
        r00 = _1 - _2 * (qy * qy + qz * qz)
        r01 = _2 * (qx * qy - qw * qz)
        r02 = _2 * (qx * qz + qw * qy)
        r10 = _2 * (qx * qy + qw * qz)
        r11 = _1 - _2 * (qx * qx + qz * qz)
        r12 = _2 * (qy * qz - qw * qx)
        r20 = _2 * (qx * qz - qw * qy)
        r21 = _2 * (qy * qz + qw * qx)
        r22 = _1 - _2 * (qx * qx + qy * qy)
        m00, m01, m02 = r00 * s0, r01 * s1, r02 * s2
        m10, m11, m12 = r10 * s0, r11 * s1, r12 * s2
        m20, m21, m22 = r20 * s0, r21 * s1, r22 * s2
        px, py, pz = means[n, 0], means[n, 1], means[n, 2]
        # gradients of the mean and of M = R S, summed over cameras
        gx, gy, gz = _0, _0, _0
        g00, g01, g02, g10, g11, g12, g20, g21, g22 = _0, _0, _0, _0, _0, _0, _0, _0, _0
        for c in range(viewmats.shape[0]):
            if radii[c, n, 0] <= 0 or radii[c, n, 1] <= 0:
                continue
            w = viewmats[c]
            fx, fy = intrinsics[c, 0, 0], intrinsics[c, 1, 1]
            cx, cy = intrinsics[c, 0, 2], intrinsics[c, 1, 2]
            x = w[0, 0] * px + w[0, 1] * py + w[0, 2] * pz + w[0, 3]
            y = w[1, 0] * px + w[1, 1] * py + w[1, 2] * pz + w[1, 3]
            z = w[2, 0] * px + w[2, 1] * py + w[2, 2] * pz + w[2, 3]
            rz = _1 / z
            slack_x = np.float32(0.15) * width / fx
            slack_y = np.float32(0.15) * height / fy
            low_x, high_x = -(cx / fx + slack_x), (width - cx) / fx + slack_x
            low_y, high_y = -(cy / fy + slack_y), (height - cy) / fy + slack_y
            tx = min(max(x * rz, low_x), high_x)
            ty = min(max(y * rz, low_y), high_y)
            j00, j02 = fx * rz, -fx * tx * rz
            j11, j12 = fy * rz, -fy * ty * rz
            t00 = j00 * w[0, 0] + j02 * w[2, 0]
            t01 = j00 * w[0, 1] + j02 * w[2, 1]
            t02 = j00 * w[0, 2] + j02 * w[2, 2]
            t10 = j11 * w[1, 0] + j12 * w[2, 0]
            t11 = j11 * w[1, 1] + j12 * w[2, 1]
            t12 = j11 * w[1, 2] + j12 * w[2, 2]
            a00 = t00 * m00 + t01 * m10 + t02 * m20
            a01 = t00 * m01 + t01 * m11 + t02 * m21
            a02 = t00 * m02 + t01 * m12 + t02 * m22
            a10 = t10 * m00 + t11 * m10 + t12 * m20
            a11 = t10 * m01 + t11 * m11 + t12 * m21
            a12 = t10 * m02 + t11 * m12 + t12 * m22

            # conic Q = Σ⁻¹: dΣ = −Q dQ Q, half of the off-diagonal gradient to each of its two places
            q0, q1, q2 = conics[c, n, 0], conics[c, n, 1], conics[c, n, 2]
            d0, d1, d2 = g_conics[c, n, 0], _HALF * g_conics[c, n, 1], g_conics[c, n, 2]
            h00, h01 = q0 * d0 + q1 * d1, q0 * d1 + q1 * d2
            h10, h11 = q1 * d0 + q2 * d1, q1 * d1 + q2 * d2
            sxx = -(h00 * q0 + h01 * q1)
            sxy = -(h00 * q1 + h01 * q2)
            syy = -(h10 * q1 + h11 * q2)

            # Σ = A Aᵀ + eps: dA = 2 dΣ A
            b00, b01, b02 = sxx * a00 + sxy * a10, sxx * a01 + sxy * a11, sxx * a02 + sxy * a12
            b10, b11, b12 = sxy * a00 + syy * a10, sxy * a01 + syy * a11, sxy * a02 + syy * a12
            b00, b01, b02 = _2 * b00, _2 * b01, _2 * b02
            b10, b11, b12 = _2 * b10, _2 * b11, _2 * b12

            # A = T M: dM = Tᵀ dA, dT = dA Mᵀ
            g00 += t00 * b00 + t10 * b10
            g01 += t00 * b01 + t10 * b11
            g02 += t00 * b02 + t10 * b12
            g10 += t01 * b00 + t11 * b10
            g11 += t01 * b01 + t11 * b11
            g12 += t01 * b02 + t11 * b12
            g20 += t02 * b00 + t12 * b10
            g21 += t02 * b01 + t12 * b11
            g22 += t02 * b02 + t12 * b12
            k00 = b00 * m00 + b01 * m01 + b02 * m02
            k01 = b00 * m10 + b01 * m11 + b02 * m12
            k02 = b00 * m20 + b01 * m21 + b02 * m22
            k10 = b10 * m00 + b11 * m01 + b12 * m02
            k11 = b10 * m10 + b11 * m11 + b12 * m12
            k12 = b10 * m20 + b11 * m21 + b12 * m22

            # T = J W: dJ = dT Wᵀ
            g_j00 = k00 * w[0, 0] + k01 * w[0, 1] + k02 * w[0, 2]
            g_j02 = k00 * w[2, 0] + k01 * w[2, 1] + k02 * w[2, 2]
            g_j11 = k10 * w[1, 0] + k11 * w[1, 1] + k12 * w[1, 2]
            g_j12 = k10 * w[2, 0] + k11 * w[2, 1] + k12 * w[2, 2]

            # point in camera space; the slope tx = x / z passes gradient only where it was not clamped
            gu, gv = g_means2d[c, n, 0], g_means2d[c, n, 1]
            cam_x = fx * rz * gu
            cam_y = fy * rz * gv
            cam_z = g_depths[c, n] - rz * rz * (fx * x * gu + fy * y * gv)
            cam_z -= rz * rz * (fx * g_j00 + fy * g_j11 - fx * tx * g_j02 - fy * ty * g_j12)
            if x * rz > low_x and x * rz < high_x:
                cam_x -= fx * rz * rz * g_j02
                cam_z += fx * tx * rz * rz * g_j02
            if y * rz > low_y and y * rz < high_y:
                cam_y -= fy * rz * rz * g_j12
                cam_z += fy * ty * rz * rz * g_j12
            gx += w[0, 0] * cam_x + w[1, 0] * cam_y + w[2, 0] * cam_z
            gy += w[0, 1] * cam_x + w[1, 1] * cam_y + w[2, 1] * cam_z
            gz += w[0, 2] * cam_x + w[1, 2] * cam_y + w[2, 2] * cam_z

        g_means[n, 0] = gx
        g_means[n, 1] = gy
        g_means[n, 2] = gz
        # M = R S
        g_scales[n, 0] = r00 * g00 + r10 * g10 + r20 * g20
        g_scales[n, 1] = r01 * g01 + r11 * g11 + r21 * g21
        g_scales[n, 2] = r02 * g02 + r12 * g12 + r22 * g22
        g00, g10, g20 = g00 * s0, g10 * s0, g20 * s0
        g01, g11, g21 = g01 * s1, g11 * s1, g21 * s1
        g02, g12, g22 = g02 * s2, g12 * s2, g22 * s2
        # R of the unit quaternion, then the normalisation, which removes the part along it
        gw = _2 * (qx * (g21 - g12) + qy * (g02 - g20) + qz * (g10 - g01))
        gi = _2 * (-_2 * qx * (g11 + g22) + qy * (g01 + g10) + qz * (g02 + g20) + qw * (g21 - g12))
        gj = _2 * (qx * (g01 + g10) - _2 * qy * (g00 + g22) + qz * (g12 + g21) + qw * (g02 - g20))
        gk = _2 * (qx * (g02 + g20) + qy * (g12 + g21) - _2 * qz * (g00 + g11) + qw * (g10 - g01))
        along = qw * gw + qx * gi + qy * gj + qz * gk
        g_quats[n, 0] = (gw - along * qw) * norm
        g_quats[n, 1] = (gi - along * qx) * norm
        g_quats[n, 2] = (gj - along * qy) * norm
        g_quats[n, 3] = (gk - along * qz) * norm


@numba.njit(inline="always")
def _tile_range(position, radius, size, tiles):  # pragma: no cover
    """First and one past the last tile that position ± radius touches along one axis."""
    low = max(_0, min((position - radius) / size, np.float32(tiles)))
    high = max(_0, min((position + radius) / size + _1, np.float32(tiles)))
    return np.int64(low), np.int64(high)


@kernel
def count_intersections(start, stop, means2d, radii, tiles_x, tiles_y, counts):
    """Jobs are cameras. counts (C, tiles) int64, zeroed before: how many Gaussians reach each tile."""
    for c in range(start, stop):
        for n in range(means2d.shape[1]):
            rx, ry = radii[c, n, 0], radii[c, n, 1]
            if rx <= 0 or ry <= 0:
                continue
            x0, x1 = _tile_range(means2d[c, n, 0], np.float32(rx), np.float32(TILE_WIDTH), tiles_x)
            y0, y1 = _tile_range(means2d[c, n, 1], np.float32(ry), np.float32(TILE_HEIGHT), tiles_y)
            for ty in range(y0, y1):
                for tx in range(x0, x1):
                    counts[c, ty * tiles_x + tx] += 1


@kernel
def list_intersections(start, stop, order, means2d, radii, tiles_x, tiles_y, cursor, lists):
    """Jobs are cameras. order (C, N): Gaussians nearest first. cursor (C, tiles): where each tile's list
    begins in lists (I,) int32, moved to its end; the lists keep the order."""
    for c in range(start, stop):
        for k in range(order.shape[1]):
            n = order[c, k]
            rx, ry = radii[c, n, 0], radii[c, n, 1]
            if rx <= 0 or ry <= 0:
                continue
            x0, x1 = _tile_range(means2d[c, n, 0], np.float32(rx), np.float32(TILE_WIDTH), tiles_x)
            y0, y1 = _tile_range(means2d[c, n, 1], np.float32(ry), np.float32(TILE_HEIGHT), tiles_y)
            for ty in range(y0, y1):
                for tx in range(x0, x1):
                    tile = ty * tiles_x + tx
                    lists[cursor[c, tile]] = n
                    cursor[c, tile] += 1


@numba.njit(inline="always")
def _pixel_range(y, radius, top, rows):  # pragma: no cover
    """First pixel, in the tile, of the rows that y ± radius touches, and how many pixels they have."""
    low = np.int64(max(_0, min(y - radius - top, np.float32(rows))))
    high = np.int64(max(_0, min(y + radius - top + _1, np.float32(rows))))
    return np.uint64(low * TILE_WIDTH), (high - low) * TILE_WIDTH


# The planes of a tile's buffer. It is one array, because with one base address the compiler knows that the
# planes do not overlap; with nine arrays it would give up vectorising.
_X, _Y, _T, _LIVE, _RED, _GREEN, _BLUE, _DEPTH, _LAST = (np.uint64(i * TILE_PIXELS) for i in range(9))
_BEHIND = _LIVE  # the backward pass has no need of one and the forward pass none of the other
PLANES = 9


@kernel
def rasterize_forward(start, stop, splats, radii, offsets, lists, tiles_x, image, transmittance, last):
    """Jobs are tiles, camera after camera.

    splats (C, N, SPLAT); offsets (C · tiles + 1,) into lists (I,). Fills image (C, H, W, 4) (colour on black
    and depth), transmittance (C, H, W), and last (C, H, W) int32: the place in the tile's list of the last
    Gaussian that contributed, -1 for none.
    """
    height, width = transmittance.shape[1], transmittance.shape[2]
    tiles = tiles_x * ((height + TILE_HEIGHT - 1) // TILE_HEIGHT)
    t = np.empty(PLANES * TILE_PIXELS, np.float32)
    for job in range(start, stop):
        c, tile = job // tiles, job % tiles
        left, top = (tile % tiles_x) * TILE_WIDTH, (tile // tiles_x) * TILE_HEIGHT
        rows = min(TILE_HEIGHT, height - top)
        columns = min(TILE_WIDTH, width - left)
        for p in range(TILE_PIXELS):
            row, column = p // TILE_WIDTH, p % TILE_WIDTH
            t[_X + p] = np.float32(left + column) + _HALF
            t[_Y + p] = np.float32(top + row) + _HALF
            t[_T + p] = _1
            t[_LIVE + p] = _1 if row < rows and column < columns else _0
            t[_RED + p] = _0
            t[_GREEN + p] = _0
            t[_BLUE + p] = _0
            t[_DEPTH + p] = _0
            t[_LAST + p] = -_1
        begin, end = offsets[job], offsets[job + 1]
        for k in range(begin, end):
            if (k - begin) % 32 == 31:
                live = _0
                for p in range(TILE_PIXELS):
                    live += t[_LIVE + p]
                if live == _0:
                    break
            place = np.float32(k - begin)
            n = lists[k]
            x, y = splats[c, n, 0], splats[c, n, 1]
            qa, qb, qc = _HALF * splats[c, n, 2], splats[c, n, 3], _HALF * splats[c, n, 4]
            opacity = splats[c, n, 5]
            red, green, blue, depth = splats[c, n, 6], splats[c, n, 7], splats[c, n, 8], splats[c, n, 9]
            first, pixels = _pixel_range(y, np.float32(radii[c, n, 1]), np.float32(top), rows)
            for i in range(pixels):
                p = first + np.uint64(i)
                dx = x - t[_X + p]
                dy = y - t[_Y + p]
                s = qa * dx * dx + qc * dy * dy + qb * dx * dy
                alpha = opacity * exp_minus(s)
                alpha = alpha if alpha < _MAX_ALPHA else _MAX_ALPHA
                live = t[_LIVE + p]
                before = t[_T + p]
                old_last = t[_LAST + p]
                shown = (alpha >= _MIN_ALPHA) & (s >= _0) & (live > _0)
                after = before * (_1 - alpha)
                unfinished = after > _MIN_TRANSMITTANCE
                counts = shown & unfinished
                weight = alpha * before if counts else _0
                t[_RED + p] += weight * red
                t[_GREEN + p] += weight * green
                t[_BLUE + p] += weight * blue
                t[_DEPTH + p] += weight * depth
                t[_T + p] = after if counts else before
                t[_LIVE + p] = _0 if shown & (not unfinished) else live
                t[_LAST + p] = place if counts else old_last
        for row in range(rows):
            for column in range(columns):
                p = row * TILE_WIDTH + column
                image[c, top + row, left + column, 0] = t[_RED + p]
                image[c, top + row, left + column, 1] = t[_GREEN + p]
                image[c, top + row, left + column, 2] = t[_BLUE + p]
                image[c, top + row, left + column, 3] = t[_DEPTH + p]
                transmittance[c, top + row, left + column] = t[_T + p]
                last[c, top + row, left + column] = np.int32(t[_LAST + p])


@kernel
def rasterize_backward(
    start, stop, splats, radii, offsets, lists, tiles_x, transmittance, last,
    g_image, g_transmittance, g_splats,
):  # fmt: skip
    """Jobs are tiles, camera after camera. Fills g_splats (I, SPLAT), one row per intersection.

    Walks each list from the back. With T the transmittance in front of a Gaussian and v · c its colour and
    depth times their gradients, d loss / d alpha = T v·c − (behind + T_final g_T) / (1 − alpha), where
    `behind` sums weight · v·c over all that lies behind it.
    """
    height, width = transmittance.shape[1], transmittance.shape[2]
    tiles = tiles_x * ((height + TILE_HEIGHT - 1) // TILE_HEIGHT)
    t = np.empty(PLANES * TILE_PIXELS, np.float32)
    for job in range(start, stop):
        c, tile = job // tiles, job % tiles
        left, top = (tile % tiles_x) * TILE_WIDTH, (tile // tiles_x) * TILE_HEIGHT
        rows = min(TILE_HEIGHT, height - top)
        columns = min(TILE_WIDTH, width - left)
        furthest = np.int32(-1)
        for p in range(TILE_PIXELS):
            row, column = p // TILE_WIDTH, p % TILE_WIDTH
            t[_X + p] = np.float32(left + column) + _HALF
            t[_Y + p] = np.float32(top + row) + _HALF
            t[_T + p] = _1
            t[_BEHIND + p] = _0
            t[_RED + p] = _0
            t[_GREEN + p] = _0
            t[_BLUE + p] = _0
            t[_DEPTH + p] = _0
            t[_LAST + p] = -_1
            if row < rows and column < columns:
                final = transmittance[c, top + row, left + column]
                t[_T + p] = final
                t[_BEHIND + p] = final * g_transmittance[c, top + row, left + column]
                t[_RED + p] = g_image[c, top + row, left + column, 0]
                t[_GREEN + p] = g_image[c, top + row, left + column, 1]
                t[_BLUE + p] = g_image[c, top + row, left + column, 2]
                t[_DEPTH + p] = g_image[c, top + row, left + column, 3]
                place_of_last = last[c, top + row, left + column]
                t[_LAST + p] = np.float32(place_of_last)
                furthest = max(furthest, place_of_last)
        begin, end = offsets[job], offsets[job + 1]
        for k in range(begin + furthest + 1, end):
            for i in range(SPLAT):
                g_splats[k, i] = _0
        for back in range(furthest + 1):
            k = begin + furthest - back
            place = np.float32(furthest - back)
            n = lists[k]
            x, y = splats[c, n, 0], splats[c, n, 1]
            qa, qb, qc = splats[c, n, 2], splats[c, n, 3], splats[c, n, 4]
            ha, hc = _HALF * qa, _HALF * qc
            opacity = splats[c, n, 5]
            red, green, blue, depth = splats[c, n, 6], splats[c, n, 7], splats[c, n, 8], splats[c, n, 9]
            first, pixels = _pixel_range(y, np.float32(radii[c, n, 1]), np.float32(top), rows)
            g_r, g_g, g_b, g_d = _0, _0, _0, _0
            g_s, g_x, g_y, g_xx, g_xy, g_yy = _0, _0, _0, _0, _0, _0
            for i in range(pixels):
                p = first + np.uint64(i)
                dx = x - t[_X + p]
                dy = y - t[_Y + p]
                s = ha * dx * dx + hc * dy * dy + qb * dx * dy
                raw = opacity * exp_minus(s)
                clipped = raw if raw < _MAX_ALPHA else _MAX_ALPHA
                counts = (clipped >= _MIN_ALPHA) & (s >= _0) & (place <= t[_LAST + p])
                alpha = clipped if counts else _0
                inverse = _1 / (_1 - alpha)
                before = t[_T + p] * inverse
                t[_T + p] = before
                weight = alpha * before
                v_r, v_g, v_b, v_d = t[_RED + p], t[_GREEN + p], t[_BLUE + p], t[_DEPTH + p]
                g_r += weight * v_r
                g_g += weight * v_g
                g_b += weight * v_b
                g_d += weight * v_d
                vc = v_r * red + v_g * green + v_b * blue + v_d * depth
                behind = t[_BEHIND + p]
                t[_BEHIND + p] = behind + weight * vc
                g_alpha = before * vc - behind * inverse
                # d alpha / d s = −alpha, and 0 where alpha was clipped
                m = -alpha * g_alpha if raw < _MAX_ALPHA else _0
                mx = m * dx
                my = m * dy
                g_s += m
                g_x += mx
                g_y += my
                g_xx += mx * dx
                g_xy += mx * dy
                g_yy += my * dy
            g_splats[k, 0] = qa * g_x + qb * g_y
            g_splats[k, 1] = qb * g_x + qc * g_y
            g_splats[k, 2] = _HALF * g_xx
            g_splats[k, 3] = g_xy
            g_splats[k, 4] = _HALF * g_yy
            g_splats[k, 5] = -g_s / opacity
            g_splats[k, 6] = g_r
            g_splats[k, 7] = g_g
            g_splats[k, 8] = g_b
            g_splats[k, 9] = g_d


@kernel
def sum_intersections(start, stop, offsets, lists, tiles, g_lists, g_splats):
    """Jobs are cameras. g_splats (C, N, SPLAT), zeroed before: g_lists (I, SPLAT) summed by Gaussian."""
    for c in range(start, stop):
        for k in range(offsets[c * tiles], offsets[(c + 1) * tiles]):
            n = lists[k]
            for i in range(SPLAT):
                g_splats[c, n, i] += g_lists[k, i]
