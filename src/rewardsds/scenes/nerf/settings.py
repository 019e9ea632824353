"""Settings of a NeRF scene. Nothing heavy is imported here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Schedule = float | tuple[int, float, float, int]
"""A constant, or (start step, start value, end value, end step) with a straight line in between, as threestudio's."""

REGULARISERS = ("orientation_weight", "opacity_weight", "sparsity_weight", "z_variance_weight")


def scheduled(schedule: Schedule, step: int) -> float:
    """The value at a step."""
    if not isinstance(schedule, tuple):
        return float(schedule)
    start_step, start, end, end_step = schedule
    progress = (step - start_step) / (end_step - start_step)
    return start + (end - start) * min(max(progress, 0.0), 1.0)


class NeRFSettings(BaseModel):
    """The field of a NeRF, how it is sampled, rendered, regularised and optimised.

    The defaults suit 300 to 700 steps of score distillation at 64 × 64 pixels on a CPU. Lengths are world units; the
    object lies in the ball of radius 1 around the origin, outside of which nothing is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # The hash grid (arXiv 2201.05989)
    levels: int = Field(default=6, ge=1, le=32, description="levels of the hash grid")
    features: int = Field(default=2, ge=1, le=16, description="features of a level")
    log2_table: int = Field(default=15, ge=4, le=24, description="rows of a level's table at most, as log2")
    base_resolution: int = Field(default=8, ge=1, le=1024, description="cells of the coarsest level, an axis")
    growth: float = Field(default=1.5, ge=1, le=4, description="how much finer each next level is")

    # The networks
    neurons: int = Field(default=32, ge=1, le=1024, description="neurons of a hidden layer")
    hidden_layers: int = Field(default=1, ge=0, le=16, description="hidden layers of either network")

    # Density
    density_activation: Literal["softplus", "exp"] = Field(
        default="exp", description="from the network's output to density; exp: with a truncated gradient"
    )
    blob: Literal["linear", "gaussian"] = Field(
        default="linear",
        description="what is added to the density network's output. linear: blob_scale · (1 − |x| / blob_radius), as "
        "Magic3D and MVDream; gaussian: blob_scale · exp(−½ |x|² / blob_radius²), as DreamFusion",
    )
    blob_scale: float = Field(default=4.0, ge=0, le=1000, description="height of the blob")
    blob_radius: float = Field(default=0.5, gt=0, le=10, description="size of the blob, world units")

    colour_activation: Literal["sigmoid", "straight"] = Field(
        default="straight",
        description="from the network's output to colours; straight: a line that is cut off at black and white, from "
        "where gradient still leads back; sigmoid: as MVDream",
    )

    # Rendering
    samples_per_ray: int = Field(
        default=64, ge=2, le=4096, description="samples that a ray through the middle of the ball would have"
    )
    evaluation_samples_per_ray: int = Field(
        default=128, ge=2, le=4096, description="the same where nothing is trained"
    )
    early_stop: float = Field(
        default=1e-3,
        ge=0,
        lt=1,
        description="samples to which less light than this gets through are left out; 0: none",
    )
    samples_at_once: int = Field(
        default=2**21, ge=2**12, le=2**28, description="samples that are looked through at a time: memory"
    )

    # The occupancy grid
    occupancy_resolution: int = Field(default=48, ge=2, le=512, description="its cells, an axis")
    occupancy_every: int = Field(default=8, ge=1, le=10_000, description="steps between its updates")
    occupancy_decay: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="what an update leaves of a cell's old density, if it is the larger",
    )
    occupancy_threshold: float = Field(
        default=0.01, ge=0, lt=1, description="cells in which a sample's alpha stays below this are skipped"
    )

    # What is behind the object
    environment: bool = Field(
        default=False,
        description="a small network on the direction is the background, as MVDream's; else a plain colour",
    )
    environment_neurons: int = Field(default=16, ge=1, le=256, description="neurons of its hidden layers")
    environment_layers: int = Field(default=2, ge=0, le=8, description="its hidden layers")
    environment_replacement: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="probability that a training step has a plain colour in its place",
    )

    # Regularisers; sums over pixels, as the distillation loss is a sum over latents. Larger pictures from a milestone
    # on change neither: pixels count as they do at the first resolution
    orientation_weight: Schedule = Field(
        default=0.0,
        description="weight of surfaces that face away from the camera (DreamFusion); needs normals",
    )
    opacity_weight: Schedule = Field(
        default=0.02, description="weight of the entropy of rendered alpha: crisp edges, no fog"
    )
    sparsity_weight: Schedule = Field(
        default=0.0, description="weight of rendered alpha itself, √(alpha² + 0.01): no floaters"
    )
    z_variance_weight: Schedule = Field(
        default=0.0, description="weight of the variance of depth along a ray (HiFA): thin surfaces"
    )
    normals: Literal["differences", "analytic"] = Field(
        default="differences",
        description="gradient of the density by finite differences, or by derivation, which is exact and slower",
    )
    normals_step: float = Field(default=0.01, gt=0, le=0.5, description="length of a finite difference")

    # Adam
    grid_learning_rate: float = Field(default=0.01, gt=0, description="hash grid")
    network_learning_rate: float = Field(default=0.002, gt=0, description="density and colour network")
    environment_learning_rate: float = Field(default=0.001, gt=0, description="network of the background")
    weight_decay: float = Field(
        default=0.0, ge=0, lt=1, description="AdamW's, of all of them; 0.01 where a NeRF is trained by AdamW"
    )
    epsilon: float = Field(
        default=1e-15, gt=0, lt=1, description="Adam's ε; small, as most features get small gradients"
    )

    @field_validator(*REGULARISERS, mode="before")
    @classmethod
    def _check_schedule(cls, given: Any) -> Any:
        changes = isinstance(given, (list, tuple))
        try:
            numbers = [float(value) for value in (given if changes else [given])]
        except (TypeError, ValueError, OverflowError):
            numbers = []
        if len(numbers) == 4 and numbers[0].is_integer() and numbers[3].is_integer():
            return given
        if len(numbers) == 1 and not changes:
            return given
        raise ValueError(
            "expected a number, or (start step, start value, end value, end step) with whole steps"
        )

    @model_validator(mode="after")
    def _check(self) -> NeRFSettings:
        finest = self.base_resolution * self.growth ** (self.levels - 1)
        if finest > 2**20:
            raise ValueError(
                f"the finest level would have {finest:.0f} cells an axis, more than {2**20}: lower levels or growth"
            )
        for name in REGULARISERS:
            value = getattr(self, name)
            if isinstance(value, tuple):
                start_step, start, end, end_step = value
                if not 0 <= start_step < end_step:
                    raise ValueError(
                        f"{name} is (start step, start value, end value, end step) with rising steps, got {value}"
                    )
                value = min(start, end)
            if value < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        return self
