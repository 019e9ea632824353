"""`rewardsds export` on real, short runs: files that other programs open, and what is said where there are none."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import plyfile
import pytest
import torch
import trimesh
from PIL import Image

from fake_task import SMALL_3D, quiet
from rewardsds.cli import main
from rewardsds.runs import checkpoint
from rewardsds.scenes.gaussians.settings import GaussianSettings
from rewardsds.tasks.run import run
from rewardsds.tasks.settings import TextTo3DSettings

SOLID = GaussianSettings(initial_gaussians=400, initial_opacity=0.6, initial_radius=0.5, initial_scale=1.0)
FAST_MESH = ["--mesh.resolution", "32", "--mesh.texture-size", "64", "--mesh.faces", "500"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "cube"
    run(TextTo3DSettings(**SMALL_3D, steps=2, gaussians=SOLID, out=folder), console=quiet())  # pyright: ignore
    return folder


def exported(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[Path]:
    capsys.readouterr()
    assert main(["export", *map(str, arguments)]) == 0
    return [Path(line) for line in capsys.readouterr().out.splitlines()]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What is said instead; it is one line."""
    capsys.readouterr()
    assert main(["export", *map(str, arguments)]) in (1, 2)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said


def test_turntable_as_asked(finished, tmp_path, capsys):
    look = ["--size", "32", "--seconds", "0.5", "--fps", "12", "--background", "1", "0", "0"]
    [file] = exported(capsys, finished, "--to", "mp4", "--out", tmp_path / "turn.mp4", *look)
    with av.open(str(file)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 12
    assert [frame.shape for frame in frames] == [(32, 32, 3)] * 6
    corner = frames[0][0, 0].astype(int)
    assert corner[0] > 220
    assert corner[1:].max() < 40


def test_gif_repeats_and_takes_its_time(finished, tmp_path, capsys):
    look = ["--size", "32", "--seconds", "1", "--fps", "6"]
    [file] = exported(capsys, finished, "--to", "gif", "--out", tmp_path / "turn.gif", *look)
    with Image.open(file) as animation:
        assert animation.n_frames == 6  # pyright: ignore[reportAttributeAccessIssue]
        assert animation.info["loop"] == 0
        lengths = []
        for index in range(6):
            animation.seek(index)
            lengths.append(animation.info["duration"])
    assert sum(lengths) == 1000


def test_sheet_of_views(finished, tmp_path, capsys):
    [file] = exported(
        capsys, finished, "--to", "png", "--out", tmp_path / "v.png", "--views", "3", "--size", "32"
    )
    assert Image.open(file).size == (4 + 3 * 36, 4 + 32 + 16 + 4)


def test_elevation_and_distance_change_the_view(finished, tmp_path, capsys):
    def sheet(name: str, *look: str) -> np.ndarray:
        common = ["--views", "1", "--size", "64"]
        [file] = exported(capsys, finished, "--to", "png", "--out", tmp_path / name, *common, *look)
        return np.asarray(Image.open(file)).astype(int)[4:68, 4:68]

    near, far = sheet("near.png"), sheet("far.png", "--relative-distance", "3")
    behind = near[0, 0]
    assert (np.abs(near - behind).max(-1) > 8).sum() > 3 * (np.abs(far - behind).max(-1) > 8).sum() > 0
    assert not np.array_equal(near, sheet("above.png", "--elevation", "80"))


def test_gaussians_as_ply_are_those_of_the_run(finished, tmp_path, capsys):
    [file] = exported(capsys, finished, "--to", "ply", "--out", tmp_path / "o.ply")
    again, own = plyfile.PlyData.read(file)["vertex"], plyfile.PlyData.read(finished / "object.ply")["vertex"]
    assert len(again.data) > 100
    assert np.array_equal(again.data, own.data)


def test_splat_has_a_record_for_every_gaussian(finished, tmp_path, capsys):
    [file] = exported(capsys, finished, "--to", "splat", "--out", tmp_path / "o.splat")
    assert file.stat().st_size == 32 * len(plyfile.PlyData.read(finished / "object.ply")["vertex"].data)


@pytest.mark.parametrize("to", ["glb", "obj"])
def test_meshes_open_in_trimesh(to, finished, tmp_path, capsys):
    [file] = exported(capsys, finished, "--to", to, "--out", tmp_path / f"o.{to}", *FAST_MESH)
    mesh = trimesh.load(file, force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    assert 50 < len(mesh.faces) <= 500
    assert np.abs(mesh.vertices).max() < 1.0
    visual: Any = mesh.visual
    assert visual.uv.shape == (len(mesh.vertices), 2)


def test_page_holds_everything_itself(finished, tmp_path, capsys):
    [file] = exported(capsys, finished, "--to", "html", "--out", tmp_path / "o.html", *FAST_MESH)
    text = file.read_text(encoding="utf-8")
    assert "a red cube" in text
    assert 'src="http' not in text
    assert 'href="http' not in text


def test_without_out_it_lies_in_the_run(finished, capsys):
    [file] = exported(capsys, finished, "--to", "gif", "--size", "16", "--seconds", "0.1")
    assert file == finished / "turntable.gif"
    file.unlink()


def test_a_stopped_run_is_exported_from_its_checkpoint(finished, tmp_path, capsys):
    stopped = tmp_path / "stopped"
    shutil.copytree(finished, stopped)
    (stopped / "results.json").unlink()
    [file] = exported(capsys, stopped, "--to", "ply", "--out", tmp_path / "o.ply")
    assert file.is_file()


def test_particles_are_files_of_their_own(tmp_path, capsys):
    folder = tmp_path / "two"
    settings = TextTo3DSettings(**SMALL_3D, steps=1, seed=4, particles=2, gaussians=SOLID, out=folder)  # pyright: ignore
    run(settings, console=quiet())
    files = exported(capsys, folder, "--to", "splat", "--out", tmp_path / "o.splat")
    assert [file.name for file in files] == ["o_4.splat", "o_5.splat"]
    assert files[0].read_bytes() != files[1].read_bytes()


# --- bad input ----------------------------------------------------------------------------------------------


def test_a_file_that_exists_is_kept_unless_forced(finished, tmp_path, capsys):
    file = tmp_path / "o.splat"
    file.write_text("mine")
    said = refused(capsys, finished, "--to", "splat", "--out", file)
    assert "exists" in said
    assert "--force" in said
    assert file.read_text() == "mine"
    exported(capsys, finished, "--to", "splat", "--out", file, "--force")
    assert file.stat().st_size > 32


@pytest.mark.parametrize("ending", ["png", "mtl", "obj"])
def test_no_file_beside_an_obj_is_replaced_unless_forced(ending, finished, tmp_path, capsys):
    mine = tmp_path / f"cube.{ending}"
    mine.write_text("mine")
    said = refused(capsys, finished, "--to", "obj", "--out", tmp_path / "cube.obj", *FAST_MESH)
    assert f"{mine} exists" in said
    assert list(tmp_path.iterdir()) == [mine]
    assert mine.read_text() == "mine"


def test_a_name_that_breaks_an_obj_is_told_before_the_work_is_done(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rewardsds.tasks.export.load_objects", None)
    said = refused(capsys, finished, "--to", "obj", "--out", tmp_path / "my cube.obj")
    assert "my cube.obj is no usable name" in said


def changed(run: Path, to: Path, name: str, value: float) -> Path:
    """A copy of a run with other values in a tensor of its newest checkpoint."""
    shutil.copytree(run, to)
    [newest, *_] = checkpoint.available(to / "checkpoints")
    found = checkpoint.load(newest)
    found.tensors[f"scene/{name}"] = torch.full_like(found.tensors[f"scene/{name}"], value)
    checkpoint.save(found, to / "checkpoints")
    return to


@pytest.mark.parametrize("to", ["mp4", "png", "ply"])
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("colour_logits", math.nan, "exploded"),
        ("opacity_logits", -30.0, "nothing is seen of the object"),
        ("means", 100.0, "nothing is seen of the object"),
        ("log_scales", 200.0, "nothing is seen of the object"),
    ],
)
def test_what_cannot_be_seen_is_not_exported(to, name, value, told, finished, tmp_path, capsys):
    broken = changed(finished, tmp_path / "broken", name, value)
    out = tmp_path / f"o.{to}"
    assert told in refused(capsys, broken, "--to", to, "--size", "32", "--seconds", "0.1", "--out", out)
    assert not out.exists()


@pytest.mark.parametrize("option", ["--azimuth", "--seconds", "--relative-distance", "--mesh.level"])
def test_numbers_must_be_numbers(option, finished, tmp_path, capsys):
    for value in ("nan", "inf"):
        said = refused(capsys, finished, "--to", "mp4", "--out", tmp_path / "o.mp4", option, value)
        assert "finite number" in said
        assert option.split(".")[-1].strip("-").replace("-", "_") in said
    assert list(tmp_path.iterdir()) == []


def test_an_ending_must_be_that_of_the_format(finished, tmp_path, capsys):
    assert "ends in .glb" in refused(capsys, finished, "--to", "glb", "--out", tmp_path / "o.obj")


def test_unknown_formats_are_told(finished, capsys):
    assert "fbx" in refused(capsys, finished, "--to", "fbx")


def test_no_run(tmp_path, capsys):
    assert "no run folder" in refused(capsys, tmp_path / "none", "--to", "glb")
    assert "not a run folder" in refused(capsys, tmp_path, "--to", "glb")


def test_a_run_of_pictures_has_no_object(tmp_path, capsys):
    (tmp_path / "settings.yaml").write_text("task: image\nprompt: a red cube\n")
    assert "no run of 3d" in refused(capsys, tmp_path, "--to", "glb")


def test_a_run_without_a_checkpoint(finished, tmp_path, capsys):
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(finished / "settings.yaml", begun)
    said = refused(capsys, begun, "--to", "ply", "--out", tmp_path / "o.ply")
    assert "no checkpoint" in said
    assert "rewardsds resume" in said


def test_a_checkpoint_of_other_settings(finished, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    text = (other / "settings.yaml").read_text()
    (other / "settings.yaml").write_text(text.replace("particles: 1", "particles: 2"))
    assert "does not fit" in refused(capsys, other, "--to", "ply", "--out", tmp_path / "o_.ply")


def test_nothing_is_left_of_a_failed_export(finished, tmp_path, capsys):
    """The level cannot be reached anywhere: there is no surface."""
    before = set(tmp_path.iterdir())
    said = refused(
        capsys, finished, "--to", "glb", "--out", tmp_path / "o.glb", *FAST_MESH, "--mesh.level", "1e9"
    )
    assert "level" in said
    assert set(tmp_path.iterdir()) == before


def test_a_finished_run_without_its_checkpoints_is_not_sent_to_resume(finished, tmp_path, capsys):
    emptied = tmp_path / "emptied"
    shutil.copytree(finished, emptied)
    for file in (emptied / "checkpoints").iterdir():
        file.unlink()
    said = refused(capsys, emptied, "--to", "png", "--out", tmp_path / "o.png")
    assert "rewardsds resume" not in said
    assert f"--config {emptied / 'settings.yaml'}" in said
    assert f"--init {emptied / 'object.ply'}" in said


@pytest.mark.parametrize(
    "to, options, told",
    [
        ("png", ["--size", "33", "--fps", "12"], "not used for png: --fps"),
        ("gif", ["--views", "3", "--size", "16", "--seconds", "0.1"], "not used for gif: --views"),
        ("ply", ["--size", "64", "--mesh.faces", "100"], "not used for ply: --size, --mesh.faces"),
        ("glb", ["--elevation", "3", *FAST_MESH], "not used for glb: --elevation"),
    ],
)
def test_options_without_effect_are_told(to, options, told, finished, tmp_path, capsys):
    out = tmp_path / f"o.{to}"
    capsys.readouterr()
    assert main(["export", str(finished), "--to", to, "--out", str(out), *options]) == 0
    assert told in capsys.readouterr().err.splitlines()[0]
    assert out.is_file()


def test_pictures_of_a_video_are_even_and_animations_not_endless(finished, tmp_path, capsys):
    said = refused(capsys, finished, "--to", "mp4", "--out", tmp_path / "o.mp4", "--size", "33")
    assert "size is 33: the pictures of an mp4 have an even number" in said
    said = refused(capsys, finished, "--to", "gif", "--out", tmp_path / "o.gif", "--size", "4096")
    assert "72 pictures of 4096 × 4096 pixels are too much for a gif" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_of_an_export_that_is_ended(number, finished, tmp_path):
    places = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-m", "rewardsds", "export", str(finished), "--to", "mp4", "--seconds", "600"]
    running = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out" / "o.mp4")], env=places, stderr=subprocess.PIPE, text=True
    )
    while not any((tmp_path / "out").iterdir()):
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert said.splitlines()[-1] == "rewardsds: error: stopped"
    assert not any((tmp_path / "out").iterdir())
    assert not list((tmp_path / "tmp").glob("rewardsds*"))
