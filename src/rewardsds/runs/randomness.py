"""Where a run's random numbers come from, and what else decides whether two runs agree to the bit."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

Stream = Literal["init", "start", "scene", "noise", "sampling"]


def generator(seed: int, stream: Stream) -> torch.Generator:
    """A CPU generator for one item. Streams of a seed are independent: more candidates move no camera."""
    digest = hashlib.sha256(f"{stream}/{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@contextmanager
def deterministic(threads: int, device: str) -> Iterator[None]:
    """Deterministic kernels and a fixed number of threads inside the block; the caller's state afterwards.

    Sums depend on how many threads share them, so the number is part of a run's settings. On CUDA an
    operation that has no deterministic kernel warns instead of stopping the run.
    """
    cuda = device.startswith("cuda")
    threads_before = torch.get_num_threads()
    enabled_before = torch.are_deterministic_algorithms_enabled()
    warn_before = torch.is_deterministic_algorithms_warn_only_enabled()
    # numba before torch: when it starts its own threads, it sets OpenMP's number, which is torch's too
    numba_before = _set_numba_threads(threads)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=cuda)
    memory: Any = torch.utils.deterministic
    fill_before = memory.fill_uninitialized_memory
    memory.fill_uninitialized_memory = False  # it would cost a pass over all that is allocated
    try:
        yield
    finally:
        if numba_before is not None:
            _set_numba_threads(numba_before)
        memory.fill_uninitialized_memory = fill_before
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(enabled_before, warn_only=warn_before)


def _set_numba_threads(threads: int) -> int | None:
    """Sets numba's threads if some scene uses numba; returns the number before."""
    numba = sys.modules.get("numba")
    if numba is None:
        return None
    before = numba.get_num_threads()
    numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))
    return before
