"""A run that is stopped, killed or damaged and resumed ends as an undisturbed one does, to the bit."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rewardsds.runs.folder as folder_module
from fake_task import Stop, build_tiny, failing, quiet, redness, resume_tiny, said, signalling, start_tiny
from rewardsds.errors import (
    CheckpointError,
    Interrupted,
    NotFiniteError,
    RewardsdsError,
    RunFolderError,
    WriteError,
)
from rewardsds.rewards.base import RewardError
from rewardsds.rewards.compose import WeightedSum
from rewardsds.runs import checkpoint
from rewardsds.runs.loop import Job
from rewardsds.runs.settings import RunSettings, resolved_device


def contents(run: Path) -> dict[str, Any]:
    """All that a run decides. Times and memory differ between equal runs and are left out."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    results = json.loads((run / "results.json").read_text())
    timed = ("seconds", "seconds_by_stage", "peak_memory", "hardware")
    files = sorted(
        path.relative_to(run).as_posix()
        for path in run.rglob("*")
        if path.is_file() and path.name not in ("metrics.jsonl", "results.json", "report.html")
    )
    return {
        "metrics": [{key: value for key, value in line.items() if key != "seconds"} for line in lines],
        "results": {key: value for key, value in results.items() if key not in timed},
        "files": {name: (run / name).read_bytes() for name in files},
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    start_tiny(run)
    return contents(run)


def test_a_finished_run_has_all_its_files(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    assert [line["step"] for line in undisturbed["metrics"]] == list(range(12))
    assert {"settings.yaml", "image.png", "checkpoints/step_000012.safetensors"} <= undisturbed[
        "files"
    ].keys()
    checkpoints = [name for name in undisturbed["files"] if name.startswith("checkpoints/")]
    assert checkpoints == ["checkpoints/step_000008.safetensors", "checkpoints/step_000012.safetensors"]
    # 4 candidates, 1 view, 2 branches a step: the call at t serves the preview as well
    assert undisturbed["results"]["network_evaluations"] == 12 * 4 * 2


def test_the_picture_becomes_what_was_asked_for(tmp_path: Path) -> None:
    """Noise at first; after 120 steps near the prior's mean for "red", (0.9, 0.2, 0.2)."""
    from PIL import Image

    result = start_tiny(tmp_path / "run", steps=120, checkpoint_every=1000)
    picture = Image.open(result.folder / "image.png").convert("RGB")
    red, green, blue = (np.asarray(picture) / 255).mean(axis=(0, 1))
    assert red > 0.7
    assert green < 0.4
    assert blue < 0.4


@pytest.mark.parametrize("stop_at", [0, 1, 3, 4, 5, 8, 11])
def test_resumed_run_is_bit_identical(stop_at: int, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Stop):
        start_tiny(run, failing(lambda step: Stop() if step == stop_at else None))
    assert not (run / "results.json").exists()
    resume_tiny(run)
    assert contents(run) == undisturbed


def test_run_stopped_again_and_again_is_bit_identical(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Stop):
        start_tiny(run, failing(lambda step: Stop() if step == 5 else None))
    for again in (6, 9, 9, 11):
        with pytest.raises(Stop):
            resume_tiny(run, failing(lambda step, again=again: Stop() if step == again else None))
    resume_tiny(run)
    assert contents(run) == undisturbed


def test_run_stopped_while_it_writes_results_is_bit_identical(
    undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def build(settings: RunSettings) -> Job:
        job = build_tiny(settings)

        def export(folder: Path) -> list[str]:
            (folder / "image.png").write_bytes(b"half a pict")
            raise Stop

        job.export = export
        return job

    with pytest.raises(Stop):
        start_tiny(run, build)
    assert not (run / "image.png").exists()
    resume_tiny(run)
    assert contents(run) == undisturbed


def test_a_torn_last_line_of_metrics_is_no_obstacle(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Stop):
        start_tiny(run, failing(lambda step: Stop() if step == 6 else None))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "rew')
    resume_tiny(run)
    assert contents(run) == undisturbed


def test_a_batch_of_two_equals_two_runs(tmp_path: Path) -> None:
    start_tiny(tmp_path / "both", items=2)
    both = contents(tmp_path / "both")["metrics"]
    for item in range(2):
        single = tmp_path / f"single{item}"
        start_tiny(single, seed=item)
        for line, pair in zip(contents(single)["metrics"], both, strict=True):
            assert line["timesteps"] == [pair["timesteps"][item]]
            assert line["rewards"] == [[row[item]] for row in pair["rewards"]]


# --- stopped from outside -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [6, 11])  # 11: the last one
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_resume(
    number: signal.Signals, code: int, step: int, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"rewardsds resume {run}") as error:
        start_tiny(run, signalling(step, number))
    assert error.value.exit_code == code
    assert signal.getsignal(number) is before
    assert checkpoint.available(run / "checkpoints")[0].name == f"step_{step + 1:06}.safetensors"
    assert not (run / "results.json").exists()
    resume_tiny(run)
    ended = contents(run)
    # the extra checkpoint took the place of an older one; everything else is the same
    assert ended["metrics"] == undisturbed["metrics"]
    assert ended["files"] == undisturbed["files"]


KILLED = """
import sys, time
from pathlib import Path
from fake_task import failing, start_tiny

def slowly(step):
    time.sleep(0.02)

start_tiny(Path(sys.argv[1]), failing(slowly), steps=400, checkpoint_every=3, previews_every=5)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_process_resumes_bit_identically(seed: int, tmp_path: Path) -> None:
    """SIGKILL at a random moment, several times over, in real processes."""
    start_tiny(tmp_path / "whole", steps=400, checkpoint_every=3, previews_every=5)
    run = tmp_path / "run"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root / "tests")])}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(run)], env=environment)
    try:
        while not (run / "metrics.jsonl").exists():
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        time.sleep(0.3 + 0.37 * seed)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (run / "results.json").exists()
    resume_tiny(run)
    assert contents(run) == contents(tmp_path / "whole")


# --- damage -------------------------------------------------------------------------------------------------


def stopped(run: Path) -> list[Path]:
    """A run that was stopped in step 10; its checkpoints, newest first."""
    with pytest.raises(Stop):
        start_tiny(run, failing(lambda step: Stop() if step == 10 else None))
    return checkpoint.available(run / "checkpoints")


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    """One bit of the last tensor: the header is still in order."""
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


def flipped_header(data: bytes) -> bytes:
    return data.replace(b"steps_done", b"steps_dune", 1)


@pytest.mark.parametrize("damage", [cut, flipped, flipped_header, lambda data: b"", lambda data: b"x" * 9])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    damage: Callable[[bytes], bytes], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    newest, older = stopped(run)
    newest.write_bytes(damage(newest.read_bytes()))
    console = quiet()
    resume_tiny(run, console=console)
    assert f"{newest} is damaged" in said(console)
    assert "after step 4" in said(console)
    assert older.name == "step_000004.safetensors"
    assert contents(run) == undisturbed


def test_no_usable_checkpoint_is_an_error_that_says_so(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for path in stopped(run):
        path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(CheckpointError, match="all 2 are damaged"):
        resume_tiny(run)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped(run)
    settings = run / "settings.yaml"
    settings.write_text(settings.read_text().replace("items: 1", "items: 2"))
    with pytest.raises(CheckpointError, match="does not fit its settings"):
        resume_tiny(run)


def full_after(writes: int, real: Callable[..., Any]) -> Callable[..., Any]:
    left = [writes]

    def write(self: Any, *arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, *arguments)

    return write


def test_full_disk_at_a_checkpoint_keeps_the_one_before(
    undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    real = Path.write_bytes

    def write(self: Path, data: bytes) -> int:
        if "step_000008" in self.name:
            real(self, data[:100])
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return real(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write)
        with pytest.raises(WriteError, match=r"no space left on the disk.*step 4 is safe.*resume") as error:
            start_tiny(run)
    assert "\n" not in str(error.value)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_000004.safetensors"]
    resume_tiny(run)
    assert contents(run) == undisturbed


def test_full_disk_while_metrics_are_written(
    undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        writer = folder_module.MetricsWriter
        patch.setattr(writer, "write", full_after(6, writer.write))
        with pytest.raises(WriteError, match="step 4 is safe"):
            start_tiny(run)
    resume_tiny(run)
    assert contents(run) == undisturbed


def test_full_disk_before_anything_is_written_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", full_after(0, Path.write_bytes))
    with pytest.raises(WriteError, match="no space left"):
        start_tiny(tmp_path / "new" / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_full_device_while_metrics_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own error, not an imitation."""
    run = tmp_path / "run"
    real = folder_module.MetricsWriter
    monkeypatch.setattr("rewardsds.runs.loop.MetricsWriter", lambda path: real(Path("/dev/full")))
    with pytest.raises(WriteError, match="no space left on the disk: /dev/full"):
        start_tiny(run)


def test_not_a_number_stops_before_it_does_harm(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def build(settings: RunSettings) -> Job:
        job = build_tiny(settings)
        real = job.scene.regularisation

        def poisoned(rendering: Any) -> Any:
            job.scene.latents.steps_seen = getattr(job.scene.latents, "steps_seen", 0) + 1  # pyright: ignore
            bad = job.scene.latents.steps_seen == 7  # pyright: ignore
            return rendering.latents.sum() * math.nan if bad else real(rendering)

        job.scene.regularisation = poisoned  # pyright: ignore[reportAttributeAccessIssue]
        return job

    with pytest.raises(NotFiniteError, match="NaN or infinite in step 7"):
        start_tiny(run, build)
    saved = checkpoint.load(checkpoint.available(run / "checkpoints")[0])
    assert saved.steps_done == 6
    assert all(bool(t.isfinite().all()) for t in saved.tensors.values() if t.is_floating_point())
    resume_tiny(run)  # without the poison it goes on as if nothing had been
    start_tiny(tmp_path / "whole")
    assert contents(run)["metrics"] == contents(tmp_path / "whole")["metrics"]


@pytest.mark.parametrize("place", ["render", "regularisation", "backward"])
def test_memory_that_is_full_leaves_the_state_before_the_step(
    place: str, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """Wherever in the step: the pass back through renderer and autoencoder takes as much as the pass forth."""

    def full(*given: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    def build(settings: RunSettings) -> Job:
        job = build_tiny(settings)
        steps = iter(range(100))
        render = job.scene.render

        def watched(*given: Any) -> Any:
            late = next(steps) == 6
            if late and place == "render":
                full()
            rendering = render(*given)
            if late and place == "regularisation":
                job.scene.regularisation = full  # pyright: ignore[reportAttributeAccessIssue]
            if late and place == "backward":
                rendering.latents.register_hook(full)  # pyright: ignore[reportOptionalMemberAccess]
            return rendering

        job.scene.render = watched  # pyright: ignore[reportAttributeAccessIssue]
        return job

    run = tmp_path / "run"
    with pytest.raises(
        RewardsdsError, match=r"memory was full in step 7; the state before it is in .*_000006"
    ):
        start_tiny(run, build)
    resume_tiny(run)
    assert contents(run)["results"] == undisturbed["results"]


def test_a_reward_that_was_left_out_is_told_where_the_run_is(tmp_path: Path) -> None:
    def build(settings: RunSettings) -> Job:
        job = build_tiny(settings)
        steps = iter(range(100))

        def moody(images: torch.Tensor, prompts: object) -> torch.Tensor:
            if next(steps) in (1, 4):
                raise RewardError("not today")
            return redness(images, [])

        job.guidance.reward = WeightedSum([redness, moody], [1.0, 0.5], skip_failures=True)  # pyright: ignore[reportAttributeAccessIssue]
        return job

    with pytest.warns(UserWarning, match="going on without the reward moody: not today"):
        result = start_tiny(tmp_path / "run", build)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["rewards_left_out"]] == [1, 4]
    assert lines[4]["rewards_left_out"] == ["moody"]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["rewards_left_out"] == result.summary["rewards_left_out"] == {"moody": 2}
    report = (tmp_path / "run" / "report.html").read_text()
    assert "The reward moody failed and was left out in 2 of 12 steps." in report
    start_tiny(tmp_path / "whole")
    assert json.loads((tmp_path / "whole" / "results.json").read_text())["rewards_left_out"] == {}
    assert "left out" not in (tmp_path / "whole" / "report.html").read_text()


# --- the folder ---------------------------------------------------------------------------------------------


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    start_tiny(run)
    before = contents(run)
    console = quiet()
    result = resume_tiny(run, console=console)
    assert result.already_finished
    assert run / "image.png" in result.files
    assert "is finished" in said(console)
    assert contents(run) == before


def test_an_existing_run_is_kept_unless_forced(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    run = tmp_path / "run"
    start_tiny(run, seed=5)
    (run / "my notes.txt").write_text("keep me")
    with pytest.raises(RunFolderError, match=r"a finished run: replace it with --force, or choose") as told:
        start_tiny(run)
    assert "resume" not in str(told.value)  # which has nothing to do for it
    start_tiny(run, force=True)
    assert (run / "my notes.txt").read_text() == "keep me"
    (run / "my notes.txt").unlink()
    assert contents(run) == undisturbed


def test_an_unfinished_run_is_kept_and_resume_is_advised(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    run = tmp_path / "run"
    with pytest.raises(Stop):
        start_tiny(run, failing(lambda step: Stop() if step == 5 else None))
    with pytest.raises(
        RunFolderError, match=r"an unfinished run: continue it with `rewardsds resume .*--force"
    ):
        start_tiny(run)
    resume_tiny(run)
    assert contents(run) == undisturbed


def test_a_folder_that_is_no_run_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="left alone"):
        start_tiny(tmp_path, force=True)
    with pytest.raises(RunFolderError, match="not a run folder"):
        resume_tiny(tmp_path)
    with pytest.raises(RunFolderError, match="no run folder"):
        resume_tiny(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match="is a file"):
        start_tiny(tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((WriteError, RunFolderError), match="choose another folder"):
        start_tiny(tmp_path / "file" / "run")


def test_a_run_in_progress_is_not_resumed_twice(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def second(step: int) -> None:
        if step == 5:
            with pytest.raises(RunFolderError, match="in use"):
                resume_tiny(run)

    start_tiny(run, failing(second))
    assert (run / "results.json").exists()


def test_a_failed_beginning_leaves_no_folder(tmp_path: Path) -> None:
    def build(settings: RunSettings) -> Job:
        raise ValueError("no such prior")

    with pytest.raises(ValueError, match="no such prior"):
        start_tiny(tmp_path / "a" / "b", build)
    assert list(tmp_path.iterdir()) == []


def test_the_callers_torch_settings_come_back(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    start_tiny(tmp_path / "run", steps=1, threads=threads + 1)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_progress_is_told_in_plain_lines_off_a_terminal(tmp_path: Path) -> None:
    console = quiet()
    start_tiny(tmp_path / "run", steps=40, console=console)
    lines = [line for line in said(console).splitlines() if line.startswith("step ")]
    assert lines[-1].startswith("step 40/40  reward ")
    assert 10 <= len(lines) <= 12
    assert "peak memory" in said(console)


def test_cublas_is_told_before_anything_is_computed_on_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    assert resolved_device("cuda:0") == "cuda:0"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_numba_does_not_change_how_many_threads_torch_has():
    """When numba starts its threads it sets OpenMP's number, which torch shares; sums would depend on what else was
    imported."""
    code = """
import numba, torch
from rewardsds.runs.randomness import deterministic

torch.set_num_threads(3)
for threads in (1, 2, 1):
    with deterministic(threads, "cpu"):
        print(torch.get_num_threads(), end=" ")
    print(torch.get_num_threads(), end=" ")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "3", "2", "3", "1", "3"]
