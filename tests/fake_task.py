"""A whole run in miniature: the real loop, step and scene on a prior whose score is known in closed form."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.console import Console
from torch import Tensor

from oracles import GaussianMixturePrior, Mixture
from rewardsds.distillation.guidance import RewardSDS
from rewardsds.runs.loop import Job, RunResult, resume, start
from rewardsds.runs.randomness import generator
from rewardsds.runs.settings import RunSettings
from rewardsds.scenes.export import save_png
from rewardsds.scenes.image import LatentImageScene, LatentImageSettings

SMALL_3D: dict[str, Any] = {
    "prompt": "a red cube",
    "device": "cpu",
    "threads": 1,
    "weighting": "none",
    "video_frames": 2,
    "video_size": 16,
    "previews_every": 0,
}
"""Settings of a 3D run whose files are small."""


class TinySettings(RunSettings):
    task: ClassVar[str] = "tiny"

    items: int = 1


def tiny_prior(size: int = 4) -> GaussianMixturePrior:
    """Pictures of size²: "red" and "blue", "red blue" is either."""
    red = torch.tensor([0.8, -0.6, -0.6], dtype=torch.float64)[:, None, None].expand(3, size, size)
    blue = red.flip(0)
    both = Mixture(torch.stack([red, blue]), torch.full((2,), 0.2).double(), torch.full((2,), 0.5).double())
    return GaussianMixturePrior(
        {
            "red": Mixture.single(red, 0.2),
            "blue": Mixture.single(blue, 0.2),
            "red blue": both,
            "": Mixture.single(torch.zeros(3, size, size), 0.8),
        }
    )


def redness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Red minus blue, (N, B)."""
    return (images[:, :, :, 0] - images[:, :, :, 2]).mean(dim=(-3, -2, -1)).float()


def build_tiny(settings: RunSettings, prompt: str = "red") -> Job:
    assert isinstance(settings, TinySettings)
    prior = tiny_prior()
    seeds = [settings.seed + item for item in range(settings.items)]
    scene = LatentImageScene(
        prior.latent_shape,
        [generator(seed, "init") for seed in seeds],
        LatentImageSettings(learning_rate=0.05),
    )

    def preview() -> Tensor:
        return prior.decode(scene.latents.detach())[0, 0].float()

    def export(folder: Path) -> list[str]:
        save_png(preview(), folder / "image.png")
        return ["image.png"]

    return Job(
        scene=scene,
        guidance=RewardSDS(prior, redness, candidates=4, guidance_scale=5.0),
        prompts=[prompt] * len(seeds),
        seeds=seeds,
        preview=preview,
        export=export,
    )


def quiet() -> Console:
    """A console that keeps what was said: `.file.getvalue()`."""
    import io

    return Console(file=io.StringIO(), width=500, highlight=False)


def said(console: Console) -> str:
    file: Any = console.file
    return file.getvalue()


def start_tiny(
    out: Path, build: Callable[[RunSettings], Job] = build_tiny, console: Console | None = None, **values: Any
) -> RunResult:
    force = values.pop("force", False)
    settings = TinySettings(**{"out": out, "steps": 12, "checkpoint_every": 4, "threads": 1, **values})
    return start(settings, build, force=force, console=console or quiet())


def resume_tiny(
    out: Path, build: Callable[[RunSettings], Job] = build_tiny, console: Console | None = None
) -> RunResult:
    return resume(out, _read, build, console=console or quiet())


def _read(values: Any) -> TinySettings:
    assert values["task"] == "tiny"
    return TinySettings(**{key: value for key, value in values.items() if key != "task"})


class Stop(BaseException):
    """What a test raises in the middle of a step; like a kill it leaves the folder as it is."""


def failing(when: Callable[[int], BaseException | None]) -> Callable[[RunSettings], Job]:
    """`build_tiny` with an accident: the exception that `when(step)` returns is raised inside that step."""

    def build(settings: RunSettings) -> Job:
        job = build_tiny(settings)
        before_step = job.scene.before_step

        def accident(step: int, optimizer: torch.optim.Optimizer) -> None:
            error = when(step)
            if error is not None:
                raise error
            before_step(step, optimizer)

        job.scene.before_step = accident  # pyright: ignore[reportAttributeAccessIssue]
        return job

    return build


def signalling(step_to_signal: int, number: signal.Signals) -> Callable[[RunSettings], Job]:
    """`build_tiny` that sends this process a signal in the middle of a step."""

    def when(step: int) -> None:
        if step == step_to_signal:
            os.kill(os.getpid(), number)

    return failing(when)
