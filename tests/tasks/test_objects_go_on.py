"""3D runs that go on: their files are those of an undisturbed run, and what they need to go on is found again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fake_task import SMALL_3D, quiet
from rewardsds.cli import main
from rewardsds.errors import SettingsError
from rewardsds.scenes.export import turntable_cameras
from rewardsds.tasks.run import resume, run
from rewardsds.tasks.settings import TextTo3DSettings

COMMON: dict[str, Any] = {
    **SMALL_3D,
    "video_size": 64,
    "checkpoint_every": 1,
    "gaussians": {"initial_gaussians": 200, "initial_opacity": 0.6},
}


def settings(**values: Any) -> TextTo3DSettings:
    return TextTo3DSettings(**{**COMMON, "steps": 2, **values})


def files(run: Path) -> dict[str, bytes]:
    """What a run leaves for others."""
    return {path.name: path.read_bytes() for path in run.iterdir() if path.suffix in (".ply", ".png", ".mp4")}


@pytest.mark.parametrize("particles", [1, 2])
def test_a_run_without_steps_left_writes_the_files_of_an_undisturbed_one(particles: int, tmp_path: Path):
    """The pictures grow in the last step, and with them the blur that files hold."""
    camera = {"resolution": (16, 64), "milestones": (1,)}
    run(settings(camera=camera, particles=particles, out=tmp_path / "run"), console=quiet())
    whole = files(tmp_path / "run")
    assert len(whole) == 3 * particles
    for name in ("results.json", *whole):
        (tmp_path / "run" / name).unlink()
    resume(tmp_path / "run", console=quiet())
    assert files(tmp_path / "run") == whole


# --- cameras from a file ------------------------------------------------------------------------------------


def trajectory(path: Path) -> Path:
    frames = [{"transform_matrix": pose.tolist()} for pose in turntable_cameras(6).camera_to_world[0]]
    path.write_text(json.dumps({"camera_angle_x": 0.6, "frames": frames}))
    return path


def test_a_trajectory_is_needed_until_a_run_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Given by a path from the folder of then; the run goes on from elsewhere, and is exported without it."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(home)
    file = trajectory(home / "cameras.json")
    folder = tmp_path / "run"
    run(settings(camera={"trajectory": "cameras.json"}, out=folder), console=quiet())
    whole = files(folder)
    last = (folder / "checkpoints/step_000002.safetensors").read_bytes()
    monkeypatch.chdir(elsewhere)
    for name in ("results.json", "checkpoints/step_000002.safetensors"):
        (folder / name).unlink()
    resume(folder, console=quiet())
    assert files(folder) == whole
    assert (folder / "checkpoints/step_000002.safetensors").read_bytes() == last
    file.unlink()
    assert main(["export", str(folder), "--to", "ply", "--out", "o.ply"]) == 0
    assert Path("o.ply").read_bytes() == whole["object.ply"]
    assert main(["export", str(folder), "--to", "png", "--size", "64", "--out", "o.png"]) == 0
    capsys.readouterr()
    (folder / "results.json").unlink()
    assert main(["resume", str(folder)]) == 1  # unfinished, as far as it knows
    assert f"no file of cameras {file}" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_bad_trajectory_is_told_before_anything_is_written(content: str | None, tmp_path: Path):
    if content is not None:
        (tmp_path / "cameras.json").write_text(content)
    given = settings(camera={"trajectory": tmp_path / "cameras.json"}, out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"cameras\.json"):
        run(given, console=quiet())
    assert not (tmp_path / "run").exists()


def test_single_views_are_those_of_dreamfusion_unless_told_otherwise(tmp_path: Path):
    small = [
        *("--steps", "1", "--weighting", "none", "--device", "cpu", "--threads", "1"),
        *("--video-frames", "1", "--video-size", "16"),
    ]
    given = ["3d", "a red cube", "--camera.sampling", "single", "--out", str(tmp_path / "run"), *small]
    assert main(given) == 0
    camera = yaml.safe_load((tmp_path / "run/settings.yaml").read_text())["camera"]
    assert (camera["elevation"], camera["field_of_view"]) == ([-10.0, 90.0], [40.0, 70.0])


# --- a machine without a GPU --------------------------------------------------------------------------------


@pytest.fixture
def made_on_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run that says it was made on a GPU, on a machine that has none."""
    folder = tmp_path / "run"
    run(settings(steps=1, out=folder), console=quiet())
    said = (folder / "settings.yaml").read_text()
    (folder / "settings.yaml").write_text(said.replace("device: cpu", "device: cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    return folder


def test_a_run_made_on_a_gpu_is_exported_without_one(
    made_on_cuda: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    export = ["export", str(made_on_cuda), "--to", "splat", "--out"]
    assert main([*export, str(tmp_path / "a.splat")]) == 0
    assert main([*export, str(tmp_path / "b.splat"), "--device", "cpu"]) == 0
    assert (tmp_path / "a.splat").read_bytes() == (tmp_path / "b.splat").read_bytes()
    assert main([*export, str(tmp_path / "c.splat"), "--device", "cuda"]) == 2
    assert "no CUDA GPU" in capsys.readouterr().err
    assert main([*export, str(tmp_path / "c.splat"), "--device", "gpu"]) == 2
    assert "device is 'gpu'" in capsys.readouterr().err


def test_a_run_starts_on_the_cpu_from_one_made_on_a_gpu(made_on_cuda: Path, tmp_path: Path):
    run(settings(steps=1, init=made_on_cuda, out=tmp_path / "next"), console=quiet())
    assert (tmp_path / "next/object.ply").is_file()


def test_a_run_goes_on_on_its_own_kind_of_device(made_on_cuda: Path, tmp_path: Path):
    (made_on_cuda / "results.json").unlink()
    with pytest.raises(SettingsError) as error:
        resume(made_on_cuda, console=quiet())
    said = str(error.value)
    assert "torch sees no CUDA GPU" in said
    assert "--device" not in said  # resume has no such option
    assert f"device: cpu into {made_on_cuda / 'settings.yaml'}" in said
    # what is advised helps
    path = shutil.copytree(made_on_cuda, tmp_path / "advised") / "settings.yaml"
    path.write_text(path.read_text().replace("device: cuda", "device: cpu"))
    resume(tmp_path / "advised", console=quiet())
