"""3D Gaussians as PLY, in the layout that 3DGS wrote first and its viewers read (arXiv 2308.04079)."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rewardsds.scenes.files import atomic_path
from rewardsds.scenes.gaussians.harmonics import degree_of
from rewardsds.scenes.gaussians.limits import check_count, check_gaussians

SH_C0 = 0.28209479177387814  # spherical harmonic of degree 0: colour = 0.5 + SH_C0 · f_dc
REST = 45  # coefficients of degrees 1 to 3; several viewers refuse a file without them, so zeros are written
BLUR_COMMENT = "comment rewardsds blur variance"

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
    harmonics: Tensor | None = None,
    blur: float = 0.0,
) -> None:
    """means (N, 3), quats (N, 4) wxyz, scales (N, 3), opacities (N,) in [0, 1], colours (N, 3) in [0, 1].

    harmonics (N, K, 3): view-dependent colour of degree 1 and above, as `harmonics.basis` orders it, K up to 15.
    blur: variance that the scales hold beside what was optimised; noted in a comment, from which `read_ply` tells it.
    Quaternions are normalised; opacities are stored as logits, scales as logarithms, binary little endian.
    Raises ValueError for no or too many Gaussians, and for values that are not finite.
    """
    rest = means.new_zeros((len(means), REST // 3, 3))
    if harmonics is not None:
        degree_of(harmonics.shape[1])
        rest[:, : harmonics.shape[1]] = harmonics.detach()
    check_gaussians("the scene", means, quats, scales, opacities, colours, rest)
    count = len(means)
    vertices = np.zeros(count, dtype=[(name, "<f4") for name in PROPERTIES])

    def put(names: list[str], values: Tensor) -> None:
        for name, column in zip(names, values.detach().cpu().double().reshape(count, len(names)).unbind(-1)):
            vertices[name] = column.numpy()

    put(["x", "y", "z"], means)
    put([f"f_dc_{i}" for i in range(3)], (colours.double() - 0.5) / SH_C0)
    put([f"f_rest_{i}" for i in range(REST)], rest.transpose(1, 2))  # all of red, then of green, then of blue
    put(["opacity"], opacities.double().clamp(1e-6, 1 - 1e-6).logit())
    put([f"scale_{i}" for i in range(3)], scales.double().clamp(min=1e-12).log())
    put([f"rot_{i}" for i in range(4)], torch.nn.functional.normalize(quats.double(), dim=-1))

    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"{BLUR_COMMENT} {blur:.9g}"] if blur else []
    header += [f"element vertex {count}"]
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

    Colours are clamped to [0, 1]; harmonics has as many functions as the file, none if it has no f_rest_*.
    Raises ValueError when the file is no such PLY or is cut short, and where its Gaussians are none, too many or NaN.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise ValueError(f"no PLY file {path}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    marker = b"end_header\n"
    end = data.find(marker)
    if not data.startswith(b"ply") or end < 0:
        raise ValueError(f"{path} is not a PLY file")
    lines = data[:end].decode("ascii", errors="replace").split("\n")
    if "format binary_little_endian 1.0" not in (line.strip() for line in lines):
        raise ValueError(f"{path} is not a binary little-endian PLY file, which is the only kind read here")
    elements = [line.split() for line in lines if line.startswith("element ")]
    if len(elements) != 1 or elements[0][1:2] != ["vertex"]:
        raise ValueError(f"{path} does not hold exactly one element, 'vertex', as 3D Gaussians do")
    try:
        count = int(elements[0][2])
    except (IndexError, ValueError):
        raise ValueError(f"{path} does not say how many Gaussians it holds") from None
    check_count(f"the file {path}", count)
    properties = [line.split() for line in lines if line.startswith("property ")]
    unreadable = [p for p in properties if len(p) != 3 or p[1] not in _TYPES]
    if unreadable:
        raise ValueError(f"{path} has a property that 3D Gaussians do not have: {' '.join(unreadable[0])}")
    names = [name for _, _, name in properties]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{path} has the property {twice} twice, as 3D Gaussians do not")
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

    rest = sum(name.startswith("f_rest_") for name in dtype.names or ())
    try:
        degree_of(rest // 3 if rest % 3 == 0 else -1)
    except ValueError:
        raise ValueError(
            f"{path} has {rest} properties f_rest_*: expected 0, 9, 24 or 45, for spherical harmonics "
            "of degree 0 to 3"
        ) from None
    harmonics = take(*(f"f_rest_{i}" for i in range(rest))) if rest else torch.zeros(count, 0)
    gaussians = {
        "means": take("x", "y", "z").float(),
        "quats": take("rot_0", "rot_1", "rot_2", "rot_3").float(),
        "scales": take("scale_0", "scale_1", "scale_2").exp().float(),
        "opacities": take("opacity").squeeze(-1).sigmoid().float(),
        "colours": (0.5 + SH_C0 * take("f_dc_0", "f_dc_1", "f_dc_2")).clamp(0, 1).float(),
        "harmonics": harmonics.reshape(count, 3, -1).transpose(1, 2).contiguous().float(),
    }
    check_gaussians(f"the file {path}", *gaussians.values())
    return gaussians


def read_blur(path: str | os.PathLike[str]) -> float:
    """The variance that `write_ply` noted in a file's head, 0 where there is no such note."""
    with open(path, "rb") as file:
        for _ in range(200):
            line = file.readline(500).decode("ascii", errors="replace").strip()
            if line.startswith(BLUR_COMMENT):
                try:
                    blur = float(line.removeprefix(BLUR_COMMENT))
                except ValueError:
                    return 0.0
                return blur if 0 < blur < math.inf else 0.0
            if line in ("", "end_header"):
                break
    return 0.0
