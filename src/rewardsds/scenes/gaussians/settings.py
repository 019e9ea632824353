"""Settings of a Gaussian scene."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAXIMUM_GAUSSIANS = 5_000_000  # more are refused wherever Gaussians come from
VISIBLE_OPACITY = 1 / 255  # what is fainter is not rendered, and has no gradient
MCMC_WEIGHT = 0.01  # of opacities and scales, where none is given


class GaussianSettings(BaseModel):
    """How Gaussians are initialised, seen, optimised, densified and pruned.

    The defaults suit 400 to 700 steps of score distillation at 64 × 64 pixels with Adam, as DreamGaussian
    (arXiv 2309.16653) has them for its first stage. Lengths are world units; an object is expected inside a
    ball of radius 0.9 around the origin.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # What is there at the start
    initial_gaussians: int = Field(
        default=2000, ge=1, le=MAXIMUM_GAUSSIANS, description="Gaussians at the start"
    )
    initial_radius: float = Field(default=0.6, gt=0, description="radius of the ball that they fill")
    initial_scale: float = Field(
        default=0.6, gt=0, description="their standard deviation, as a multiple of their mean spacing"
    )
    initial_opacity: float = Field(
        default=0.1,
        ge=VISIBLE_OPACITY,
        lt=1,
        description="their opacity, at least 1/255: fainter ones are not seen",
    )
    initial_colour_spread: float = Field(
        default=0.1, ge=0, description="standard deviation of their colours (logits) around mid-grey"
    )

    # Colour that depends on the direction of view
    sh_degree: int = Field(
        default=0,
        ge=0,
        le=3,
        description="highest degree of the spherical harmonics of their colour; 0: the same from everywhere",
    )
    sh_degree_every: int = Field(
        default=100,
        ge=0,
        description="steps after which the next degree is added, until sh_degree; 0: all from the start",
    )

    # Learning rates of Adam
    means_learning_rate: float = Field(default=0.004, gt=0, description="means, at the first step")
    means_final_learning_rate: float = Field(
        default=0.0004, gt=0, description="means, after the decay; in between the rate falls exponentially"
    )
    means_decay_steps: int = Field(default=500, ge=1, description="length of that decay, steps")
    colours_learning_rate: float = Field(default=0.03, gt=0, description="colour logits")
    harmonics_learning_rate: float = Field(
        default=0.0015, gt=0, description="spherical harmonics of degree 1 and above"
    )
    opacities_learning_rate: float = Field(default=0.05, gt=0, description="opacity logits")
    scales_learning_rate: float = Field(default=0.01, gt=0, description="log scales")
    rotations_learning_rate: float = Field(default=0.01, gt=0, description="quaternions")
    beta2: float = Field(
        default=0.99, ge=0, lt=1, description="Adam's decay of squared gradients; 3DGS has 0.999"
    )
    epsilon: float = Field(default=1e-8, gt=0, lt=1, description="Adam's ε; 3DGS has 1e-15")

    # How their number changes
    strategy: Literal["default", "mcmc"] = Field(
        default="default",
        description="default: those of high gradient are cloned or split, useless ones removed, as in 3DGS; mcmc: "
        "useless ones move to where others are, their number grows steadily, and noise moves the faint "
        "(arXiv 2404.09591)",
    )

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
    densify_gradient: float | None = Field(
        default=None,
        gt=0,
        description="an absolute threshold instead: norm of the gradient by the position in the picture, in halves of "
        "the picture's size, mean over views; null: the relative one",
    )
    split_scale: float = Field(
        default=0.05,
        gt=0,
        description="those larger than this are split into two smaller ones, others cloned",
    )
    max_gaussians: int = Field(
        default=4000, ge=1, le=MAXIMUM_GAUSSIANS, description="never more Gaussians than this"
    )
    growth: float = Field(
        default=0.05, ge=0, le=1, description="share by which their number grows at a time, with mcmc"
    )
    position_noise: float = Field(
        default=5000.0,
        ge=0,
        description="strength of the noise on the means, times their learning rate, with mcmc: the faintest move by "
        "about this × learning rate × variance a step",
    )

    # Removing Gaussians; mcmc moves them instead, at the steps at which it adds some
    prune_start: int = Field(default=100, ge=0, description="first step at which Gaussians may be removed")
    prune_opacity: float = Field(
        default=0.02, ge=0, lt=1, description="Gaussians of lower opacity are removed"
    )
    prune_scale: float = Field(
        default=0.3, gt=0, description="Gaussians with a larger standard deviation are removed"
    )
    prune_screen_size: float | None = Field(
        default=None,
        gt=0,
        description="Gaussians whose half extent in a view was a larger share of the picture are removed; null: none",
    )
    bounds: float = Field(default=1.2, gt=0, description="Gaussians farther from the origin are removed")
    opacity_reset_every: int = Field(
        default=0,
        ge=0,
        description="steps between resets of opacities to at most opacity_reset, from densify_start to densify_stop, "
        "with default; 0: never. They need some hundred steps to come back: none should be near the end of a run",
    )
    opacity_reset: float | None = Field(
        default=None,
        ge=VISIBLE_OPACITY,
        lt=1,
        description="opacity that a reset leaves at most; null: twice prune_opacity, as 3DGS has it (0.01 and 0.005), "
        "or the next pruning would take what has only been reset",
    )

    # Regularisation; all are sums, as the distillation loss is over latents. A sum over pixels is that at the first
    # resolution: larger pictures from a milestone on change neither
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
    opacity_weight: float | None = Field(
        default=None,
        ge=0,
        description="weight of the sum of opacities: fewer, surer Gaussians; null: 0 with default, 0.01 with mcmc",
    )
    scale_weight: float | None = Field(
        default=None,
        ge=0,
        description="weight of the sum of standard deviations along all axes; null: 0 with default, 0.01 with mcmc",
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

    def degree_at(self, step: int) -> int:
        """Highest degree of spherical harmonics in use at a step."""
        if self.sh_degree_every == 0:
            return self.sh_degree
        return min(self.sh_degree, step // self.sh_degree_every)

    def opacity_resets(self, steps: int) -> list[int]:
        """Before which steps, of so many, opacities are reset."""
        every = self.opacity_reset_every
        if not every or self.strategy != "default":
            return []
        first = -(-max(self.densify_start, 1) // every) * every
        return list(range(first, min(self.densify_stop, steps), every))

    @property
    def resolved_opacity_reset(self) -> float:
        if self.opacity_reset is not None:
            return self.opacity_reset
        return min(max(2 * self.prune_opacity, VISIBLE_OPACITY), 0.99)

    @property
    def resolved_opacity_weight(self) -> float:
        return self._of_strategy(self.opacity_weight)

    @property
    def resolved_scale_weight(self) -> float:
        return self._of_strategy(self.scale_weight)

    def _of_strategy(self, weight: float | None) -> float:
        if weight is not None:
            return weight
        return MCMC_WEIGHT if self.strategy == "mcmc" else 0.0
