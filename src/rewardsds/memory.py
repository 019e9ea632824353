"""How much memory a computation needs, found by running it once small; and batches in slices that fit."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint


class PeakMemory(TorchDispatchMode):
    """The most bytes that tensors made inside the `with` block held at one time, on any device.

    What was there before does not count, and neither does what libraries take beside tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self._held = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, torch.Tensor):
                storage = result.untyped_storage()
                if storage not in self._known and id(storage) not in given:
                    self._take(storage)
        return results

    def _take(self, storage: torch.UntypedStorage) -> None:
        self._known.add(storage)
        size = storage.nbytes()
        self._held += size
        self.bytes = max(self.bytes, self._held)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self._held -= size


def largest_batch(run: Callable[[int], object], free: int) -> tuple[int, Callable[[int], int]]:
    """How many items fit into `free` bytes, and the bytes that a number of items takes.

    run: does what is asked for with that many items; it is called with 1 and with 2, and what memory they take is
    taken to grow by as much with every further one.
    """
    peaks = []
    for items in (1, 2):
        with PeakMemory() as peak:
            run(items)
        peaks.append(peak.bytes)
    each = max(1, peaks[1] - peaks[0])
    fixed = max(0, peaks[0] - each)
    return max(0, (free - fixed) // each), lambda items: fixed + each * items


class Chunks:
    """Runs a function of a batch in slices, and puts the results together as if it had been run once.

    size: rows in a slice. None: all. "auto": all, and where the GPU's memory does not hold them, as few slices of one
    size as it does hold, which is found once. What comes out does not depend on it beyond the rounding of sums.
    recompute: where there are several slices, each is run again in the backward pass, which then holds what one slice
    needs and not all of them; for functions that draw nothing and that nobody changes until then.
    """

    def __init__(self, size: int | Literal["auto"] | None = None, recompute: bool = False) -> None:
        if size is not None and size != "auto" and size < 1:
            raise ValueError(
                f"a chunk holds at least 1 row, or is 'auto', or None for all at once, got {size}"
            )
        self.size = size
        self.recompute = recompute
        self._fits: int | None = None

    def __call__(self, run: Callable[[slice], Tensor], count: int, unit: int = 1) -> Tensor:
        """run: rows → their results. count: of all rows. unit: so many rows stay together."""
        size: int = self.size if isinstance(self.size, int) else self._fits or count
        trying = self.size == "auto" and self._fits != size
        while True:
            size = max(unit, size // unit * unit)
            slices = [slice(start, min(start + size, count)) for start in range(0, count, size)]
            try:
                if len(slices) == 1:
                    return run(slices[0])
                if trying and self.recompute and torch.is_grad_enabled():
                    run(slices[0])  # holds what the backward pass will
                return torch.cat([run_again(run, rows) if self.recompute else run(rows) for rows in slices])
            except RuntimeError as error:
                # of a lack of room cuDNN also says that it found no engine
                full = is_out_of_memory(error) or "unable to find an engine to execute" in str(error)
                if self.size != "auto" or size <= unit or not full:
                    raise
            # Outside of the handler, whose traceback still holds what was computed.
            torch.cuda.empty_cache()
            trying, size = True, self._smaller(min(size, count), count, unit)
            self._fits = size

    @staticmethod
    def _smaller(size: int, count: int, unit: int) -> int:
        """Rows in a slice of the next larger number of slices in which they are fewer."""
        units = -(-count // unit)
        each = size // unit
        slices = -(-units // each)
        while -(-units // slices) >= each:
            slices += 1
        return -(-units // slices) * unit


def run_again(run: Callable[..., Tensor], *given: Any) -> Tensor:
    """Its result, whose backward pass runs it once more instead of keeping what it computed."""
    return checkpoint(run, *given, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's memory was full: as torch says it, or as CUDA's libraries do where they found no room."""
    texts = "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"
    known = isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    return known or isinstance(error, torch.OutOfMemoryError)


def move(thing: object, device: torch.device | str) -> None:
    """A model, or what holds models and says so by a method `to`, to a device; other things stay as they are."""
    to = getattr(thing, "to", None)
    if callable(to):
        to(device)


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still take on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


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
