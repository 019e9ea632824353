"""Several scenes as one: their items side by side in one batch, each with parameters of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from rewardsds.scenes.base import Rendering, Scene
from rewardsds.scenes.cameras import Cameras


class SceneGroup:
    """B scenes of one item each; item b is scene b, and is what it would be alone.

    Names of parameter groups and keys of the state are those of the scenes, after "b/".
    """

    def __init__(self, scenes: Sequence[Scene]) -> None:
        if not scenes or any(scene.batch != 1 for scene in scenes):
            raise ValueError("a group is made of scenes of one item each, at least one")
        self.scenes = list(scenes)

    @property
    def batch(self) -> int:
        return len(self.scenes)

    @property
    def step(self) -> int:
        """That of every scene."""
        return self.scenes[0].step

    @step.setter
    def step(self, step: int) -> None:
        for scene in self.scenes:
            scene.step = step

    def sample_cameras(self, generators: Sequence[torch.Generator], step: int) -> Cameras | None:
        found = [scene.sample_cameras([own], step) for scene, own in zip(self.scenes, generators)]
        cameras = [one for one in found if one is not None]
        if not cameras:
            return None
        return Cameras(
            torch.cat([one.camera_to_world for one in cameras]),
            torch.cat([one.field_of_view for one in cameras]),
        )

    def _own(self, index: int, rows: int) -> slice:
        """Where scene `index` lies among rows that are as many for each scene."""
        each = rows // len(self.scenes)
        return slice(index * each, (index + 1) * each)

    def render(
        self, cameras: Cameras | None, generators: Sequence[torch.Generator] | None = None
    ) -> Rendering:
        renderings = []
        for index, scene in enumerate(self.scenes):
            own = None if cameras is None else cameras[self._own(index, cameras.batch_shape[0])]
            renderings.append(scene.render(own, None if generators is None else [generators[index]]))
        return Rendering(
            **{
                field.name: torch.cat([getattr(one, field.name) for one in renderings])
                for field in fields(Rendering)
                if getattr(renderings[0], field.name) is not None
            }
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {**group, "name": f"{index}/{group['name']}"}
            for index, scene in enumerate(self.scenes)
            for group in scene.parameter_groups()
        ]

    def regularisation(self, rendering: Rendering) -> Tensor | None:
        terms = []
        for index, scene in enumerate(self.scenes):
            given = {field.name: getattr(rendering, field.name) for field in fields(Rendering)}
            own = {
                name: value[self._own(index, len(value))]
                for name, value in given.items()
                if value is not None
            }
            term = scene.regularisation(Rendering(**own))
            if term is not None:
                terms.append(term)
        return torch.stack(terms).sum() if terms else None

    def before_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        for index, scene in enumerate(self.scenes):
            with _own_part(optimizer, index) as part:
                scene.before_step(step, part)

    def after_step(
        self, step: int, optimizer: torch.optim.Optimizer, generators: Sequence[torch.Generator]
    ) -> None:
        for index, scene in enumerate(self.scenes):
            with _own_part(optimizer, index) as part:
                scene.after_step(step, part, [generators[index]])

    def state_dict(self) -> dict[str, Tensor]:
        return {
            f"{index}/{key}": value
            for index, scene in enumerate(self.scenes)
            for key, value in scene.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for index, scene in enumerate(self.scenes):
            prefix = f"{index}/"
            scene.load_state_dict(
                {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            )


@dataclass
class _Part:
    """What a scene uses of an optimiser: its own groups, and the moments, which are kept by parameter."""

    param_groups: list[dict[str, Any]]
    state: Any


@contextmanager
def _own_part(optimizer: torch.optim.Optimizer, index: int) -> Iterator[Any]:
    """The optimiser as scene `index` knows it: its groups, under the names that it gave them."""
    prefix = f"{index}/"
    own = [group for group in optimizer.param_groups if group["name"].startswith(prefix)]
    for group in own:
        group["name"] = group["name"].removeprefix(prefix)
    try:
        yield _Part(own, optimizer.state)
    finally:
        for group in own:
            group["name"] = prefix + group["name"]
