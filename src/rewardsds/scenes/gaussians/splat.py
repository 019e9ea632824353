"""3D Gaussians as .splat: 32 bytes a Gaussian, which small web viewers read as it is.

The layout is that of antimatter15's viewer: position and scale (3 float32 each), colour and opacity (4 uint8), and the
unit quaternion wxyz (4 uint8, 128 + 128 · component). There is no header, and no colour that depends on the view.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from rewardsds.scenes.files import atomic_path
from rewardsds.scenes.gaussians.limits import check_gaussians

RECORD = np.dtype([("position", "<f4", 3), ("scale", "<f4", 3), ("colour", "u1", 4), ("quaternion", "u1", 4)])


def write_splat(
    path: str | os.PathLike[str],
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colours: Tensor,
) -> None:
    """Arguments as of `write_ply`. The Gaussians that matter most come first, as viewers show a file while it loads.

    Raises ValueError for no or too many Gaussians, and for values that are not finite.
    """
    check_gaussians("the scene", means, quats, scales, opacities, colours)
    order = torch.argsort(scales.prod(-1) * opacities, descending=True, stable=True)

    def values(tensor: Tensor) -> np.ndarray:
        return tensor.detach()[order].double().cpu().numpy()

    def as_bytes(numbers: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(numbers), 0, 255).astype(np.uint8)

    records = np.zeros(len(means), dtype=RECORD)
    records["position"], records["scale"] = values(means), values(scales)
    records["colour"][:, :3] = as_bytes(255 * values(colours))
    records["colour"][:, 3] = as_bytes(255 * values(opacities))
    records["quaternion"] = as_bytes(128 + 128 * values(torch.nn.functional.normalize(quats, dim=-1)))
    with atomic_path(path) as temporary:
        temporary.write_bytes(records.tobytes())
