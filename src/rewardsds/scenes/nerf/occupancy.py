"""Which parts of space hold something: a coarse grid, so that samples in empty space are never evaluated."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Module

from rewardsds.errors import NotFiniteError
from rewardsds.scenes.object3d import RADIUS


class OccupancyGrid(Module):
    """Highest recent density of each cell of a cube around the ball, as of instant-ngp (arXiv 2201.05989, E.2).

    values: (C, C, C), x first, densities per world unit. occupied: the same in bool, what `values` say.
    """

    values: Tensor
    occupied: Tensor

    def __init__(self, resolution: int, decay: float, threshold: float) -> None:
        """decay: what an update leaves of an old value. threshold: alpha of a sample from which a cell is occupied."""
        super().__init__()
        self.resolution, self.decay, self.threshold = resolution, decay, threshold
        cube = (resolution, resolution, resolution)
        self.register_buffer("values", torch.zeros(cube))
        self.register_buffer("occupied", torch.ones(cube, dtype=torch.bool), persistent=False)

    def update(
        self,
        density: Callable[[Tensor], Tensor],
        step: float,
        generator: torch.Generator | None = None,
        fresh: bool = False,
    ) -> None:
        """Looks at one point of each cell: its middle, or a random one with a CPU generator.

        density: points (M, 3) → (M,). step: the length of a sample. fresh: forget what was seen before. Raises
        NotFiniteError where the density is not finite, ValueError where it is 0 everywhere.
        """
        cells = torch.stack(
            torch.meshgrid(*[torch.arange(self.resolution)] * 3, indexing="ij"), dim=-1
        ).reshape(-1, 3)
        place = torch.full((1, 3), 0.5) if generator is None else torch.rand(cells.shape, generator=generator)
        points = ((cells + place) * (2 * RADIUS / self.resolution) - RADIUS).to(self.values.device)
        with torch.no_grad():
            found = density(points)
            found = torch.where(points.norm(dim=-1) < RADIUS, found, torch.zeros_like(found))
        if fresh and not bool(found.isfinite().all()):
            raise NotFiniteError(
                "the NeRF's density is NaN or infinite before any step: start again with a lower blob_scale"
            )
        if not bool(found.isfinite().all()):
            raise NotFiniteError(
                "the NeRF's density became NaN or infinite: start again with lower learning rates or a lower guidance "
                "scale"
            )
        found = found.reshape(self.values.shape)
        self.values = found if fresh else torch.maximum(self.decay * self.values, found)
        self.refresh(step)

    def refresh(self, step: float) -> None:
        """Derives `occupied` from `values`.

        A cell is occupied where a sample's alpha, 1 − exp(−density · step), exceeds the threshold, or the mean over
        cells where that is lower: also in thin fog something is seen (as nerfacc has it). Neighbours of occupied cells
        count as occupied, so that surfaces can move.
        """
        alpha = -torch.expm1(-self.values * step)
        if not bool(alpha.max() > 0):
            raise ValueError(
                "the NeRF has become empty, its density is 0 everywhere: start again with lower sparsity_weight and "
                "opacity_weight, or a higher blob_scale"
            )
        full = alpha > torch.clamp(0.99 * alpha.mean(), max=self.threshold)
        widened = torch.nn.functional.max_pool3d(full[None, None].float(), 3, stride=1, padding=1)[0, 0]
        self.occupied = widened > 0
