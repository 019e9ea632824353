"""Memory that tensors hold, against sizes by hand."""

from __future__ import annotations

import torch

from rewardsds.memory import PeakMemory, largest_batch


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
