"""Settings of meshes: how they are taken out of an object, and how one is optimised. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class MeshExportSettings(BaseModel):
    """From an object to a mesh with a texture. The defaults suit an object of some thousand Gaussians."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # Surface
    resolution: int = Field(
        default=128,
        ge=16,
        le=512,
        description="Grid points along each axis, from -1 to 1, of the density; more of them, up to 256, for an object "
        "that reaches beyond.",
    )
    level: float | None = Field(
        default=None,
        description="Density at the surface. null: the one whose silhouettes agree best with the rendered alpha.",
    )
    level_views: int = Field(
        default=12, ge=1, le=256, description="Views whose silhouettes decide about the level."
    )
    silhouette_views: int = Field(
        default=24,
        ge=0,
        le=256,
        description="Views to whose outlines the surface is moved, where its level was found. 0: it stays.",
    )
    smoothing: float = Field(
        default=0.024,
        ge=0,
        le=0.5,
        description="Width in world units (standard deviation) over which the logarithm of the density is smoothed: "
        "without it, a surface shows each of its outermost Gaussians. 0: not at all.",
    )
    smallest_component: float = Field(
        default=0.03,
        ge=0,
        le=1,
        description="Loose pieces of less than this share of the largest's area are left out.",
    )
    faces: int = Field(default=20_000, ge=4, le=2_000_000, description="At most this many triangles.")

    # Texture
    texture_size: int = Field(
        default=1024, ge=32, le=8192, description="Height and width of the texture, pixels."
    )
    padding: int = Field(
        default=4, ge=1, le=64, description="Empty texels between charts, against bleeding of colours."
    )
    atlas_faces: int = Field(
        default=200_000, ge=0, le=10_000_000, description="Larger meshes get a simple atlas at once."
    )
    atlas_seconds: float = Field(
        default=30.0, gt=0, le=86_400, description="After this long, xatlas is given up for a simple atlas."
    )
    bake_views: int = Field(
        default=48, ge=1, le=1024, description="Views all around whose colours make the texture."
    )
    bake_size: int = Field(default=256, ge=16, le=4096, description="Their height and width, pixels.")

    @model_validator(mode="before")
    @classmethod
    def _of_older_runs(cls, values: Any) -> Any:
        """Their settings.yaml names a colour behind the object, which was taken out of the pictures again."""
        if isinstance(values, Mapping) and "bake_background" in values:
            return {name: value for name, value in values.items() if name != "bake_background"}
        return values


class MeshSettings(BaseModel):
    """A mesh whose texture is optimised: DreamGaussian's second stage (arXiv 2309.16653, section 3.3)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    texture_size: int | None = Field(
        default=None,
        ge=16,
        le=8192,
        description="Height and width of the texture. null: as the mesh has it; where a new one is made for it, "
        "extraction.texture_size.",
    )
    texture_learning_rate: float = Field(
        default=0.05, gt=0, le=10, description="Adam's learning rate of the texture's logits."
    )
    total_variation_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the sum of absolute differences between neighbouring texels: no grain.",
    )
    supersampling: int = Field(
        default=2, ge=1, le=8, description="Rays along each side of a pixel: smooth edges."
    )
