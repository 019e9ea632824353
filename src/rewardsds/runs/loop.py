"""The training loop of any task: optimise a scene with a guidance, and lose nothing on the way."""

from __future__ import annotations

import hashlib
import json
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from torch import Tensor

from rewardsds.distillation.step import StepRecord
from rewardsds.errors import (
    CheckpointError,
    Interrupted,
    InvisibleError,
    NotFiniteError,
    RewardsdsError,
    RunFolderError,
    SettingsError,
    WriteError,
    describe_os_error,
    settings_of_file,
)
from rewardsds.hardware import machine_record
from rewardsds.memory import is_out_of_memory
from rewardsds.rewards.base import RewardError, noting_left_out
from rewardsds.runs import atomic, checkpoint
from rewardsds.runs.folder import MetricsWriter, RunFolder, claimed
from rewardsds.runs.progress import ProgressLine, format_seconds, peak_memory, say
from rewardsds.runs.randomness import deterministic, generator
from rewardsds.runs.report import write_report
from rewardsds.runs.settings import RunSettings
from rewardsds.scenes.base import Scene
from rewardsds.scenes.export import save_png


class Guidance(Protocol):
    """What the loop asks of `RewardSDS`."""

    record: StepRecord

    def __call__(
        self,
        images: Tensor | None = None,
        prompt: str | Sequence[str] | None = None,
        *,
        latents: Tensor | None = None,
        cameras: Any = None,
        step: int | None = None,
        generators: Sequence[torch.Generator] | None = None,
        previews: bool = False,
    ) -> Tensor: ...

    def uses_reward(self, step: int) -> bool: ...

    def state_dict(self) -> Mapping[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


@dataclass
class Job:
    """The parts that a task puts together.

    scene: B items.
    guidance: the loss.
    prompts: B texts.
    seeds: B seeds, one an item; an item of a batch draws what a run with its seed alone draws.
    preview: what the scene looks like now, (3, H, W) in [0, 1].
    export: writes the result files into a folder and returns their names, the one to show first.
    begin: brings the scene to where a new run starts, where that is more than its making; not called for a run that
        goes on from a checkpoint.
    remarks: what the user may like to know before the run begins.
    notes: what the user should be warned of before it begins.
    """

    scene: Scene
    guidance: Guidance
    prompts: Sequence[str]
    seeds: Sequence[int]
    preview: Callable[[], Tensor]
    export: Callable[[Path], Sequence[str]]
    begin: Callable[[], None] = lambda: None
    remarks: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class RunResult:
    """A finished run. files: the report and the task's results, absolute or as `out` was given."""

    folder: Path
    files: list[Path] = field(default_factory=list)
    summary: Mapping[str, Any] = field(default_factory=dict)
    already_finished: bool = False


def start(
    settings: RunSettings,
    build: Callable[[RunSettings], Job],
    *,
    force: bool = False,
    console: Console | None = None,
) -> RunResult:
    """A new run in `settings.out`. `build` makes the parts from the resolved settings.

    Raises RewardsdsError (a ValueError) with a one-line message for everything that a user can put right.
    """
    if settings.out is None:
        raise RunFolderError("a run needs a folder: set `out`")
    settings = settings.resolved()
    assert settings.out is not None
    with claimed(settings.out, force=force) as folder:
        job = build(settings)
        _begin(settings, job)
        with _write_errors(folder):
            folder.begin(settings)
        return _run(folder, settings, job, console, None)


def resume(
    folder_path: Path,
    read_settings: Callable[[Mapping[str, Any]], RunSettings],
    build: Callable[[RunSettings], Job],
    *,
    console: Console | None = None,
) -> RunResult:
    """Continues a run from its newest usable checkpoint; the end is bit-identical to an undisturbed run.

    read_settings: makes settings from the mapping in `settings.yaml`.
    """
    console = console or _standard_error()
    with claimed(folder_path, resume=True) as folder:
        if folder.is_finished:
            results = folder.read_results()
            say(console, f"{folder.path} is finished: nothing to resume")
            return RunResult(
                folder.path, [folder.path / name for name in results["files"]], results, already_finished=True
            )
        values = folder.read_settings()
        with settings_of_file(folder.settings):
            settings = read_settings(values)
        settings = settings.model_copy(update={"out": folder.path})
        settings = _resolved_again(settings, folder)
        found = find_checkpoint(folder, console)
        if found is None:
            say(console, f"{folder.path} has no checkpoint yet: starting at step 0")
        else:
            say(console, f"continuing {folder.path} after step {found.steps_done}")
        job = build(settings)
        if found is None:
            _begin(settings, job)
        with _write_errors(folder):
            atomic.remove_partial_files(folder.path)
            for path in (folder.checkpoints, folder.previews):
                path.mkdir(exist_ok=True)
            folder.truncate_metrics(0 if found is None else found.steps_done)
        return _run(folder, settings, job, console, found)


def _resolved_again(settings: RunSettings, folder: RunFolder) -> RunSettings:
    """Settings of a run that goes on. Its device is kept: on one of another kind the end would not be the same."""
    try:
        return settings.resolved()
    except SettingsError as error:
        raise SettingsError(
            f"{error}; {folder.path} goes on to the bit only on the kind of device that it began on: resume it on such "
            f"a machine, or write device: cpu into {folder.settings} for an end that differs a little"
        ) from None


def _begin(settings: RunSettings, job: Job) -> None:
    assert settings.threads is not None
    with deterministic(settings.threads, settings.device):
        job.begin()


def find_checkpoint(folder: RunFolder, console: Console) -> checkpoint.Checkpoint | None:
    """The newest checkpoint that is whole; None if the run was stopped before its first one.

    Raises CheckpointError if there are checkpoints and all of them are damaged.
    """
    paths = checkpoint.available(folder.checkpoints)
    for path in paths:
        try:
            found = checkpoint.load(path)
        except CheckpointError as error:
            say(console, f"warning: {error}; trying the one before")
            continue
        return found
    if paths:
        raise CheckpointError(
            f"no usable checkpoint in {folder.checkpoints}: all {len(paths)} are damaged; start again with "
            f"--config {folder.settings} and another --out"
        )
    return None


def _run(
    folder: RunFolder,
    settings: RunSettings,
    job: Job,
    console: Console | None,
    found: checkpoint.Checkpoint | None,
) -> RunResult:
    console = console or _standard_error()
    for remark in job.remarks:
        say(console, remark)
    for note in job.notes:
        say(console, f"warning: {note}")
    assert settings.threads is not None
    with deterministic(settings.threads, settings.device):
        loop = TrainingLoop(folder, settings, job, console)
        if found is not None:
            loop.restore(found)
        loop.run()
        return loop.finish()


class TrainingLoop:
    """The state of a run between two steps, and how to go on from it."""

    def __init__(self, folder: RunFolder, settings: RunSettings, job: Job, console: Console):
        self.folder = folder
        self.settings = settings
        self.job = job
        self.console = console
        self.steps_done = 0
        self.optimizer = make_optimizer(job.scene)
        self.scene_generators = [generator(seed, "scene") for seed in job.seeds]
        self.noise_generators = [generator(seed, "noise") for seed in job.seeds]
        self.candidate_steps = candidate_steps(settings, job.guidance)

    @property
    def _generators(self) -> dict[str, list[torch.Generator]]:
        return {"scene": self.scene_generators, "noise": self.noise_generators}

    def restore(self, found: checkpoint.Checkpoint) -> None:
        """Takes back a checkpoint. Raises CheckpointError if it does not fit this run."""
        try:
            checkpoint.restore_scene(found, self.job.scene)
            checkpoint.restore_guidance(found, self.job.guidance)
            self.optimizer = make_optimizer(self.job.scene)
            checkpoint.restore(found, self.job.scene, self.optimizer, self._generators)
        except (KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise CheckpointError(
                f"the checkpoint of step {found.steps_done} in {self.folder.path} does not fit its settings "
                f"({reason})"
            ) from error
        self.steps_done = self.job.scene.step = found.steps_done

    def run(self) -> None:
        """All steps that are left."""
        if self.steps_done >= self.settings.steps:
            return
        metrics: MetricsWriter | None = None
        try:
            with (
                _write_errors(self.folder),
                _signals() as received,
                ProgressLine(self.settings.steps, self.steps_done, self.console) as progress,
            ):
                metrics = MetricsWriter(self.folder.metrics)
                while self.steps_done < self.settings.steps:
                    line = self.step()
                    metrics.write(line)
                    progress.update(self.steps_done, _mean_and_best(line["rewards"]), sum(line["loss"]))
                    last = self.steps_done == self.settings.steps
                    if last or received or self.steps_done % self.settings.checkpoint_every == 0:
                        metrics.flush()  # a checkpoint must not be newer than the metrics on the disk
                        self.save()
                    # In the last step too: whoever waits for the run to stop must hear that it did.
                    if received:
                        raise Interrupted(
                            f"stopped after step {self.steps_done} of {self.settings.steps}; continue with "
                            f"`rewardsds resume {self.folder.path}`",
                            received[0],
                        )
        finally:
            if metrics is not None:
                metrics.close()

    def step(self) -> dict[str, Any]:
        """One step of the optimisation; returns its line of metrics."""
        step, scene, guidance = self.steps_done, self.job.scene, self.job.guidance
        before = [g.get_state() for items in self._generators.values() for g in items]
        keep_candidates = step in self.candidate_steps
        watch = _Watch(self.settings.device)

        scene.before_step(step, self.optimizer)
        cameras = scene.sample_cameras(self.scene_generators, step)
        try:
            with noting_left_out() as left_out:
                regularisation = self._take_gradient(step, cameras, keep_candidates, watch)
        except RewardError as error:
            path = self._save_before_step(before)
            raise RewardsdsError(
                f"{error}; that was in step {step + 1}, the state before it is in {path}: mend the reward and "
                f"continue with `rewardsds resume {self.folder.path}`"
            ) from error
        except InvisibleError as error:
            path = self._save_before_step(before)
            raise InvisibleError(
                f"{error}; that was in step {step + 1}, the state before it is in {path}: start again with a lower "
                "guidance scale, learning rate or weight of a regulariser"
            ) from error
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            path = self._save_before_step(before)
            raise RewardsdsError(
                f"the GPU's memory was full in step {step + 1}; the state before it is in {path}: end what else uses "
                "the GPU, or start again with a lower chunk, offload, precision bf16 or fewer candidates"
            ) from error

        record = guidance.record
        if not (record.gradient_norm.isfinite().all() and _all_finite(self._parameters(), gradients=True)):
            path = self._save_before_step(before)
            raise NotFiniteError(
                f"the gradient became NaN or infinite in step {step + 1}; the state before it is in "
                f"{path}; start again with a lower guidance scale or learning rate"
            )
        self.optimizer.step()
        scene.after_step(step, self.optimizer, self.scene_generators)
        if not _all_finite(self._parameters()):
            raise NotFiniteError(
                f"a parameter became NaN or infinite in step {step + 1}; the last checkpoint in "
                f"{self.folder.checkpoints} is from before; start again with a lower learning rate"
            )
        watch.stop("optimiser")

        self.steps_done = step + 1
        self._write_pictures(record)
        watch.stop("previews")
        rewards = record.rewards
        return {
            "step": step,
            "timesteps": record.timesteps.tolist(),
            "rewards": None if rewards is None else rewards.tolist(),
            "rewards_left_out": left_out,
            "weights": record.weights.tolist(),
            "gradient_norm": record.gradient_norm.tolist(),
            "loss": record.loss.tolist(),
            "regularisation": None if regularisation is None else float(regularisation.detach()),
            "network_evaluations": record.network_evaluations,
            "candidates_kept": keep_candidates,
            "seconds": {name: round(value, 6) for name, value in {**record.seconds, **watch.seconds}.items()},
        }

    def _take_gradient(self, step: int, cameras: Any, previews: bool, watch: _Watch) -> Tensor | None:
        """Looks at the scene, asks the guidance, and leaves the gradient in the parameters; the regularisation."""
        scene = self.job.scene
        rendering = scene.render(cameras, self.scene_generators)
        shown = rendering.images if rendering.images is not None else rendering.latents
        assert shown is not None
        groups = len(shown) // scene.batch  # of views, in which each item is shown
        watch.stop("render")
        loss = self.job.guidance(
            rendering.images,
            [prompt for prompt in self.job.prompts for _ in range(groups)],
            latents=rendering.latents,
            cameras=cameras,
            step=step,
            generators=[own for own in self.noise_generators for _ in range(groups)],
            previews=previews,
        )
        watch.skip()  # the record has these stages
        regularisation = scene.regularisation(rendering)
        total = loss if regularisation is None else loss + regularisation
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        watch.stop("backward")
        return regularisation

    def save(self) -> Path:
        job = self.job
        state = checkpoint.capture(self.steps_done, job.scene, job.guidance, self.optimizer, self._generators)
        return checkpoint.save(state, self.folder.checkpoints)

    def finish(self) -> RunResult:
        """Result files, report, and last of all `results.json`."""
        with _write_errors(self.folder):
            say(self.console, "writing the results")
            temporary = self.folder.path / atomic.RESULTS_IN_PROGRESS
            temporary.mkdir(exist_ok=True)
            with torch.no_grad():
                names = list(self.job.export(temporary))
            for name in names:
                atomic.flush(temporary / name)
                (temporary / name).replace(self.folder.path / name)
            temporary.rmdir()
            lines = self.folder.read_metrics()
            summary = summarise(lines, self.settings, self.job)
            write_report(self.folder, self.settings, self.job.prompts, names, lines, summary)
            files = [self.folder.report.name, *names]
            atomic.write_text(self.folder.results, _json({"files": files, **summary}))
        took = format_seconds(summary["seconds"])
        say(self.console, f"done: {len(lines)} steps in {took}, peak memory {summary['peak_memory']}")
        return RunResult(self.folder.path, [self.folder.path / name for name in files], summary)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _save_before_step(self, generator_states: Sequence[Tensor]) -> Path:
        """Saves the state from before a step that went wrong."""
        for item, state in zip(
            [g for items in self._generators.values() for g in items], generator_states, strict=True
        ):
            item.set_state(state)
        return self.save()

    def _write_pictures(self, record: StepRecord) -> None:
        stem = f"step_{self.steps_done:06d}"
        every = self.settings.previews_every
        if every and (self.steps_done % every == 0 or self.steps_done == self.settings.steps):
            with torch.no_grad():
                save_png(self.job.preview(), self.folder.previews / f"{stem}.png")
        if record.previews is not None:
            for index, candidate in enumerate(record.previews):
                # items below each other, the views of one beside each other
                rows = [torch.cat(list(item), dim=-1) for item in candidate]
                save_png(torch.cat(rows, dim=-2), self.folder.previews / f"{stem}_candidate_{index}.png")


def make_optimizer(scene: Scene) -> torch.optim.Adam:
    """Adam; a group's own `betas` and `eps` count before these."""
    return torch.optim.Adam(scene.parameter_groups(), betas=(0.9, 0.99))


def candidate_steps(settings: RunSettings, guidance: Guidance) -> set[int]:
    """The steps whose candidates are kept as pictures: spread evenly over those that use the reward."""
    rewarded = [step for step in range(settings.steps) if guidance.uses_reward(step)]
    count = min(settings.candidate_previews, len(rewarded))
    if count == 0:
        return set()
    if count == 1:
        return {rewarded[0]}
    return {rewarded[round(i * (len(rewarded) - 1) / (count - 1))] for i in range(count)}


def summarise(lines: Sequence[Mapping[str, Any]], settings: RunSettings, job: Job) -> dict[str, Any]:
    """The figures of a whole run, from its metrics. rewards_left_out: in how many steps a reward was, by its name."""
    stages: dict[str, float] = {}
    for line in lines:
        for stage, seconds in line["seconds"].items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    return {
        "prompts": list(job.prompts),
        "steps": len(lines),
        "seconds": round(sum(stages.values()), 3),
        "seconds_by_stage": {stage: round(seconds, 3) for stage, seconds in stages.items()},
        "network_evaluations": sum(line["network_evaluations"] for line in lines),
        # of earlier versions' lines too
        "rewards_left_out": dict(
            Counter(name for line in lines for name in line.get("rewards_left_out", ()))
        ),
        "peak_memory": peak_memory(settings.device),
        "device": settings.device,
        "hardware": machine_record(settings.device),
        "scene_sha256": _digest(job.scene),
    }


def _digest(scene: Scene) -> str:
    state = {f"scene/{key}": value.detach().cpu() for key, value in scene.state_dict().items()}
    return hashlib.sha256(checkpoint.Checkpoint(0, state).checksum().encode()).hexdigest()


def _mean_and_best(rewards: list[list[float]] | None) -> tuple[float, float] | None:
    if rewards is None:
        return None
    flat = [value for row in rewards for value in row]
    best = [max(column) for column in zip(*rewards, strict=True)]
    return math.fsum(flat) / len(flat), math.fsum(best) / len(best)


def _all_finite(parameters: Sequence[Tensor], gradients: bool = False) -> bool:
    tensors = [p.grad for p in parameters if p.grad is not None] if gradients else parameters
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


@contextmanager
def _write_errors(folder: RunFolder) -> Iterator[None]:
    """A full disk and the like become one line that says what is safe."""
    try:
        yield
    except OSError as error:
        safe = checkpoint.available(folder.checkpoints)
        state = (
            f"the state after step {int(safe[0].stem.split('_')[1])} is safe; make room and continue with "
            f"`rewardsds resume {folder.path}`"
            if safe
            else f"no checkpoint was written yet; make room and begin with `rewardsds resume {folder.path}`"
        )
        raise WriteError(f"cannot write the run ({describe_os_error(error)}): {state}") from error


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, so that the step in progress can end; a second one interrupts at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may set handlers
        return

    def note(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Watch:
    """Seconds of the stages that the guidance's record does not have."""

    def __init__(self, device: str):
        self.seconds: dict[str, float] = {}
        self._device = torch.device(device)
        self._last = time.perf_counter()

    def stop(self, stage: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def skip(self) -> None:
        self._last = time.perf_counter()


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _standard_error() -> Console:
    return Console(stderr=True, highlight=False)
