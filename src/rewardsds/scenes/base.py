"""What every scene is: something differentiable that is rendered to images or is itself a latent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from rewardsds.scenes.cameras import Cameras


@dataclass
class Rendering:
    """V views of B items; of a scene that shows each item in G groups of V views, B below is items · G, item by item.

    images: (B, V, 3, H, W) in [0, 1], carries gradient; None when the scene is a latent.
    latents: (B, V, D, h, w), carries gradient; None when the scene is rendered to images.
    alpha: (B, V, 1, H, W) in [0, 1], or None.
    depth: (B, V, 1, H, W) in world units, or None.
    penalty: (B,) what the scene found against itself while it rendered, for `regularisation`, or None.
    """

    images: Tensor | None = None
    latents: Tensor | None = None
    alpha: Tensor | None = None
    depth: Tensor | None = None
    penalty: Tensor | None = None


class Scene(Protocol):
    """B independent optimisations side by side; items never mix."""

    @property
    def step(self) -> int:
        """The step in progress, or the number of steps done. Set it after `load_state_dict`, which does not know it."""
        ...

    @step.setter
    def step(self, step: int) -> None: ...

    @property
    def batch(self) -> int: ...

    def sample_cameras(self, generators: Sequence[torch.Generator], step: int) -> Cameras | None:
        """Cameras of batch shape (B · G, V) for one step, item b from generator b; None for a scene without views.

        G groups of V views an item: a group is what the prior and the reward see together. G may change from step to
        step and is the same for all items.
        """
        ...

    def render(
        self, cameras: Cameras | None, generators: Sequence[torch.Generator] | None = None
    ) -> Rendering:
        """Render with gradient. With `generators` the background may be augmented at random (training)."""
        ...

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for torch.optim.Adam, each with `params`, `lr` and `name`."""
        ...

    def regularisation(self, rendering: Rendering) -> Tensor | None:
        """A scalar that is added to the loss, or None."""
        ...

    def before_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Learning-rate schedules and the like. `step` counts from 0."""
        ...

    def after_step(
        self, step: int, optimizer: torch.optim.Optimizer, generators: Sequence[torch.Generator]
    ) -> None:
        """Called after the optimiser's step: densify, prune, …; may replace parameters and their moments."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> Any:
        """Takes back `state_dict()`, also when the number of primitives differs from the present one."""
        ...
