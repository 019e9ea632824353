from pathlib import Path

import pytest
import torch
from glb_renderer import psnr, render_glb
from rich.console import Console

from outside_programs import gltf_report
from rewardsds.scenes.cameras import sample_orbit_group
from rewardsds.scenes.mesh.files import write_glb
from rewardsds.scenes.mesh.make import make_mesh
from rewardsds.tasks import run
from rewardsds.tasks.objects import load_objects
from rewardsds.tasks.settings import TextTo3DSettings


@pytest.mark.slow
def test_the_mesh_of_a_toybox_run_looks_like_its_object(tmp_path: Path):
    """At least 25 dB on views that the texture was not made from, by an independent renderer."""
    settings = TextTo3DSettings(
        prompt="a red car", steps=200, weighting="none", out=tmp_path / "run", threads=1
    )
    run.run(settings, console=Console(quiet=True))
    (scene,) = load_objects(tmp_path / "run", Console(quiet=True))
    write_glb(make_mesh(scene), tmp_path / "car.glb")
    cameras = sample_orbit_group(
        torch.Generator().manual_seed(9), 1, 8, (0.0, 30.0), (30.0, 50.0), (0.9, 1.1)
    )
    wanted = scene.render_images(cameras, 256)[:, 0]
    (grey,) = set(scene.background.evaluation)
    figures = psnr(render_glb(tmp_path / "car.glb", cameras[:, 0], 256, grey, fine=3), wanted)
    assert sum(figures) / len(figures) >= 25
    issues = gltf_report(tmp_path / "car.glb")["issues"]
    assert issues["numErrors"] == issues["numWarnings"] == 0
