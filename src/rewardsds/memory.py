"""How much memory a computation needs, found by running it once small."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still take on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available
