"""A device that is not there. Its tensors lie in the CPU's memory and are computed with by its kernels; like those of a
GPU they say that they are elsewhere, and refuse to be mixed with tensors of the CPU, or to be handed to numpy.

What runs here with `DEVICE` runs on a GPU as far as devices go: what is made without a device where it needs one, what
is not moved, and what is read without `.cpu()`, raises. Kernels of CUDA, and their memory, are not tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

DEVICE = "simulated"

aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default, aten.set_.source_Tensor)
# A tensor of a GPU takes indices of the CPU, not the other way round.
INDEXED = (
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
)
RESIZED = ("arange", "arange.start", "arange.start_step", "eye", "eye.m")


class SimulatedTensor(Tensor):
    """A tensor of the simulated device. local: what it holds, a tensor of the CPU."""

    local: Tensor

    @staticmethod
    def __new__(cls, local: Tensor) -> SimulatedTensor:
        tensor = Tensor._make_wrapper_subclass(
            cls,
            local.shape,
            strides=local.stride(),
            storage_offset=local.storage_offset(),
            dtype=local.dtype,
            device=torch.device(DEVICE, 0),
            requires_grad=False,
        )
        tensor.local = local
        return tensor

    def __repr__(self, *, tensor_contents: str | None = None) -> str:
        return f"{self.local!r} on {DEVICE}"

    def tolist(self) -> Any:
        return self.local.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """An operation with tensors of the device, or one that makes them, by the CPU's kernels."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [one for one in given if isinstance(one, SimulatedTensor)]
    # as on a GPU, a single number of the CPU may be mixed with anything
    here = [one for one in given if not isinstance(one, SimulatedTensor) and one.ndim > 0]
    indexed_there = func in INDEXED and isinstance(args[0], SimulatedTensor)
    if there and here and func not in COPIES and not indexed_there:
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {func} was given {[tuple(x.shape) for x in there]} on "
            f"{DEVICE} and {[tuple(x.shape) for x in here]} on the CPU"
        )
    ends_there = bool(there)
    if kwargs.get("device") is not None:
        ends_there = torch.device(kwargs["device"]).type == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    drawn_by = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Generator)]
    if ends_there and drawn_by:
        raise RuntimeError(f"Expected a {DEVICE!r} device type for generator but found {drawn_by[0].device}")
    if func is aten.copy_.default:
        ends_there = isinstance(args[0], SimulatedTensor)
    if kwargs.get("pin_memory"):
        kwargs = {**kwargs, "pin_memory": False}
    local_args, local_kwargs = tree_map(_local, (list(args), dict(kwargs)))
    out = func(*local_args, **local_kwargs)
    known = {id(one.local): one for one in there}
    assert all(one.shape == one.local.shape for one in there), f"{func} resizes: add it to RESIZED"
    if not ends_there:
        return tree_map(lambda x: x.clone() if isinstance(x, Tensor) and id(x) in known else x, out)
    out = tree_map(
        lambda x: (known[id(x)] if id(x) in known else SimulatedTensor(x)) if isinstance(x, Tensor) else x,
        out,
    )
    return return_and_correct_aliasing(func, tuple(args), dict(kwargs), out) if there else out


def _local(leaf: Any) -> Any:
    return leaf.local if isinstance(leaf, SimulatedTensor) else leaf


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


_libraries: list[torch.library.Library] = []


def is_registered() -> bool:
    return bool(_libraries)


def register() -> None:
    """Makes torch know the device, in this process from now on; before the first gradient is computed in it."""
    _setup_privateuseone_for_python_backend(DEVICE, backend_module=_Backend())
    everything, made_whole = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    _libraries.extend((everything, made_whole))
    everything.fallback(lambda func, *args, **kwargs: compute(func, args, kwargs), "PrivateUse1")
    # torch makes these by resizing an empty tensor, which a wrapper does not follow
    for name in RESIZED:
        overload = getattr(getattr(aten, name.split(".")[0]), name.partition(".")[2] or "default")
        by_cpu = partial(lambda func, *args, **kwargs: compute(func, args, kwargs), overload)
        made_whole.impl(name, by_cpu, "PrivateUse1")
    # torch.tensor(…, device=…) is then a copy from the CPU, which is known here
    torch._C._set_only_lift_cpu_tensors(True)
