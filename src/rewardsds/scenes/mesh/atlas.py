"""A place in a texture for every triangle."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_log = logging.getLogger(__name__)


def unwrap(
    vertices: Tensor,
    faces: Tensor,
    size: int,
    padding: int = 4,
    face_limit: int = 200_000,
    seconds: float = 30.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """An atlas by xatlas for a texture of size × size: index (W,) of each new vertex's old one, faces (F, 3) into the
    new vertices, in the same order, and uvs (W, 2) in [0, 1], from the top left.

    Above `face_limit` faces, and where xatlas takes longer than `seconds`, a simple atlas is made instead, in which
    each triangle has its own place; a warning is logged.
    """
    if len(faces) <= face_limit:
        try:
            return _xatlas(vertices, faces, size, padding, seconds)
        except subprocess.TimeoutExpired:
            reason = f"xatlas needed more than {seconds:g} seconds for {len(faces)} faces"
        except (OSError, subprocess.CalledProcessError) as error:
            detail = getattr(error, "stderr", b"") or b""
            reason = f"xatlas failed ({(detail.decode(errors='replace').splitlines() or [error])[-1]})"
    else:
        reason = f"the mesh has {len(faces)} faces, more than {face_limit}"
    _log.warning("%s: its texture gets a simple atlas, each triangle by itself", reason)
    return triangle_atlas(faces, size, padding)


def _xatlas(
    vertices: Tensor, faces: Tensor, size: int, padding: int, seconds: float
) -> tuple[Tensor, Tensor, Tensor]:
    """In a process of its own: xatlas cannot be asked to stop, and holds the interpreter's lock."""
    with tempfile.TemporaryDirectory(prefix="rewardsds-atlas-") as folder:
        given, made = Path(folder) / "mesh.npz", Path(folder) / "atlas.npz"
        np.savez(
            given,
            vertices=vertices.numpy().astype(np.float32),
            faces=faces.numpy().astype(np.uint32),
            size=size,
            padding=padding,
        )
        subprocess.run(
            [sys.executable, "-m", "rewardsds.scenes.mesh.run_xatlas", str(given), str(made)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            check=True,
            capture_output=True,
            timeout=seconds,
        )
        with np.load(made) as atlas:
            index = torch.from_numpy(atlas["index"].astype(np.int64))
            new_faces = torch.from_numpy(atlas["faces"].astype(np.int64))
            uvs = torch.from_numpy(atlas["uvs"].astype(np.float32)).clamp(0, 1)
    return index, new_faces, uvs


def triangle_atlas(faces: Tensor, size: int, padding: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """As `unwrap`: two triangles, the halves of a square, share a cell of a grid.

    Between them, and around, `padding` texels stay free, fewer where cells are too small for that. Raises ValueError
    where a cell would have less than three texels a side.
    """
    columns = math.ceil(math.sqrt((len(faces) + 1) // 2))
    cell = size / columns
    if cell < 3:
        raise ValueError(
            f"{len(faces)} faces find no place in a texture of {size}²: allow fewer faces or a larger texture"
        )
    gap = min(float(padding), (cell - 1) / 5)
    # Legs of the halves; along the diagonal they keep a distance of `gap` too.
    leg = cell - gap * (1 + math.sqrt(0.5)) - gap / 2
    low, high = gap / 2, cell - gap / 2
    lower = torch.tensor([[low, low], [low + leg, low], [low, low + leg]])
    upper = torch.tensor([[high, high], [high - leg, high], [high, high - leg]])
    number = torch.arange(len(faces))
    place = torch.stack([number // 2 % columns, number // 2 // columns], dim=-1)  # F 2
    half = torch.where((number % 2 == 0)[:, None, None], lower, upper)  # F 3 2
    uvs = (place[:, None] * cell + half) / size
    return faces.reshape(-1), torch.arange(3 * len(faces)).reshape(-1, 3), uvs.reshape(-1, 2).float()
