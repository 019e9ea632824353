"""Compiled kernels on the CPU: how they are compiled, and how their jobs are shared among threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import numba.core.config
import torch
from numba.core.caching import NullCache

# Sums may be reordered (into vector lanes) and products fused; nothing is assumed about NaN and infinity.
_MATH = {"reassoc", "contract", "nsz", "arcp"}


def kernel(function: Callable[..., Any], fastmath: set[str] | bool = _MATH) -> Callable[..., Any]:
    """Compile for the machine, and keep the machine code on disk where a folder for it can be written.

    numba refuses to decorate when it finds no folder, and raises OSError when writing fails later (a full
    disk, a folder that became read-only); both only cost the time to compile again in the next process.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
    try:
        compiled: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)

    def call(*arguments: Any) -> None:
        try:
            compiled(*arguments)
        except OSError:  # kernels do no input or output of their own: it was the cache
            compiled._cache = NullCache()
            compiled(*arguments)

    call.__name__ = function.__name__
    call.__doc__ = function.__doc__
    return call


_pool: ThreadPoolExecutor | None = None
_pool_owner = (0, 0)  # process id and number of workers that _pool was made for
_pool_lock = threading.Lock()


def threads() -> int:
    """How many threads the kernels use: as many as torch, but at most NUMBA_NUM_THREADS."""
    limit: int = numba.core.config.NUMBA_NUM_THREADS  # pyright: ignore[reportAttributeAccessIssue]
    return max(1, min(torch.get_num_threads(), limit))


def run_jobs(kernel: Callable[..., Any], jobs: int, *arguments: Any) -> None:
    """Call kernel(start, stop, *arguments) for ranges that cover all jobs, several at a time.

    A few ranges per thread even out jobs of different length. The split has no influence on results.
    """
    global _pool, _pool_owner
    workers = threads()
    if min(workers, jobs) <= 1:
        if jobs:
            kernel(0, jobs, *arguments)
        return
    with _pool_lock:  # a forked child inherits a pool without its threads
        if _pool is None or _pool_owner != (os.getpid(), workers):
            _pool = ThreadPoolExecutor(workers, thread_name_prefix="kernels")
            _pool_owner = (os.getpid(), workers)
        parts = min(jobs, 4 * workers)
        bounds = [jobs * part // parts for part in range(parts + 1)]
        futures = [_pool.submit(kernel, a, b, *arguments) for a, b in pairwise(bounds)]
    for future in futures:
        future.result()
