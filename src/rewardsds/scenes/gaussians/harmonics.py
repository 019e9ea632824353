"""Colour that depends on the direction of view: real spherical harmonics up to degree 3.

Order and signs are those of 3DGS (arXiv 2308.04079) and of its files: degree by degree, from order −l to l, with the
Condon-Shortley sign, so that the three functions of degree 1 are −C₁ y, C₁ z, −C₁ x.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAXIMUM_DEGREE = 3

C0 = math.sqrt(1 / (4 * math.pi))
C1 = math.sqrt(3 / (4 * math.pi))
_C2_1 = math.sqrt(15 / (4 * math.pi))
_C2_0 = math.sqrt(5 / (16 * math.pi))
_C2_2 = math.sqrt(15 / (16 * math.pi))
_C3_3 = math.sqrt(35 / (32 * math.pi))
_C3_2 = math.sqrt(105 / (4 * math.pi))
_C3_1 = math.sqrt(21 / (32 * math.pi))
_C3_0 = math.sqrt(7 / (16 * math.pi))


def count(degree: int) -> int:
    """Basis functions of degrees 1 to `degree`: what a Gaussian has beside its colour of degree 0."""
    return (degree + 1) ** 2 - 1


def degree_of(functions: int) -> int:
    """The degree up to which there are this many functions of degree 1 and above. Raises ValueError if none fits."""
    for degree in range(MAXIMUM_DEGREE + 1):
        if count(degree) == functions:
            return degree
    raise ValueError(f"spherical harmonics come in 0, 3, 8 or 15 functions above degree 0, got {functions}")


def basis(directions: Tensor, degree: int) -> Tensor:
    """Degrees 1 to `degree` at unit vectors (..., 3): (..., count(degree))."""
    if not 0 <= degree <= MAXIMUM_DEGREE:
        raise ValueError(f"the degree of spherical harmonics is 0 to {MAXIMUM_DEGREE}, got {degree}")
    x, y, z = directions.unbind(-1)
    columns: list[Tensor] = []
    if degree >= 1:
        columns += [-C1 * y, C1 * z, -C1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        columns += [
            _C2_1 * x * y,
            -_C2_1 * y * z,
            _C2_0 * (2 * zz - xx - yy),
            -_C2_1 * x * z,
            _C2_2 * (xx - yy),
        ]
        if degree >= 3:
            columns += [
                -_C3_3 * y * (3 * xx - yy),
                _C3_2 * x * y * z,
                -_C3_1 * y * (4 * zz - xx - yy),
                _C3_0 * z * (2 * zz - 3 * xx - 3 * yy),
                -_C3_1 * x * (4 * zz - xx - yy),
                0.5 * _C3_2 * z * (xx - yy),
                -_C3_3 * x * (xx - 3 * yy),
            ]
    return torch.stack(columns, dim=-1) if columns else directions.new_zeros((*directions.shape[:-1], 0))


def directions_of_view(means: Tensor, viewmats: Tensor) -> Tensor:
    """Unit vectors (C, N, 3) from cameras to means (N, 3); viewmats (C, 4, 4) world to camera, rotation and shift."""
    rotation, translation = viewmats[:, :3, :3], viewmats[:, :3, 3:]
    positions = -(rotation.transpose(1, 2) @ translation).squeeze(-1)  # C 3
    return torch.nn.functional.normalize(means - positions[:, None, :], dim=-1)


def view_colours(base: Tensor, coefficients: Tensor, directions: Tensor, degree: int) -> Tensor:
    """Colours (C, N, 3) in [0, 1] of Gaussians seen along directions (C, N, 3).

    base (N, 3): colour of degree 0. coefficients (N, K, 3) of degree 1 and above, K at least count(degree); those
    above `degree` are left out. As in 3DGS colours are cut off at 0, and here also at 1; what is cut off has no
    gradient.
    """
    used = coefficients[:, : count(degree)]  # N K 3
    return (base + torch.einsum("cnk,nkd->cnd", basis(directions, degree), used)).clamp(0, 1)
