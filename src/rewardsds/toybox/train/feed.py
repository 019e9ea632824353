"""What the steps of a stage are fed: batches, drawn ahead of them by processes where that pays, and the rows of arrays.

The Python that makes a batch (scenes, captions, tokens, truths) costs many times what a GPU needs for the step. It
draws from the step's numpy generator alone, so that a batch is the same whichever process makes it.
"""

from __future__ import annotations

import copyreg
import mmap
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Generator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

PRELOADED = ["rewardsds.toybox.train.image_reward", "rewardsds.toybox.train.prior"]
"""Imported once, by the server that workers are forked from; between them they import all that a stage draws with."""
AHEAD = 2
"""Batches that a worker may be ahead. They wait in shared memory, of which a container may have as little as 64 MB."""


def batches(
    draw: Callable[[int], Any], steps: range, file: Path, workers: int = 0, pinned: bool = False
) -> Generator[Any]:
    """draw(step) of each step in order.

    draw: must pickle where there are workers, and hold no tensors. file: where they read it, while they work.
    workers: processes that draw; 0: this one does. pinned: what workers draw lies in page-locked memory, from which a
    GPU copies without being waited for.
    """
    if workers == 0:
        yield from map(draw, steps)
        return
    # Not forked from this process, which may have a CUDA context; nor spawned, which imports torch in every one.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with file.open("wb") as written:
        FeedPickler(written).dump(draw)
    try:
        yield from DataLoader(
            _Drawn(file),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            prefetch_factor=AHEAD,
            pin_memory=pinned,
            multiprocessing_context=context,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # its own: the global one stays as it was
        )
    finally:
        file.unlink(missing_ok=True)


class _Drawn(Dataset[Any]):
    """Batches by step. Workers unpickle what draws them from a file, all at once; through their pipes they would wait
    for each other.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _draw(self) -> Callable[[int], Any]:
        with self._path.open("rb") as file:
            return pickle.load(file)

    def __getitem__(self, step: int) -> Any:
        return self._draw(step)


def _start_worker(worker: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """The server of forks lives as long as its workers do: without this they all outlive a killed training."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _by_file(array: np.memmap) -> Any:
    if not isinstance(array.base, mmap.mmap) or array.filename is None:  # a part of one
        return np.asarray(array).__reduce__()
    order = "C" if array.flags.c_contiguous else "F"
    return np.memmap, (array.filename, array.dtype, "r", array.offset, array.shape, order)


class FeedPickler(pickle.Pickler):
    """Writes a memory-mapped array as the name of its file: workers share its pages."""

    dispatch_table: ClassVar[Any] = {**copyreg.dispatch_table, np.memmap: _by_file}


class Rows:
    """An array indexed by tensors of a device, entries as tensors there: rows[scenes, views].

    On a GPU the whole array lies in its memory; on the CPU it stays where it is, memory-mapped or not.
    """

    def __init__(self, array: np.ndarray, device: str | torch.device) -> None:
        self._array = array
        self._there = (
            None if torch.device(device).type == "cpu" else torch.from_numpy(np.array(array)).to(device)
        )

    def __getitem__(self, index: tuple[Tensor, ...]) -> Tensor:
        if self._there is not None:
            return self._there[index]
        return torch.from_numpy(self._array[tuple(part.numpy() for part in index)])


def to_device(batch: Any, device: torch.device) -> Any:
    """The tensors of a (named) tuple, moved."""
    moved = [part.to(device, non_blocking=True) for part in batch]
    return type(batch)._make(moved) if hasattr(batch, "_make") else tuple(moved)
