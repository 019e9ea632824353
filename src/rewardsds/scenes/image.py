"""The simplest scene: latents that are optimised directly, one picture per item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from rewardsds.scenes.base import Rendering
from rewardsds.scenes.cameras import Cameras


class LatentImageSettings(BaseModel):
    """How a latent is initialised and optimised (arXiv 2503.09601, text-to-image)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = Field(default=0.05, gt=0, description="Adam's learning rate")
    init_scale: float = Field(
        default=1.0, ge=0, description="standard deviation of the noise that the latent starts from"
    )


class LatentImageScene:
    """B latents (B, 1, D, h, w), optimised directly; `render` returns the parameter itself."""

    step: int = 0

    def __init__(
        self,
        latent_shape: tuple[int, int, int],
        generators: Sequence[torch.Generator],
        settings: LatentImageSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """latent_shape: (D, h, w). generators: one CPU generator per item, from which its noise is drawn."""
        if not generators:
            raise ValueError("a latent image scene needs one generator per item; none was given")
        self.settings = settings or LatentImageSettings()
        noise = torch.stack([torch.randn((1, *latent_shape), generator=g) for g in generators])
        self.latents = torch.nn.Parameter((self.settings.init_scale * noise).to(device))

    @classmethod
    def from_latents(cls, latents: Tensor, settings: LatentImageSettings | None = None) -> LatentImageScene:
        """Starts from given latents (B, 1, D, h, w), on their device, instead of noise."""
        scene = cls.__new__(cls)
        scene.settings = settings or LatentImageSettings()
        scene.latents = torch.nn.Parameter(latents.detach().clone())
        return scene

    @property
    def batch(self) -> int:
        return self.latents.shape[0]

    def sample_cameras(self, generators: Sequence[torch.Generator], step: int) -> Cameras | None:
        return None

    def render(
        self, cameras: Cameras | None, generators: Sequence[torch.Generator] | None = None
    ) -> Rendering:
        """The latents themselves; an image has no cameras and no background."""
        return Rendering(latents=self.latents)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.latents], "lr": self.settings.learning_rate, "name": "latents"}]

    def regularisation(self, rendering: Rendering) -> Tensor | None:
        return None

    def before_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        self.step = step

    def after_step(
        self, step: int, optimizer: torch.optim.Optimizer, generators: Sequence[torch.Generator]
    ) -> None:
        self.step = step + 1

    def state_dict(self) -> Mapping[str, Tensor]:
        return {"latents": self.latents.detach()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError when the state is of another shape."""
        latents = state.get("latents")
        if latents is None or latents.shape != self.latents.shape:
            found = "none" if latents is None else tuple(latents.shape)
            raise ValueError(
                f"the state holds latents of shape {found}, expected {tuple(self.latents.shape)}"
            )
        with torch.no_grad():
            self.latents.copy_(latents)
