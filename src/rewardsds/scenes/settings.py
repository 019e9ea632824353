"""Settings of how a 3D scene is seen while it is optimised. Nothing heavy is imported here."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_validator

ExportFormat = Literal["glb", "obj", "ply", "splat", "mp4", "gif", "png", "html"]
"""Files that an object is exported to."""
JITTERS = ("position_jitter", "target_jitter", "up_jitter")
SEEN_FROM = {"around": ((0.0, 30.0), (30.0, 50.0)), "single": ((-10.0, 90.0), (40.0, 70.0))}
"""Elevations and fields of view of a sampling, degrees, where none are given; of single views those of DreamFusion
(arXiv 2209.14988, section 3.1)."""


class CameraSettings(BaseModel):
    """The cameras of a step, and the size of their pictures.

    A step renders `groups` × `views` pictures. Views of a group are asked about together (MVDream's four); groups
    draw timesteps, noises and candidates of their own. An object is expected inside a ball of radius 0.9.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sampling: Literal["around", "single"] = Field(
        default="around",
        description="around: a group's views stand evenly around the object, at one height, as MVDream's; single: each "
        "view is drawn by itself, as DreamFusion's.",
    )
    trajectory: Path | None = Field(
        default=None,
        description="File of cameras to draw from instead (transforms.json as of NeRF and nerfstudio, or nerfstudio's "
        "camera_path.json): a group takes evenly spaced ones from a random start.",
    )
    views: int = Field(default=4, ge=1, le=64, description="Views of a group.")
    together: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Views that a prior looks at together: of more views each so many in a row are evenly spread "
        "themselves. null: as many as the prior of the run.",
    )
    groups: tuple[int, ...] = Field(default=(1,), description="Groups of a step, one number a milestone.")
    resolution: tuple[int, ...] = Field(
        default=(64,), description="Height and width of training renders, pixels, one number a milestone."
    )
    milestones: tuple[int, ...] = Field(
        default=(), description="Steps from which the next number of groups and resolution counts."
    )
    elevation: tuple[float, float] | None = Field(
        default=None,
        description="Range of elevations, degrees. null: what suits the sampling (around 0 to 30, single -10 to 90).",
    )
    field_of_view: tuple[float, float] | None = Field(
        default=None,
        description="Range of vertical fields of view, degrees. null: what suits the sampling (around 30 to 50, single "
        "40 to 70).",
    )
    relative_distance: tuple[float, float] = Field(
        default=(0.9, 1.1), description="Range of camera distance × tan(field of view / 2)."
    )
    elevation_draw: Literal["degrees", "mixed"] = Field(
        default="degrees",
        description="Elevations of around: uniform in degrees, or mixed: half of them on the sphere's surface, as "
        "MVDream's public code has it. single is always mixed.",
    )
    position_jitter: float = Field(
        default=0.0,
        ge=0,
        description="Cameras leave their place by at most this, world units an axis; with around the views of a group "
        "alike, as by the other two jitters.",
    )
    target_jitter: float = Field(
        default=0.0, ge=0, description="Standard deviation of the point that they look at, world units."
    )
    up_jitter: float = Field(
        default=0.0, ge=0, description="Standard deviation of their upward direction, as a tangent."
    )

    @model_validator(mode="after")
    def _check(self) -> CameraSettings:
        elevation, field_of_view = self.resolved_elevation, self.resolved_field_of_view
        for name, (low, high) in (
            ("elevation", elevation),
            ("field_of_view", field_of_view),
            ("relative_distance", self.relative_distance),
        ):
            if low > high:
                raise ValueError(f"{name} is a range (low, high), got ({low}, {high})")
        if not 0 < field_of_view[0] <= field_of_view[1] < 180:
            raise ValueError(f"field_of_view must lie between 0 and 180 degrees, got {field_of_view}")
        if not -90 <= elevation[0] <= elevation[1] <= 90:
            raise ValueError(f"elevation must lie between -90 and 90 degrees, got {elevation}")
        if self.relative_distance[0] <= 0:
            raise ValueError(f"relative_distance must be positive, got {self.relative_distance}")
        if list(self.milestones) != sorted(set(self.milestones)) or any(step < 1 for step in self.milestones):
            raise ValueError(f"milestones must be rising steps above 0, got {self.milestones}")
        jitters = [name for name in JITTERS if getattr(self, name)]
        if self.trajectory is not None and jitters:
            raise ValueError(
                f"{jitters[0]} moves cameras that are drawn, and those of a trajectory stay as they are: leave one out"
            )
        for name, low, high in (("groups", 1, 64), ("resolution", 8, 2048)):
            values = getattr(self, name)
            if len(values) > 1 and not self.milestones:
                raise ValueError(
                    f"{name} has {len(values)} values, and no milestones say from which step on each next one counts: "
                    f"give {len(values) - 1} (--camera.milestones STEP …), or one value"
                )
            if len(values) not in (1, len(self.milestones) + 1):
                raise ValueError(
                    f"{name} has {len(values)} values: expected one, or {len(self.milestones) + 1} with the milestones "
                    f"{self.milestones}"
                )
            if not all(low <= value <= high for value in values):
                raise ValueError(f"{name} must lie between {low} and {high}, got {values}")
        return self

    @property
    def resolved_elevation(self) -> tuple[float, float]:
        return SEEN_FROM[self.sampling][0] if self.elevation is None else self.elevation

    @property
    def resolved_field_of_view(self) -> tuple[float, float]:
        return SEEN_FROM[self.sampling][1] if self.field_of_view is None else self.field_of_view

    @field_serializer("elevation")
    def _written_elevation(self, given: object) -> tuple[float, float]:
        return self.resolved_elevation  # a run's settings say what it does

    @field_serializer("field_of_view")
    def _written_field_of_view(self, given: object) -> tuple[float, float]:
        return self.resolved_field_of_view

    def resolved(self) -> CameraSettings:
        """With the whole path of the trajectory's file, so that a run goes on from any folder."""
        if self.trajectory is None:
            return self
        return self.model_copy(update={"trajectory": self.trajectory.absolute()})

    def groups_at(self, step: int) -> int:
        return self.groups[min(bisect_right(self.milestones, step), len(self.groups) - 1)]

    def resolution_at(self, step: int) -> int:
        return self.resolution[min(bisect_right(self.milestones, step), len(self.resolution) - 1)]

    def pixel_weight(self, step: int) -> float:
        """What a pixel counts in a sum over pixels, as a share of one at first: smaller where there are more of them.

        The distillation loss is over latents, of one size whatever the pictures': what is added to it keeps its size.
        """
        return (self.resolution[0] / self.resolution_at(step)) ** 2


class BackgroundSettings(BaseModel):
    """What is behind an object, where its scene has no background of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    augmentation: bool = Field(
        default=True, description="Draw a plain background colour every training step."
    )
    grey: tuple[float, float] = Field(
        default=(0.35, 1.0), description="Range of the grey level of training backgrounds."
    )
    tint: float = Field(
        default=0.06, ge=0, le=1, description="Training backgrounds leave grey by at most this, per channel."
    )
    evaluation: tuple[float, float, float] = Field(
        default=(0.9, 0.9, 0.9), description="Background colour of every other render."
    )

    @model_validator(mode="after")
    def _check(self) -> BackgroundSettings:
        low, high = self.grey
        if low > high:
            raise ValueError(f"grey is a range (low, high), got ({low}, {high})")
        if low < 0 or high > 1:
            raise ValueError(f"grey must lie between 0 (black) and 1 (white), got ({low}, {high})")
        if not all(0 <= value <= 1 for value in self.evaluation):
            raise ValueError(f"evaluation is a colour of three numbers from 0 to 1, got {self.evaluation}")
        return self


class TurntableSettings(BaseModel):
    """Pictures around a finished object: videos, animations and sheets of views."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: int = Field(
        default=512,
        ge=16,
        le=4096,
        description="Width and height of a picture, pixels (mp4: an even number).",
    )
    seconds: float = Field(default=3.0, gt=0, le=600, description="Length of a turn (mp4, gif).")
    fps: int = Field(default=24, ge=1, le=120, description="Pictures a second (mp4, gif).")
    views: int = Field(default=8, ge=1, le=64, description="Views of a sheet (png).")
    elevation: float = Field(
        default=15.0, ge=-89, le=89, description="Height of the camera over the horizon, degrees."
    )
    azimuth: float = Field(default=0.0, description="Where the turn begins, degrees; 0 is the front.")
    field_of_view: float = Field(default=40.0, ge=1, le=120, description="Vertical, degrees.")
    relative_distance: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="Camera distance × tan(field of view / 2): larger is farther away. null: 1, and farther where "
        "pictures would cut the object.",
    )
    background: tuple[float, float, float] | None = Field(
        default=None, description="Colour behind the object, 0 to 1 a channel. null: the run's."
    )

    @model_validator(mode="after")
    def _check(self) -> TurntableSettings:
        if self.background is not None and not all(0 <= value <= 1 for value in self.background):
            raise ValueError(f"background is a colour of three numbers from 0 to 1, got {self.background}")
        return self

    @property
    def frames(self) -> int:
        return max(1, round(self.seconds * self.fps))
