"""Settings of a Gaussian scene."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class GaussianSettings(BaseModel):
    """How Gaussians are initialised, seen, optimised, densified and pruned.

    The defaults suit 400 to 700 steps of score distillation at 64 × 64 pixels with Adam, as DreamGaussian
    (arXiv 2309.16653) has them for its first stage. Lengths are world units; an object is expected inside a
    ball of radius 0.9 around the origin.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # What is there at the start
    initial_gaussians: int = Field(default=2000, ge=1, description="Gaussians at the start")
    initial_radius: float = Field(default=0.6, gt=0, description="radius of the ball that they fill")
    initial_scale: float = Field(
        default=0.6, gt=0, description="their standard deviation, as a multiple of their mean spacing"
    )
    initial_opacity: float = Field(default=0.1, gt=0, lt=1, description="their opacity")
    initial_colour_spread: float = Field(
        default=0.1, ge=0, description="standard deviation of their colours (logits) around mid-grey"
    )

    # Learning rates of Adam
    means_learning_rate: float = Field(default=0.004, gt=0, description="means, at the first step")
    means_final_learning_rate: float = Field(
        default=0.0004, gt=0, description="means, after the decay; in between the rate falls exponentially"
    )
    means_decay_steps: int = Field(default=500, ge=1, description="length of that decay, steps")
    colours_learning_rate: float = Field(default=0.03, gt=0, description="colour logits")
    opacities_learning_rate: float = Field(default=0.05, gt=0, description="opacity logits")
    scales_learning_rate: float = Field(default=0.01, gt=0, description="log scales")
    rotations_learning_rate: float = Field(default=0.01, gt=0, description="quaternions")

    # Adding Gaussians
    densify_start: int = Field(default=100, ge=0, description="first step at which Gaussians may be added")
    densify_stop: int = Field(default=400, ge=0, description="from this step on none is added")
    densify_every: int = Field(default=50, ge=1, description="steps between densifications, and prunings")
    densify_threshold: float = Field(
        default=2.0,
        gt=0,
        description="Gaussians whose mean screen-space gradient exceeds this multiple of the mean over all "
        "that were seen are cloned or split; relative, as the size of a distillation gradient is arbitrary",
    )
    split_scale: float = Field(
        default=0.05,
        gt=0,
        description="those larger than this are split into two smaller ones, others cloned",
    )
    max_gaussians: int = Field(default=4000, ge=1, description="never more Gaussians than this")

    # Removing Gaussians
    prune_start: int = Field(default=100, ge=0, description="first step at which Gaussians may be removed")
    prune_opacity: float = Field(
        default=0.02, ge=0, lt=1, description="Gaussians of lower opacity are removed"
    )
    prune_scale: float = Field(
        default=0.3, gt=0, description="Gaussians with a larger standard deviation are removed"
    )
    bounds: float = Field(default=1.2, gt=0, description="Gaussians farther from the origin are removed")
    opacity_reset_every: int = Field(
        default=0, ge=0, description="steps between resets of opacities to at most the initial one; 0: never"
    )

    # Regularisation; both are sums, as the distillation loss is, so that weights do not depend on sizes
    opacity_entropy_weight: float = Field(
        default=0.01,
        ge=0,
        description="weight of the entropy of rendered alpha, summed over pixels: crisp edges",
    )
    anisotropy_weight: float = Field(
        default=0.01,
        ge=0,
        description="weight of the variance of log scales, summed over Gaussians: no needles",
    )

    @model_validator(mode="after")
    def _check(self) -> GaussianSettings:
        if self.max_gaussians < self.initial_gaussians:
            raise ValueError(
                f"max_gaussians ({self.max_gaussians}) is below initial_gaussians ({self.initial_gaussians})"
            )
        if self.initial_radius > self.bounds:
            raise ValueError(f"initial_radius ({self.initial_radius}) exceeds bounds ({self.bounds})")
        return self
