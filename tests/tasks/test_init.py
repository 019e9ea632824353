"""`--init`: objects that start from shapes and from other runs, seen in what a run of one step leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import Tensor

from fake_task import SMALL_3D, quiet, said
from rewardsds.cli import main
from rewardsds.scenes.export import save_png, turntable_cameras
from rewardsds.scenes.gaussians.ply import write_ply
from rewardsds.scenes.gaussians.scene import GaussianScene
from rewardsds.scenes.mesh.files import write_glb
from rewardsds.scenes.mesh.scene import MeshScene
from rewardsds.scenes.mesh.textured import TexturedMesh
from rewardsds.scenes.object3d import Object3D
from rewardsds.tasks.objects import begin_from, load_objects, make_objects
from rewardsds.tasks.run import resume, run
from rewardsds.tasks.settings import TextTo3DSettings, TextToImageSettings

SMALL_MESH = {"resolution": 40, "faces": 600, "texture_size": 64, "bake_views": 8, "bake_size": 64}
SMALL_NERF = {"levels": 4, "base_resolution": 8, "samples_per_ray": 32, "occupancy_resolution": 16}


def two_coloured_box(path: Path) -> Path:
    """0.8 × 0.4 × 0.4, red towards +X and blue towards −X, as PLY with vertex colours; scaled to radius 0.9 it is
    long along X."""
    box = trimesh.creation.box((0.8, 0.4, 0.4)).subdivide().subdivide()
    colours = np.where(box.vertices[:, :1] > 0, [[220, 30, 30]], [[30, 30, 220]]).astype(np.uint8)
    trimesh.Trimesh(box.vertices, box.faces, vertex_colors=colours).export(path)
    return path


def settings(**values: Any) -> TextTo3DSettings:
    return TextTo3DSettings(**{**SMALL_3D, "steps": 1, **values})


def begun(**values: Any) -> Object3D:
    """The object as it is before the first step."""
    given = settings(**values).resolved()
    objects = make_objects(given)
    begin_from(given, objects, quiet())
    return objects[0]


def seen(one: Object3D, azimuth: float = 0.0) -> tuple[Tensor, Tensor]:
    """Image (3, 48, 48) and alpha (48, 48) from an azimuth in degrees."""
    with torch.no_grad():
        rendering = one.render(turntable_cameras(1, elevation=0.0, start_azimuth=azimuth), size=48)
    assert rendering.images is not None
    assert rendering.alpha is not None
    return rendering.images[0, 0], rendering.alpha[0, 0, 0]


BACKBONES: dict[str, dict[str, Any]] = {
    "gaussians": {"gaussians": {"initial_gaussians": 1500, "initial_opacity": 0.9}},
    "nerf": {"nerf": SMALL_NERF},
    "mesh": {"extraction": SMALL_MESH},
}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_starts_from_a_mesh(backbone: str, tmp_path: Path):
    one = begun(backbone=backbone, init=two_coloured_box(tmp_path / "box.ply"), **BACKBONES[backbone])
    front, alpha = seen(one)
    back, _ = seen(one, 180)
    _, side = seen(one, 90)
    assert alpha[24, 24] > 0.7
    assert front[0, 24, 24] > front[2, 24, 24] + 0.2  # red from the front
    assert back[2, 24, 24] > back[0, 24, 24] + 0.2  # blue from behind
    solid = side > 0.5
    assert solid.any(0).sum() > 1.5 * solid.any(1).sum()  # twice as long as high, seen from the side
    assert solid.any(0).sum() >= 24


def painted_ball(path: Path, kind: str) -> Path:
    """Red above, blue below; a mesh, the same with one face missing, or points of it."""
    mesh = trimesh.creation.icosphere(5)
    faces = mesh.faces[1:] if kind == "open" else mesh.faces

    def colours(places: Any) -> Any:
        return np.where(places[:, 2:] > 0, [[255, 0, 0, 255]], [[0, 0, 255, 255]]).astype(np.uint8)

    if kind == "cloud":
        trimesh.PointCloud(mesh.vertices, colours(mesh.vertices)).export(path)
    else:
        trimesh.Trimesh(mesh.vertices, faces, vertex_colors=colours(mesh.vertices)).export(path)
    return path


@pytest.mark.parametrize(
    "kind", ["open", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("closed", "cloud"))]
)
def test_a_nerf_has_the_size_and_the_colours_of_a_ball(kind: str, tmp_path: Path):
    one = begun(backbone="nerf", init=painted_ball(tmp_path / "ball.ply", kind))
    cameras = turntable_cameras(1, elevation=0.0)
    with torch.no_grad():
        rendering = one.render(cameras, size=64)
    assert rendering.images is not None
    assert rendering.alpha is not None
    image, alpha = rendering.images[0, 0], rendering.alpha[0, 0, 0]
    distance = cameras.camera_to_world[0, 0, :3, 3].norm()
    outline = torch.tan(torch.asin(0.9 / distance)) / torch.tan(cameras.field_of_view[0, 0] / 2)
    assert float((alpha > 0.5).sum() / (torch.pi * (32 * outline) ** 2)) == pytest.approx(1, abs=0.03)
    solid = alpha > 0.9
    saturation = image.amax(0) - image.amin(0)
    assert saturation[solid].mean() > 0.92
    assert one.density(torch.zeros(1, 3)) > 10  # not hollow


def test_a_mesh_keeps_the_size_of_its_texture(tmp_path: Path):
    """Where `mesh.texture_size` is null; what gets a new texture gets it in the size of the extraction."""
    wall = torch.tensor([[0.0, -1.0, -1.0], [0.0, 1.0, -1.0], [0.0, 1.0, 1.0]])
    uvs = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    write_glb(TexturedMesh(wall, torch.tensor([[0, 1, 2]]), uvs, torch.rand((3, 48, 48))), tmp_path / "a.glb")
    box = two_coloured_box(tmp_path / "box.ply")
    for init, given, wanted in (
        (tmp_path / "a.glb", None, 48), (tmp_path / "a.glb", 32, 32), (box, None, 64), (box, 128, 128),
    ):  # fmt: skip
        one = begun(backbone="mesh", init=init, mesh={"texture_size": given}, extraction=SMALL_MESH)
        assert isinstance(one, MeshScene)
        assert one.texture().shape == (3, wanted, wanted)


def test_gaussians_are_taken_over_as_they_are(tmp_path: Path):
    first = begun(gaussians={"initial_gaussians": 120})
    assert isinstance(first, GaussianScene)
    first.export_ply(tmp_path / "g.ply")
    second = begun(init=tmp_path / "g.ply", gaussians={"initial_gaussians": 50})
    assert isinstance(second, GaussianScene)
    for name in ("means", "scales", "opacities", "colours"):
        ours, theirs = getattr(second.gaussians(), name), getattr(first.gaussians(), name)
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [100, 400, 3000])
def test_a_cloud_of_any_size_is_seen(count: int, tmp_path: Path):
    """Points of a ball: the fewer there are, the larger each Gaussian, and the ball is there in any case."""
    points = torch.randn((count, 3), generator=torch.Generator().manual_seed(1))
    points = torch.nn.functional.normalize(points, dim=-1)
    trimesh.PointCloud(points.numpy()).export(tmp_path / "cloud.ply")
    one = begun(init=tmp_path / "cloud.ply", gaussians={"initial_gaussians": 2000})
    assert isinstance(one, GaussianScene)
    assert len(one) == min(count, 2000)
    # on a sphere of radius 0.9 the nearest three of so many are on average this far away
    expected = (2 / (torch.pi * len(one) / (4 * torch.pi * 0.9**2))) ** 0.5
    assert float(one.gaussians().scales.detach().median()) == pytest.approx(expected, rel=0.25)
    _, alpha = seen(one)
    assert (alpha > 0.3).float().mean() > 0.35  # its outline covers half of the picture


def test_gaussians_of_another_program_are_brought_into_the_ball(tmp_path: Path):
    g = torch.Generator().manual_seed(0)
    means = 5 * torch.nn.functional.normalize(torch.randn((500, 3), generator=g), dim=-1)
    write_ply(
        tmp_path / "g.ply", means, torch.ones((500, 4)), torch.full((500, 3), 0.5), torch.full((500,), 0.9),
        torch.full((500, 3), 0.25),
    )  # fmt: skip
    pruning = {"prune_start": 0, "densify_start": 0, "densify_every": 1, "densify_stop": 0}
    values = {"init": tmp_path / "g.ply", "gaussians": pruning}
    one = begun(**values)
    assert isinstance(one, GaussianScene)
    assert one.means.detach().norm(dim=-1).max() == pytest.approx(0.9, abs=1e-4)
    assert float(one.gaussians().scales.detach().mean()) == pytest.approx(0.09, rel=0.05)
    run(settings(**values, out=tmp_path / "run"), console=quiet())
    [after] = load_objects(tmp_path / "run", quiet())
    assert isinstance(after, GaussianScene)
    assert len(after) == 500


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    box = two_coloured_box(folder / "box.ply")
    made = settings(init=box, **BACKBONES["gaussians"], out=folder / "run")
    run(made, console=quiet())
    return folder / "run"


def test_a_run_goes_on_from_the_gaussians_of_another(finished: Path):
    [before] = load_objects(finished, quiet())
    after = begun(init=finished)
    assert isinstance(before, GaussianScene)
    assert isinstance(after, GaussianScene)
    assert torch.equal(before.means, after.means)


@pytest.mark.parametrize("backbone", ["nerf", "mesh"])
def test_other_backbones_take_the_shape_of_a_run(backbone: str, finished: Path):
    values = {**BACKBONES[backbone], "extraction": SMALL_MESH}
    one = begun(backbone=backbone, init=finished, **values)
    [before] = load_objects(finished, quiet())
    for azimuth in (0, 120):
        (image, alpha), (expected, covered) = seen(one, azimuth), seen(before, azimuth)
        both = (alpha > 0.5) & (covered > 0.5)
        assert both.sum() > 0.8 * ((alpha > 0.5) | (covered > 0.5)).sum()
        assert (image - expected)[:, both].abs().mean() < 0.12


# --- Gaussians of another run or file -----------------------------------------------------------------------


def surface_of(one: Object3D, size: int = 64) -> tuple[Tensor, Tensor]:
    """Images (4, 3, s, s) and alpha (4, s, s) from four sides."""
    with torch.no_grad():
        rendering = one.render(turntable_cameras(4), size=size)
    assert rendering.images is not None
    assert rendering.alpha is not None
    return rendering.images[0], rendering.alpha[0, :, 0]


@pytest.fixture(scope="module")
def ball_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of opaque Gaussians on a painted ball of radius 0.6, and their PLY."""
    folder = tmp_path_factory.mktemp("ball")
    points = torch.randn((3000, 3), generator=torch.Generator().manual_seed(1))
    points = 0.6 * torch.nn.functional.normalize(points, dim=-1)
    colours = torch.where(
        points[:, 2:] > 0, torch.tensor([0.95, 0.05, 0.05]), torch.tensor([0.05, 0.05, 0.95])
    )
    write_ply(
        folder / "g.ply", points, torch.tensor([1.0, 0, 0, 0]).repeat(3000, 1), torch.full((3000, 3), 0.02),
        torch.full((3000,), 0.95), colours,
    )  # fmt: skip
    run(settings(init=folder / "g.ply", steps=2, out=folder / "run"), console=quiet())
    return folder / "run"


@pytest.mark.parametrize("start", ["", "object.ply"])
@pytest.mark.parametrize("backbone", [pytest.param("nerf", marks=pytest.mark.slow), "mesh"])
def test_gaussians_keep_place_size_and_colours_in_other_backbones(backbone: str, start: str, ball_run: Path):
    """Neither larger, nor moved, nor paler, whether they are given as a run or as its file."""
    values = {"extraction": {**SMALL_MESH, "faces": 3000}} if backbone == "mesh" else {}
    one = begun(backbone=backbone, init=ball_run / start, **values)
    (image, alpha), (expected, covered) = surface_of(one), surface_of(load_objects(ball_run, quiet())[0])
    a, b = alpha > 0.5, covered > 0.5
    assert (a & b).sum() > 0.95 * (a | b).sum()
    assert float(a.sum() / b.sum()) == pytest.approx(1, abs=0.04)
    saturation, wanted = ((of.amax(1) - of.amin(1))[a & b].mean() for of in (image, expected))
    assert float(saturation) > 0.93 * float(wanted)


@pytest.mark.parametrize(
    "gaussians",
    [{"prune_screen_size": 0.5}, {"sh_degree": 1}, {"strategy": "mcmc"}],
    ids=lambda values: next(iter(values)),
)
def test_other_settings_leave_the_gaussians_as_they_are(gaussians: dict[str, Any], ball_run: Path):
    [before] = load_objects(ball_run, quiet())
    after = begun(init=ball_run, gaussians=gaussians)
    assert isinstance(before, GaussianScene)
    assert isinstance(after, GaussianScene)
    for name in ("means", "log_scales", "quats", "opacity_logits", "colour_logits"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    assert torch.equal(surface_of(before)[0], surface_of(after)[0])


def test_statistics_of_another_run_are_not_taken_over(ball_run: Path):
    [before] = load_objects(ball_run, quiet())
    after = begun(init=ball_run)
    assert isinstance(before, GaussianScene)
    assert isinstance(after, GaussianScene)
    assert before.gradient_count.sum() > 0
    assert after.gradient_count.sum() == after.gradient_sum.sum() == 0


def test_harmonics_are_padded_and_cut(tmp_path: Path):
    degrees = {"initial_gaussians": 50, "sh_degree": 2, "sh_degree_every": 0}
    run(settings(gaussians=degrees, out=tmp_path / "run"), console=quiet())
    [before] = load_objects(tmp_path / "run", quiet())
    more = begun(init=tmp_path / "run", gaussians={**degrees, "sh_degree": 3, "sh_degree_every": 100})
    less = begun(init=tmp_path / "run", gaussians={**degrees, "sh_degree": 1})
    assert isinstance(before, GaussianScene)
    assert isinstance(more, GaussianScene)
    assert isinstance(less, GaussianScene)
    assert before.harmonics.any()
    assert torch.equal(more.harmonics[:, :8], before.harmonics)
    assert not more.harmonics[:, 8:].any()
    assert more.degree == 2
    assert torch.equal(less.harmonics, before.harmonics[:, :3])


def test_the_limit_of_gaussians_holds_for_a_run_as_for_its_file(ball_run: Path):
    few = {"initial_gaussians": 10, "max_gaussians": 100}
    for start in ("", "object.ply"):
        with pytest.raises(
            ValueError, match="holds 3,000 Gaussians, max_gaussians is 100: raise max_gaussians"
        ):
            begun(init=ball_run / start, gaussians=few)


def test_narrow_bounds_are_kept_to(ball_run: Path, tmp_path: Path):
    """By runs, files of Gaussians, meshes: none starts where it would be removed."""
    narrow = {"initial_radius": 0.3, "initial_gaussians": 300, "bounds": 0.5}
    for start in (ball_run, ball_run / "object.ply", painted_ball(tmp_path / "ball.ply", "closed")):
        one = begun(init=start, gaussians=narrow)
        assert isinstance(one, GaussianScene)
        assert float(one.means.detach().norm(dim=-1).max()) == pytest.approx(0.5, abs=0.002)
        assert float(one.means.detach().norm(dim=-1).max()) < 0.5


@pytest.mark.parametrize("start", ["", "object.ply"])
@pytest.mark.parametrize("resolution", [64, 128, 256])
def test_other_resolutions_show_the_same_gaussians(resolution: int, start: str, ball_run: Path):
    [before] = load_objects(ball_run, quiet())
    one = begun(init=ball_run / start, camera={"resolution": (resolution,)})
    error = (surface_of(one, 256)[0] - surface_of(before, 256)[0]).square().mean()
    assert -10 * torch.log10(error) > 35  # dB; blur that was of pixels is that at the origin everywhere


def test_a_milestone_at_the_end_is_of_no_step(tmp_path: Path):
    """The blur in files is that of pictures that were trained from."""
    grown = {"camera": {"resolution": (16, 64), "milestones": (2,)}}
    for name, values in (("grown", grown), ("plain", {"camera": {"resolution": (16,)}})):
        small = {"gaussians": {"initial_gaussians": 100}, "steps": 2, "out": tmp_path / name}
        run(settings(**small, **values), console=quiet())
    files = [(tmp_path / name / "object.ply").read_bytes() for name in ("grown", "plain")]
    assert files[0] == files[1]
    [one] = load_objects(tmp_path / "grown", quiet())
    assert one.resolution == 16


# --- a NeRF of another run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other", [{"occupancy_resolution": 12}, {"environment": True}, {"samples_per_ray": 24}], ids=str
)
def test_other_settings_leave_the_nerf_as_it_is(other: dict[str, Any], tmp_path: Path):
    run(settings(backbone="nerf", nerf=SMALL_NERF, out=tmp_path / "run"), console=quiet())
    [before] = load_objects(tmp_path / "run", quiet())
    after = begun(backbone="nerf", nerf={**SMALL_NERF, **other}, init=tmp_path / "run")
    points = 2 * torch.rand((500, 3), generator=torch.Generator().manual_seed(0)) - 1
    assert torch.equal(before.density(points), after.density(points))
    assert torch.equal(before.colour(points), after.colour(points))


@pytest.mark.slow
def test_a_nerf_of_another_build_is_fitted_anew_and_that_is_told(tmp_path: Path):
    run(settings(backbone="nerf", nerf=SMALL_NERF, out=tmp_path / "run"), console=quiet())
    quick = {**SMALL_MESH, "level_views": 2, "silhouette_views": 0}
    values = {"backbone": "nerf", "init": tmp_path / "run", "extraction": quick}
    given = settings(**values, nerf={**SMALL_NERF, "growth": 1.4}).resolved()
    objects, console = make_objects(given), quiet()
    begin_from(given, objects, console)
    assert "of another build (growth): a mesh is made of it" in said(console)


@pytest.mark.slow
def test_gaussians_that_reach_out_of_the_ball_become_a_smaller_nerf(tmp_path: Path):
    """A bar of Gaussians, 2.4 long; a NeRF is in the ball of radius 1."""
    x, y, z = torch.meshgrid(
        torch.linspace(-1.2, 1.2, 41), *2 * [torch.linspace(-0.2, 0.2, 7)], indexing="ij"
    )
    means = torch.stack([x.flatten(), y.flatten(), z.flatten()], -1)
    quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(len(means), 1)
    write_ply(
        tmp_path / "bar.ply", means, quats, torch.full_like(means, 0.035), torch.full((len(means),), 0.9),
        torch.full_like(means, 0.3),
    )  # fmt: skip
    wide = {
        "gaussians": {"bounds": 1.4},
        "backbone": "nerf",
        "nerf": SMALL_NERF,
        "init": tmp_path / "bar.ply",
    }
    given = settings(**wide, extraction={**SMALL_MESH, "level_views": 4, "silhouette_views": 0}).resolved()
    objects, console = make_objects(given), quiet()
    begin_from(given, objects, console)
    assert "reaches out of the ball of radius 1" in said(console)
    _, side = seen(objects[0], 90)
    long, high = (side > 0.5).any(0).sum(), (side > 0.5).any(1).sum()
    assert 36 < long <= 48
    assert 4 < long / high < 8


# --- textures -----------------------------------------------------------------------------------------------


def test_the_atlas_is_made_for_the_texture_that_is_painted(finished: Path):
    """A size that is no other's: padding between charts is of this many texels."""
    values = {"backbone": "mesh", "init": finished}
    one = begun(**values, mesh={"texture_size": 32}, extraction={**SMALL_MESH, "texture_size": 256})
    alike = begun(**values, extraction={**SMALL_MESH, "texture_size": 32})
    assert isinstance(one, MeshScene)
    assert isinstance(alike, MeshScene)
    assert one.texture().shape == (3, 32, 32)
    assert torch.equal(one.uvs, alike.uvs)


def test_too_many_faces_for_so_small_a_texture(finished: Path):
    """Then the atlas is that of the extraction's size."""
    extraction = {**SMALL_MESH, "atlas_faces": 0, "texture_size": 256}
    one = begun(backbone="mesh", init=finished, mesh={"texture_size": 16}, extraction=extraction)
    assert isinstance(one, MeshScene)
    assert one.texture().shape == (3, 16, 16)


def test_a_texture_is_refined_and_the_shape_stays(finished: Path, tmp_path: Path):
    values = {
        "backbone": "mesh",
        "init": finished,
        "extraction": SMALL_MESH,
        "loss": "refine",
        "rollout_steps": 2,
    }
    given = settings(**values, steps=2, checkpoint_every=1, out=tmp_path / "texture")
    start = begun(**values)
    run(given, console=quiet())
    [end] = load_objects(tmp_path / "texture", quiet())
    assert isinstance(start, MeshScene)
    assert isinstance(end, MeshScene)
    assert torch.equal(start.vertices, end.vertices)
    assert not torch.equal(start.texture(), end.texture())
    assert (tmp_path / "texture" / "object.glb").is_file()


def test_the_preset_texture_takes_a_run(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    small = [
        "--extraction.resolution",
        "40",
        "--extraction.texture-size",
        "64",
        "--extraction.bake-views",
        "8",
    ]
    small += [
        "--steps",
        "1",
        "--rollout-steps",
        "1",
        "--weighting",
        "none",
        "--video-frames",
        "2",
        "--device",
        "cpu",
    ]
    given = [
        "3d",
        "a red cube",
        "--preset",
        "texture",
        "--init",
        str(finished),
        "--out",
        str(tmp_path / "run"),
    ]
    assert main([*given, *small]) == 0
    assert "object.glb" in capsys.readouterr().out
    assert main(["3d", "a red cube", "--preset", "texture"]) == 2
    assert "init" in capsys.readouterr().err


def test_what_it_started_from_is_not_needed_to_go_on(tmp_path: Path):
    box = two_coloured_box(tmp_path / "box.ply")
    values = {"init": box, "gaussians": {"initial_gaussians": 300}, "checkpoint_every": 1}
    run(settings(**values, steps=2, out=tmp_path / "whole"), console=quiet())
    run(settings(**values, steps=2, out=tmp_path / "cut"), console=quiet())
    for name in ("results.json", "checkpoints/step_000002.safetensors"):
        (tmp_path / "cut" / name).unlink()
    box.unlink()
    resume(tmp_path / "cut", console=quiet())
    last = "checkpoints/step_000002.safetensors"
    assert (tmp_path / "cut" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "missing.glb",
            None,
            "there is no such file or folder: give a mesh, a point cloud or Gaussians (.glb",
        ),
        ("penguin", None, "there is no such file or folder: give a mesh"),
        ("text.obj", b"hello", "text.obj"),
        ("shape.fbx", b"hello", "expected a file that ends in"),
        ("broken.ply", b"ply\nformat ascii 1.0\n", "broken.ply"),
    ],
)
def test_what_is_no_shape_is_told_before_anything_is_written(
    name: str, content: bytes | None, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    given = [
        "3d",
        "a red cube",
        "--init",
        str(tmp_path / name),
        "--out",
        str(tmp_path / "run"),
        "--steps",
        "1",
    ]
    assert main([*given, "--device", "cpu", "--weighting", "none"]) in (1, 2)
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_run_is_no_start(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"holds no run \(no settings.yaml\): give the folder of a 3D run, or a mesh"
    ):
        begun(init=tmp_path)


def test_gaussians_that_cannot_be_seen_are_no_start(tmp_path: Path):
    with pytest.raises(ValueError, match=r"initial_opacity.*0\.0039"):
        settings(gaussians={"initial_opacity": 0.003}).resolved()
    ones = torch.ones((50, 3))
    write_ply(tmp_path / "g.ply", 0.3 * ones, torch.ones((50, 4)), 0.1 * ones, torch.full((50,), 2e-9), ones)
    with pytest.raises(ValueError, match="no Gaussian can be seen"):
        begun(init=tmp_path / "g.ply")


def test_gaussians_that_vanish_stop_the_run_with_its_state_saved(tmp_path: Path):
    """What weighs their opacity is far too strong."""
    heavy = {"initial_gaussians": 100, "opacity_weight": 1e6, "opacities_learning_rate": 1.0}
    out = tmp_path / "run"
    with pytest.raises(
        ValueError, match=r"nothing is seen of the Gaussians any more.*the state before it is in"
    ):
        run(settings(gaussians=heavy, steps=30, checkpoint_every=100, out=out), console=quiet())
    [one] = load_objects(out, quiet())
    assert isinstance(one, GaussianScene)
    assert 0 < one.step < 30
    assert not (out / "results.json").exists()


def test_a_texture_needs_a_shape(capsys: pytest.CaptureFixture[str]):
    assert main(["3d", "a red cube", "--backbone", "mesh"]) == 2
    assert "init" in capsys.readouterr().err


# --- pictures -----------------------------------------------------------------------------------------------


def pictures_run(out: Path, **values: Any) -> None:
    common = {name: SMALL_3D[name] for name in ("device", "threads", "weighting", "previews_every")}
    given = {"prompt": "a red cube", "steps": 1, "learning_rate": 1e-6, **common, **values}
    run(TextToImageSettings(**given, out=out), console=quiet())


def test_a_picture_starts_from_a_picture(tmp_path: Path):
    """With next to no learning rate the result is the picture, through the prior's autoencoder."""
    box = torch.full((3, 64, 64), 0.9)
    box[:, 16:48, 16:48] = torch.tensor([0.8, 0.1, 0.1])[:, None, None]
    save_png(box, tmp_path / "box.png")
    pictures_run(tmp_path / "run", init=tmp_path / "box.png", particles=2)
    for seed in (0, 1):
        made = torch.from_numpy(np.asarray(Image.open(tmp_path / "run" / f"image_{seed}.png")) / 255.0)
        assert (made.permute(2, 0, 1) - box).abs().mean() < 0.05


def test_noise_may_be_added_to_the_picture(tmp_path: Path):
    save_png(torch.full((3, 64, 64), 0.9), tmp_path / "plain.png")
    spreads = []
    for scale in (0.0, 1.0):
        pictures_run(tmp_path / str(scale), init=tmp_path / "plain.png", init_scale=scale)
        spreads.append(np.asarray(Image.open(tmp_path / str(scale) / "image.png")).std())
    assert spreads[1] > 5 * spreads[0]


def test_a_picture_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = ["image", "a red cube", "--init", str(tmp_path / "a.png"), "--out", str(tmp_path / "run")]
    assert main([*given, "--weighting", "none", "--device", "cpu"]) == 1
    assert "a.png: there is no such file; give a PNG, JPEG or WebP file" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_picture_that_is_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.png").write_bytes(b"no picture")
    out = tmp_path / "run"
    assert main(["image", "a red cube", "--init", str(tmp_path / "a.png"), "--out", str(out)]) == 1
    assert "is no picture" in capsys.readouterr().err
    assert not out.exists()
