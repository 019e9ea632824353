"""Whole runs with a NeRF, on a prior whose score is known in closed form."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from fake_task import quiet, redness, tiny_prior
from oracles import GaussianMixturePrior
from rewardsds.errors import Interrupted
from rewardsds.scenes.nerf.scene import NeRFScene
from rewardsds.tasks import parts
from rewardsds.tasks.run import resume, run
from rewardsds.tasks.settings import TextTo3DSettings

VALUES: dict[str, Any] = {
    "prior": "tiny",
    "prompt": "red",
    "backbone": "nerf",
    "nerf": {"levels": 3, "occupancy_every": 2, "occupancy_resolution": 8, "environment": True},
    "camera": {"resolution": [8], "groups": [2]},
    "particles": 2,
    "steps": 5,
    "threads": 1,
    "video_size": 16,
    "video_frames": 2,
    "view_prompts": {"use": "off"},
}


class Prior(GaussianMixturePrior):
    """The oracle, which has nothing that could be saved."""

    def in_chunks(self, size: object) -> None: ...
    def rest_text_encoders(self) -> None: ...


@pytest.fixture(autouse=True)
def _tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "load_prior", lambda *given: Prior(tiny_prior(8).mixtures))
    monkeypatch.setattr(parts, "load_reward", lambda *given, **options: redness)


def digest(folder: Path) -> str:
    return json.loads((folder / "results.json").read_text())["scene_sha256"]


def test_a_run_of_two_objects_resumes_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(TextTo3DSettings(**VALUES, out=whole), console=quiet())

    before_step = NeRFScene.before_step

    def interrupted(self: NeRFScene, step: int, optimizer: Any) -> None:
        if step == 2 and not stopped.joinpath("results.json").exists():
            monkeypatch.setattr(NeRFScene, "before_step", before_step)
            signal.raise_signal(signal.SIGINT)
        before_step(self, step, optimizer)

    monkeypatch.setattr(NeRFScene, "before_step", interrupted)
    with pytest.raises(Interrupted, match="after step 3 of 5"):
        run(TextTo3DSettings(**VALUES, out=stopped), console=quiet())
    resume(stopped, console=quiet())
    assert digest(stopped) == digest(whole)


def test_a_nerfs_results_are_pictures(tmp_path: Path) -> None:
    settings = TextTo3DSettings(**{**VALUES, "particles": 1, "steps": 1}, out=tmp_path / "run")
    names = {path.name for path in run(settings, console=quiet()).files}
    assert {"turntable.mp4", "views.png"} <= names
    assert not any(name.endswith(".ply") for name in names)
