"""Text to 3D: Gaussians are optimised through a multi-view prior (arXiv 2503.09601, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rewardsds.runs.loop import Job
from rewardsds.runs.randomness import generator
from rewardsds.scenes.export import turntable_cameras, write_turntable, write_views
from rewardsds.scenes.gaussians.scene import GaussianScene
from rewardsds.tasks.parts import load_parts
from rewardsds.tasks.settings import TextTo3DSettings

PREVIEW_SIZE = 128  # pixels of each of a preview's four views


def build(settings: TextTo3DSettings) -> Job:
    """The parts of a run, from resolved settings."""
    parts = load_parts(settings)
    assert settings.backbone == "gaussians"
    scene = GaussianScene([generator(settings.seed, "init")], settings.gaussians, settings.device)

    def preview() -> Tensor:
        """Four sides beside each other, (3, H, 4 W)."""
        with torch.no_grad():
            views = scene.render_images(turntable_cameras(4), PREVIEW_SIZE)[0]
        return torch.cat(list(views), dim=-1)

    def export(folder: Path) -> Sequence[str]:
        write_turntable(
            scene.render_images, folder / "turntable.mp4", settings.video_frames, settings.video_size
        )
        write_views(scene.render_images, folder / "views.png", size=settings.video_size)
        scene.export_ply(folder / "object.ply")
        return ["turntable.mp4", "views.png", "object.ply"]

    return Job(
        scene=scene,
        guidance=parts.guidance,
        prompts=[parts.prompt.text],
        seeds=[settings.seed],
        preview=preview,
        export=export,
        notes=parts.prompt.notes,
    )
