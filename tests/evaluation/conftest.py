"""Pictures whose scores are known by hand, and short real runs of every task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from painted import paint

from fake_task import quiet
from rewardsds.scenes.gaussians.settings import GaussianSettings
from rewardsds.tasks.run import run
from rewardsds.tasks.settings import EditSettings, TextTo3DSettings, TextToImageSettings

REDNESS = '''
"""Rewards that can be computed by hand."""

calls = []


def red(images, prompts):
    """The share of red, 0 to 1."""
    calls.append(tuple(images.shape))
    return images[:, :, :, 0].mean(dim=(2, 3, 4))


def squares_only(images, prompts):
    if images.shape[-1] != images.shape[-2]:
        raise RuntimeError("only squares")
    return red(images, prompts)


def not_white(images, prompts):
    if (images > 0.9).any():
        raise RuntimeError("too bright")
    return red(images, prompts)


def gone(images, prompts):
    red(images, prompts)
    raise ConnectionError("nobody is there")
'''


@pytest.fixture
def redness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a metric: the mean of the red channel. The current folder is a new one."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "hand.py").write_text(REDNESS)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(__import__("sys").modules, "hand", raising=False)
    return "hand:red"


SOLID = GaussianSettings(initial_gaussians=200, initial_opacity=0.6, initial_radius=0.5, initial_scale=1.0)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_prior_folder: Path, tiny_clip_folder: Path) -> Path:
    """Runs of two methods: plain/batch (two prompts × two seeds), plain/edit, weighted/one, and plain/cube and
    weighted/cube (3D, of one and of two objects)."""
    folder = tmp_path_factory.mktemp("study")
    tiny: dict[str, Any] = {
        "prior": str(tiny_prior_folder), "reward": str(tiny_clip_folder), "device": "cpu", "threads": 1, "steps": 2,
        "previews_every": 0, "candidate_previews": 0,
    }  # fmt: skip
    plain, weighted = {**tiny, "weighting": "none"}, {**tiny, "candidates": 2}
    two = ("a red apple", "a green car")
    small: dict[str, Any] = {"video_frames": 2, "video_size": 16, "gaussians": SOLID}
    before = paint(tmp_path_factory.mktemp("given") / "before.png", 200)
    for settings in (
        TextToImageSettings(**plain, prompts=two, particles=2, seed=3, out=folder / "plain/batch"),
        TextToImageSettings(**weighted, prompt="a red apple", out=folder / "weighted/one"),
        EditSettings(
            **plain, picture=before, source="a red apple", target="a green apple", out=folder / "plain/edit"
        ),
        TextTo3DSettings(**plain, **small, prompt="a red apple", seed=5, out=folder / "plain/cube"),
        TextTo3DSettings(
            **weighted, **small, prompt="a red apple", particles=2, out=folder / "weighted/cube"
        ),
    ):
        run(settings, console=quiet())
    return folder
