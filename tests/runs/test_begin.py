"""`Job.begin` brings a scene to its start: for new runs, and for none that goes on from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fake_task import Stop, build_tiny, resume_tiny, start_tiny
from rewardsds.runs.loop import Job
from rewardsds.runs.settings import RunSettings


class Counting:
    """`build_tiny` whose scene starts from ones; stops with an accident before `stop_at`."""

    def __init__(self, stop_at: int | None = None):
        self.begun, self.stop_at = 0, stop_at

    def __call__(self, settings: RunSettings) -> Job:
        job = build_tiny(settings)
        scene = job.scene
        before_step = scene.before_step

        def begin() -> None:
            self.begun += 1
            scene.load_state_dict({"latents": torch.ones_like(scene.state_dict()["latents"])})

        def accident(step: int, optimizer: torch.optim.Optimizer) -> None:
            if step == self.stop_at:
                raise Stop
            before_step(step, optimizer)

        job.begin = begin
        scene.before_step = accident  # pyright: ignore[reportAttributeAccessIssue]
        return job


def final(folder: Path) -> bytes:
    return (folder / "checkpoints" / "step_000012.safetensors").read_bytes()


def test_a_new_run_begins_where_it_is_told(tmp_path):
    build = Counting()
    start_tiny(tmp_path / "told", build)
    start_tiny(tmp_path / "usual")
    assert build.begun == 1
    assert final(tmp_path / "told") != final(tmp_path / "usual")


@pytest.mark.parametrize(("stop_at", "begun"), [(6, 0), (2, 1)])
def test_what_goes_on_from_a_checkpoint_does_not_begin_again(tmp_path, stop_at: int, begun: int):
    """Checkpoints are written every four steps."""
    start_tiny(tmp_path / "whole", Counting())
    with pytest.raises(Stop):
        start_tiny(tmp_path / "stopped", Counting(stop_at))
    build = Counting()
    resume_tiny(tmp_path / "stopped", build)
    assert build.begun == begun
    assert final(tmp_path / "stopped") == final(tmp_path / "whole")


def test_a_start_that_fails_leaves_no_folder(tmp_path):
    def build(settings: RunSettings) -> Job:
        job = build_tiny(settings)

        def begin() -> None:
            raise ValueError("no such shape")

        job.begin = begin
        return job

    with pytest.raises(ValueError, match="no such shape"):
        start_tiny(tmp_path / "run", build)
    assert not (tmp_path / "run").exists()
