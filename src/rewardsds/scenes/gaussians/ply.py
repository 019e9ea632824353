"""3D Gaussians as PLY, in the layout that 3DGS wrote first and its viewers read (arXiv 2308.04079)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rewardsds.scenes.files import atomic_path

SH_C0 = 0.28209479177387814  # spherical harmonic of degree 0: colour = 0.5 + SH_C0 · f_dc
REST = 45  # coefficients of degrees 1 to 3; several viewers refuse a file without them, so zeros are written

PROPERTIES = (
    "x", "y", "z", "nx", "ny", "nz",
    *(f"f_dc_{i}" for i in range(3)),
    *(f"f_rest_{i}" for i in range(REST)),
    "opacity",
    *(f"scale_{i}" for i in range(3)),
    *(f"rot_{i}" for i in range(4)),
)  # fmt: skip


def write_ply(
    path: str | os.PathLike[str],
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colours: Tensor,
) -> None:
    """means (N, 3), quats (N, 4) wxyz, scales (N, 3), opacities (N,) in [0, 1], colours (N, 3) in [0, 1].

    Quaternions are normalised; opacities are stored as logits, scales as logarithms, binary little endian.
    """
    count = len(means)
    vertices = np.zeros(count, dtype=[(name, "<f4") for name in PROPERTIES])

    def put(names: list[str], values: Tensor) -> None:
        for name, column in zip(names, values.detach().cpu().double().reshape(count, len(names)).unbind(-1)):
            vertices[name] = column.numpy()

    put(["x", "y", "z"], means)
    put([f"f_dc_{i}" for i in range(3)], (colours.double() - 0.5) / SH_C0)
    put(["opacity"], opacities.double().clamp(1e-6, 1 - 1e-6).logit())
    put([f"scale_{i}" for i in range(3)], scales.double().clamp(min=1e-12).log())
    put([f"rot_{i}" for i in range(4)], torch.nn.functional.normalize(quats.double(), dim=-1))

    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    header += [f"property float {name}" for name in PROPERTIES] + ["end_header", ""]
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(vertices.tobytes())


_TYPES = {
    "char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4",
    "float": "<f4", "double": "<f8", "int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2",
    "int32": "<i4", "uint32": "<u4", "float32": "<f4", "float64": "<f8",
}  # fmt: skip


def read_ply(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Reads a binary little-endian 3DGS PLY back to what `write_ply` takes, float32, keys as its arguments.

    View-dependent colour (f_rest_*) is ignored; colours are clamped to [0, 1].
    Raises ValueError when the file is no such PLY or is cut short.
    """
    data = Path(path).read_bytes()
    marker = b"end_header\n"
    end = data.find(marker)
    if not data.startswith(b"ply") or end < 0:
        raise ValueError(f"{path} is not a PLY file")
    lines = data[:end].decode("ascii", errors="replace").split("\n")
    if "format binary_little_endian 1.0" not in (line.strip() for line in lines):
        raise ValueError(f"{path} is not a binary little-endian PLY file, which is the only kind read here")
    elements = [line.split() for line in lines if line.startswith("element ")]
    if len(elements) != 1 or elements[0][1] != "vertex":
        raise ValueError(f"{path} does not hold exactly one element, 'vertex', as 3D Gaussians do")
    count = int(elements[0][2])
    properties = [line.split() for line in lines if line.startswith("property ")]
    unreadable = [p for p in properties if len(p) != 3 or p[1] not in _TYPES]
    if unreadable:
        raise ValueError(f"{path} has a property that 3D Gaussians do not have: {' '.join(unreadable[0])}")
    dtype = np.dtype([(name, _TYPES[kind]) for _, kind, name in properties])
    body = data[end + len(marker) :]
    if len(body) < count * dtype.itemsize:
        needed = count * dtype.itemsize
        raise ValueError(f"{path} is cut short: {count} Gaussians need {needed} bytes, {len(body)} are there")
    vertices = np.frombuffer(body, dtype=dtype, count=count)

    def take(*names: str) -> Tensor:
        missing = [name for name in names if name not in (dtype.names or ())]
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}: it holds no 3D Gaussians")
        columns = [torch.from_numpy(vertices[name].astype(np.float64)) for name in names]
        return torch.stack(columns, dim=-1)

    return {
        "means": take("x", "y", "z").float(),
        "quats": take("rot_0", "rot_1", "rot_2", "rot_3").float(),
        "scales": take("scale_0", "scale_1", "scale_2").exp().float(),
        "opacities": take("opacity").squeeze(-1).sigmoid().float(),
        "colours": (0.5 + SH_C0 * take("f_dc_0", "f_dc_1", "f_dc_2")).clamp(0, 1).float(),
    }
