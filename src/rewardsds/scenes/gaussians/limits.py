"""What is no set of Gaussians that could be used."""

from __future__ import annotations

import torch
from torch import Tensor

from rewardsds.scenes.gaussians.settings import MAXIMUM_GAUSSIANS


def check_count(what: str, count: int) -> None:
    """Raises ValueError for none, or for more than five million. what: where they come from."""
    if not 1 <= count <= MAXIMUM_GAUSSIANS:
        raise ValueError(f"{what} has {count:,} Gaussians: expected 1 to {MAXIMUM_GAUSSIANS:,}")


def check_gaussians(what: str, *tensors: Tensor) -> None:
    """Raises ValueError where the number of rows, or a value that is NaN or infinite, makes them useless."""
    check_count(what, len(tensors[0]))
    finite = torch.stack([tensor.detach().isfinite().reshape(len(tensor), -1).all(-1) for tensor in tensors])
    broken = int((~finite.all(0)).sum())
    if broken:
        raise ValueError(
            f"{what} has exploded: {broken:,} of its {len(tensors[0]):,} Gaussians hold NaN or infinity; go back to an "
            "earlier checkpoint, or start again with a lower learning rate or guidance scale"
        )
