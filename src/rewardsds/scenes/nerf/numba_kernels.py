"""CPU kernels of the hash grid and of ray marching: what `encode_plain` and `sample_rays_plain` compute.

Jobs of a forward kernel are points or rays, those of the hash grid's backward kernel are levels: no two jobs write to
the same place and each adds in the order of the points, so results do not depend on the number of threads.
"""

from __future__ import annotations

import numba
import numpy as np

from rewardsds.scenes.parallel import kernel

_1 = np.float32(1.0)
_PRIME_Y, _PRIME_Z = np.int64(2_654_435_761), np.int64(805_459_861)


@numba.njit(inline="always")
def _split(x, cells):  # pragma: no cover
    """The cell of a coordinate in [0, 1], and where in it the coordinate lies."""
    scaled = min(max(x, np.float32(0.0)), _1) * np.float32(cells)
    cell = min(np.int64(scaled), cells - 1)
    return cell, scaled - np.float32(cell)


@numba.njit(inline="always")
def _steps(x, y, z, cells, dense):  # pragma: no cover
    """For each axis what the lower and the upper corner give to the row of a vertex."""
    if dense:
        row, plane = cells + 1, (cells + 1) * (cells + 1)
        return x, x + 1, y * row, (y + 1) * row, z * plane, (z + 1) * plane
    return x, x + 1, y * _PRIME_Y, (y + 1) * _PRIME_Y, z * _PRIME_Z, (z + 1) * _PRIME_Z


@kernel
def encode_forward(start, stop, points, table, resolutions, offsets, dense, encoded):
    """Jobs are points. points (M, 3) in [0, 1], table (rows, F); fills encoded (M, L · F)."""
    levels, features = len(resolutions), table.shape[1]
    for level in range(levels):
        cells, offset, is_dense = resolutions[level], offsets[level], dense[level]
        mask = offsets[level + 1] - offset - 1
        first = level * features
        for m in range(start, stop):
            x, fx = _split(points[m, 0], cells)
            y, fy = _split(points[m, 1], cells)
            z, fz = _split(points[m, 2], cells)
            x0, x1, y0, y1, z0, z1 = _steps(x, y, z, cells, is_dense)
            ex, ey, ez = _1 - fx, _1 - fy, _1 - fz
            if is_dense:
                a, b, c, d = x0 + y0 + z0, x1 + y0 + z0, x0 + y1 + z0, x1 + y1 + z0
                e, f, g, h = x0 + y0 + z1, x1 + y0 + z1, x0 + y1 + z1, x1 + y1 + z1
            else:
                a, b, c, d = x0 ^ y0 ^ z0, x1 ^ y0 ^ z0, x0 ^ y1 ^ z0, x1 ^ y1 ^ z0
                e, f, g, h = x0 ^ y0 ^ z1, x1 ^ y0 ^ z1, x0 ^ y1 ^ z1, x1 ^ y1 ^ z1
                a, b, c, d = a & mask, b & mask, c & mask, d & mask
                e, f, g, h = e & mask, f & mask, g & mask, h & mask
            wa, wb, wc, wd = ex * ey * ez, fx * ey * ez, ex * fy * ez, fx * fy * ez
            we, wf, wg, wh = ex * ey * fz, fx * ey * fz, ex * fy * fz, fx * fy * fz
            for k in range(features):
                encoded[m, first + k] = (
                    wa * table[offset + a, k]
                    + wb * table[offset + b, k]
                    + wc * table[offset + c, k]
                    + wd * table[offset + d, k]
                    + we * table[offset + e, k]
                    + wf * table[offset + f, k]
                    + wg * table[offset + g, k]
                    + wh * table[offset + h, k]
                )


@kernel
def encode_backward(start, stop, points, g_encoded, resolutions, offsets, dense, g_table):
    """Jobs are levels. g_encoded (M, L · F); adds to g_table (rows, F), zeroed before."""
    features = g_table.shape[1]
    for level in range(start, stop):
        cells, offset, is_dense = resolutions[level], offsets[level], dense[level]
        mask = offsets[level + 1] - offset - 1
        first = level * features
        for m in range(len(points)):
            x, fx = _split(points[m, 0], cells)
            y, fy = _split(points[m, 1], cells)
            z, fz = _split(points[m, 2], cells)
            x0, x1, y0, y1, z0, z1 = _steps(x, y, z, cells, is_dense)
            ex, ey, ez = _1 - fx, _1 - fy, _1 - fz
            if is_dense:
                a, b, c, d = x0 + y0 + z0, x1 + y0 + z0, x0 + y1 + z0, x1 + y1 + z0
                e, f, g, h = x0 + y0 + z1, x1 + y0 + z1, x0 + y1 + z1, x1 + y1 + z1
            else:
                a, b, c, d = x0 ^ y0 ^ z0, x1 ^ y0 ^ z0, x0 ^ y1 ^ z0, x1 ^ y1 ^ z0
                e, f, g, h = x0 ^ y0 ^ z1, x1 ^ y0 ^ z1, x0 ^ y1 ^ z1, x1 ^ y1 ^ z1
                a, b, c, d = a & mask, b & mask, c & mask, d & mask
                e, f, g, h = e & mask, f & mask, g & mask, h & mask
            wa, wb, wc, wd = ex * ey * ez, fx * ey * ez, ex * fy * ez, fx * fy * ez
            we, wf, wg, wh = ex * ey * fz, fx * ey * fz, ex * fy * fz, fx * fy * fz
            for k in range(features):
                gradient = g_encoded[m, first + k]
                g_table[offset + a, k] += wa * gradient
                g_table[offset + b, k] += wb * gradient
                g_table[offset + c, k] += wc * gradient
                g_table[offset + d, k] += wd * gradient
                g_table[offset + e, k] += we * gradient
                g_table[offset + f, k] += wf * gradient
                g_table[offset + g, k] += wg * gradient
                g_table[offset + h, k] += wh * gradient


@numba.njit(inline="always")
def _cell(x, half, cells):  # pragma: no cover
    """The cell, of `cells` that fill [−1, 1], of a coordinate; half: ½ · cells."""
    return min(max(np.int64((x + _1) * half), 0), cells - 1)


@kernel
def march_look(start, stop, origins, directions, near, far, shift, step, occupied, chosen, counts):
    """Jobs are rays. occupied (C, C, C). Fills chosen (R, bins), zero before: whether a bin's sample lies in an
    occupied cell; and counts (R,)."""
    cells = len(occupied)
    half = np.float32(0.5) * np.float32(cells)
    for r in range(start, stop):
        found = 0
        for place in range(chosen.shape[1]):
            t = near[r] + (np.float32(place) + shift[r]) * step
            if t >= far[r]:
                break
            x = _cell(origins[r, 0] + t * directions[r, 0], half, cells)
            y = _cell(origins[r, 1] + t * directions[r, 1], half, cells)
            z = _cell(origins[r, 2] + t * directions[r, 2], half, cells)
            chosen[r, place] = occupied[x, y, z]
            found += chosen[r, place]
        counts[r] = found


@kernel
def march_fill(start, stop, origins, directions, near, shift, step, chosen, offsets, ray, distance, points):
    """Jobs are rays. offsets (R,): where a ray's samples begin in ray (M,), distance (M,) and points (M, 3).

    What is chosen is read, not found again: compilers round the same formula in two ways in two places.
    """
    for r in range(start, stop):
        at = offsets[r]
        for place in range(chosen.shape[1]):
            if chosen[r, place]:
                t = near[r] + (np.float32(place) + shift[r]) * step
                ray[at] = r
                distance[at] = t
                for axis in range(3):
                    points[at, axis] = origins[r, axis] + t * directions[r, axis]
                at += 1
