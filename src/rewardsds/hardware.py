"""The machine as it says itself, for everything that writes a measured figure down."""

from __future__ import annotations

import os
import platform
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "diffusers", "transformers", "numba")


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Processor, GPU if `device` is one, cores, threads in use, memory, load, and versions of libraries."""
    import psutil
    import torch

    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gigabytes": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average_1min": round(psutil.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in LIBRARIES},
    }
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def available_cores() -> int:
    """Cores that this process may use; fewer than the machine has when an affinity mask is set."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def machine_record(device: str) -> dict[str, Any]:
    """This machine, and the day."""
    return {"date": date.today().isoformat(), **hardware(device)}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
