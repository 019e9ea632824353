"""Memory that tensors hold, against sizes by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rewardsds.memory import Chunks, PeakMemory, largest_batch


def test_the_peak_is_what_was_held_at_one_time():
    outside = torch.zeros(10_000)
    with PeakMemory() as peak:
        first = torch.zeros(1000)  # 4000
        second = first + 1  # 8000
        del first  # 4000
        third = second * 2  # 8000
        view = third.view(10, 100)
        same = third.add_(1)
        outside.add_(1)
        del third, view, same  # 4000
        torch.ones(500, dtype=torch.float64)  # 8000, and gone at once
        torch.ones(250)  # 5000
    assert peak.bytes == 8000
    assert second.sum() == 1000


def test_the_backward_pass_counts():
    x = torch.ones(100, 100, requires_grad=True)
    with PeakMemory() as peak:
        (x * x).sum().backward()
    assert peak.bytes >= 80_000  # the product and the gradient
    assert x.grad is not None


def test_as_many_items_as_fit():
    def run(items: int) -> None:
        fixed = torch.zeros(25)  # 100 bytes
        each = [torch.zeros(50) for _ in range(items)]  # 200 bytes each
        assert fixed.sum() + sum(one.sum() for one in each) == 0

    fit, needed = largest_batch(run, 5000)
    # The sums of one item are there too, a few bytes of each.
    assert 20 <= fit <= 24
    assert abs(needed(10) - 2100) <= 100
    assert largest_batch(run, 150)[0] == 0


class Memory:
    """Squares rows, of which it holds so many at a time."""

    def __init__(self, rows: int, error: Exception | None = None) -> None:
        self.rows = rows
        self.error = error or torch.OutOfMemoryError("no room")
        self.calls: list[int] = []

    def __call__(self, taken: slice) -> Tensor:
        rows = torch.arange(20.0)[taken, None]
        self.calls.append(len(rows))
        if len(rows) > self.rows:
            raise self.error
        return rows.square()


@pytest.mark.parametrize("size, calls", [(None, [20]), (20, [20]), (8, [8, 8, 4]), (1, [1] * 20)])
def test_slices_put_together_are_the_whole(size: int | None, calls: list[int]):
    memory = Memory(20)
    assert torch.equal(Chunks(size)(memory, 20), torch.arange(20.0)[:, None].square())
    assert memory.calls == calls


@pytest.mark.parametrize(
    "text, full",
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("GET was unable to find an engine to execute this computation", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_libraries_of_cuda_say_in_words_of_their_own_that_memory_is_full(text: str, full: bool):
    memory = Memory(6, RuntimeError(text))
    if full:
        assert torch.equal(Chunks("auto")(memory, 20), torch.arange(20.0)[:, None].square())
    else:
        with pytest.raises(RuntimeError, match=text):
            Chunks("auto")(memory, 20)


def test_auto_finds_what_fits_once_and_keeps_it():
    memory, chunks = Memory(6), Chunks("auto")
    assert torch.equal(chunks(memory, 20), torch.arange(20.0)[:, None].square())
    assert memory.calls == [20, 10, 7, 5, 5, 5, 5]
    memory.calls.clear()
    assert len(chunks(memory, 20)) == 20
    assert memory.calls == [5, 5, 5, 5]


@given(groups=st.integers(1, 5), unit=st.integers(1, 4), room=st.integers(4, 25))
def test_auto_takes_as_few_slices_as_fit(groups: int, unit: int, room: int):
    count = groups * unit
    memory, chunks = Memory(room), Chunks("auto")
    assert len(chunks(memory, count, unit)) == count
    memory.calls.clear()
    chunks(memory, count, unit)
    assert len(memory.calls) == -(-groups // min(groups, room // unit))
    assert max(memory.calls) <= room
    assert all(rows % unit == 0 for rows in memory.calls)


class Limited(PeakMemory):
    """A memory of so many bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def _take(self, storage: torch.UntypedStorage) -> None:
        super()._take(storage)
        if self._held > self.limit:
            raise torch.OutOfMemoryError("no room")


def test_auto_leaves_room_for_the_backward_pass():
    """Which holds ten wide tensors of every row, where the forward pass, whose slices are run again, holds two."""
    places = torch.linspace(0, 1, 16).requires_grad_()

    def run(rows: slice) -> Tensor:
        x = places[rows, None].expand(-1, 1000)
        for _ in range(8):
            x = x.sin()
        return x.mean(1)

    expected = torch.autograd.grad(run(slice(0, 16)).sum(), places)[0]
    with Limited(62 * 4000):
        found = Chunks("auto", recompute=True)(run, 16)
        gradient = torch.autograd.grad(found.sum(), places)[0]
    torch.testing.assert_close(gradient, expected)


def test_rows_that_belong_together_stay_together():
    memory = Memory(9)
    assert len(Chunks("auto")(memory, 20, unit=4)) == 20
    assert memory.calls == [20, 12, 8, 8, 4]  # a half would be 10, which divides a group
    memory.calls.clear()
    assert len(Chunks(6)(memory, 20, unit=4)) == 20
    assert memory.calls == [4] * 5


@pytest.mark.parametrize("size, runs", [(None, [20]), (8, [8, 8, 4, 4, 8, 8])])
def test_several_slices_are_run_again_for_the_gradient(size: int | None, runs: list[int]):
    memory = Memory(20)
    scale = torch.tensor(3.0, requires_grad=True)
    chunks = Chunks(size, recompute=True)
    chunks(lambda rows: (scale * memory(rows)).square(), 20).sum().backward()
    assert memory.calls == runs
    assert scale.grad == 2 * 3 * sum(number**4 for number in range(20))
    memory.calls.clear()
    with torch.no_grad():
        chunks(lambda rows: scale * memory(rows), 20)
    assert sum(memory.calls) == 20


def test_what_does_not_fit_at_all_is_told():
    with pytest.raises(torch.OutOfMemoryError):
        Chunks("auto")(Memory(0), 20)
    with pytest.raises(torch.OutOfMemoryError):
        Chunks(8)(Memory(6), 20)
    with pytest.raises(ValueError, match="at least 1 row"):
        Chunks(0)
