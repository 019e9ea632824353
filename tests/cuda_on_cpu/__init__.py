"""gsplat's own kernels on a machine without a GPU: its sources, as installed, compiled for the CPU.

`cuda_on_cpu.h` stands for as much of CUDA as they use. What runs is what gsplat's authors wrote, launch by launch and
thread by thread, under gsplat's own Python; only the order of sums, and what a GPU rounds otherwise, can differ.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch.utils import cpp_extension

HERE = Path(__file__).parent
KERNELS = (
    "ProjectionEWA3DGSFused.cu",
    "IntersectTile.cu",
    "RasterizeToPixels3DGSFwd.cu",
    "RasterizeToPixels3DGSBwd.cu",
    "SphericalHarmonicsCUDA.cu",
    "RelocationCUDA.cu",
)
CALLERS = ("Projection.cpp", "Intersect.cpp", "Rasterization.cpp", "SphericalHarmonics.cpp", "Relocation.cpp")
STANDS_FOR = (  # headers of CUDA, and of torch that want CUDA's
    "ATen/cuda/Atomic.cuh",
    "c10/cuda/CUDACachingAllocator.h",
    "c10/cuda/CUDAGuard.h",
    "c10/cuda/CUDAStream.h",
    "cooperative_groups.h",
    "cooperative_groups/reduce.h",
    "cub/cub.cuh",
)
CHANNELS = 5  # at most: three colours and a depth, padded


def why_not() -> str | None:
    """Why the kernels cannot be compiled here; None where they can."""
    if importlib.util.find_spec("gsplat") is None:
        return "gsplat is not installed: pip install --no-deps gsplat"
    missing = [program for program in ("g++", "ninja") if shutil.which(program, path=_path()) is None]
    return f"{' and '.join(missing)} not found" if missing else None


def load(folder: Path) -> Any:
    """The module of the kernels, as gsplat calls it; compiled under `folder`, once for each version of all sources."""
    root = Path(next(iter(importlib.util.find_spec("gsplat").submodule_search_locations)))  # pyright: ignore
    sources = root / "cuda"
    versions = [importlib.metadata.version("gsplat"), torch.__version__, sys.version]
    texts = [path.read_text() for path in sorted(HERE.iterdir()) if path.is_file()]
    key = sha256("\n".join(versions + texts).encode()).hexdigest()[:16]
    build = folder / f"gsplat_on_cpu_{key}"
    for name in STANDS_FOR:
        _write(build / "include" / name, "#pragma once\n")
    for path in (sources / "include").iterdir():
        _write(build / "include" / path.name, _for_cpu(path.read_text()))
    made = []
    for name in (*KERNELS, *CALLERS):
        made.append(build / Path(name).with_suffix(".cpp").name)
        _write(made[-1], _for_cpu((sources / "csrc" / name).read_text()))
    for path in (sources / "csrc").glob("*.h"):
        _write(build / path.name, _for_cpu(path.read_text()))
    own = build / "bindings.cpp"
    _write(own, (HERE / "bindings.cpp").read_text())
    flags, path = sys.getdlopenflags(), os.environ.get("PATH", "")
    os.environ["PATH"] = _path()
    sys.setdlopenflags(os.RTLD_LAZY)  # gsplat's callers name kernels that are not compiled here
    try:
        return cpp_extension.load(
            name=build.name,
            sources=[str(path) for path in (*made, own)],
            extra_cflags=["-O1", "-w", "-include", str(HERE / "cuda_on_cpu.h")],
            extra_ldflags=["-Wl,-z,lazy"],
            extra_include_paths=[
                str(path) for path in (build / "include", build, sources / "csrc/third_party/glm", HERE)
            ],
            build_directory=str(build),
        )
    finally:
        sys.setdlopenflags(flags)
        os.environ["PATH"] = path


def _path() -> str:
    """Where programs are looked for, the environment's own included: ninja is one of its packages."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _write(path: Path, text: str) -> None:
    """Unless it says so already: what has not changed is not compiled again."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _for_cpu(source: str) -> str:
    """Launches as calls, conversions as a GPU makes them, macros without CUDA, kernels for few channels."""
    source = re.sub(r"\(uint32_t\)(floor|ceil)\(", r"\1_to_uint32(", source)
    source = re.sub(r"x\.is_cuda\(\)", "true", source)
    source = re.sub(r"(#define DEVICE_GUARD\(_ten\)).*\n.*\n", r"\1\n", source)
    cub = "#define CUB_WRAPPER(func, ...)"
    source = re.sub(rf"{re.escape(cub)}(.*\\\n)+.*\n", f"{cub} func(__VA_ARGS__)\n", source)
    source = re.sub(
        r"^__INS__\((\d+)\)$", lambda found: found[0] if int(found[1]) <= CHANNELS else "", source, flags=re.M
    )
    while launch := re.search(r"(\w+(?:<[^<>]*>)?)\s*<<<(.*?)>>>\s*\(", source, flags=re.S):
        depth, end = 1, launch.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(source[end], 0)
            end += 1
        call = f"cuda_on_cpu::launch({launch[2]}, [&] {{ {launch[1]}({source[launch.end() : end]}; }})"
        source = source[: launch.start()] + call + source[end:]
    return source
