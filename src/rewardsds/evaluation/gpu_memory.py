"""The memory of GPUs between the runs that one process makes."""

from __future__ import annotations

import gc

import torch


def release_memory() -> None:
    """Gives back what nothing uses any more, so that other processes can have it; reference cycles are broken first."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def forget_peaks() -> None:
    """Peaks of memory that are asked for from now on are of what comes."""
    if torch.cuda.is_initialized():
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)
