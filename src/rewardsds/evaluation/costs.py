"""What a run will cost, measured in a few of its steps before it is made."""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from rewardsds.evaluation.sampling import sample
from rewardsds.evaluation.units import Unit
from rewardsds.priors.base import Prior
from rewardsds.runs.folder import RunFolder
from rewardsds.runs.loop import TrainingLoop
from rewardsds.runs.randomness import deterministic
from rewardsds.tasks.parts import make_prior
from rewardsds.tasks.run import build


class Cost(NamedTuple):
    """Of an item: pictures that the denoising network processes, both branches of the guidance counted; seconds."""

    network_evaluations: float
    seconds: float


def measure(unit: Unit) -> Cost:
    """The cost of an item of a unit, about, from a few of its steps with the reward and without it.

    Three of each kind where a step takes longer at the end than at the beginning, as in 3D, each after one that does
    not count, in which something may be compiled; one of each of pictures.
    """
    settings = unit.settings.resolved()
    assert settings.threads is not None
    items = len(unit.items)
    with deterministic(settings.threads, settings.device), tempfile.TemporaryDirectory() as folder:
        if unit.sampling_steps is not None:
            return _of_sampling(make_prior(settings), unit, settings.resolved_rollout_guidance_scale)
        job = build(settings.model_copy(update={"out": Path(folder)}))
        job.begin()
        loop = TrainingLoop(RunFolder(Path(folder)), settings, job, Console(file=io.StringIO()))
        loop.step()  # the first is slower than all others
        evaluations = seconds = 0.0
        steps = range(settings.steps)
        for kind in (True, False):
            own = [step for step in steps if job.guidance.uses_reward(step) is kind]
            middle = own[len(own) // 2 : len(own) // 2 + 1]
            tried = middle if settings.task == "image" else sorted({*own[:1], *middle, *own[-1:]})
            for step in tried:
                if settings.task != "image":
                    loop.steps_done = step
                    loop.step()
                loop.steps_done = step
                began = time.perf_counter()
                line = loop.step()
                share = len(own) / len(tried)
                seconds += (time.perf_counter() - began) * share
                evaluations += line["network_evaluations"] * share
    return Cost(evaluations / items, seconds / items)


def _of_sampling(prior: Prior, unit: Unit, guidance_scale: float) -> Cost:
    assert unit.sampling_steps is not None
    prompts, seeds = zip(*unit.items)
    tried = min(2, unit.sampling_steps)
    before, began = prior.network_evaluations, time.perf_counter()
    sample(prior, prompts, seeds, tried, guidance_scale).cpu()  # which waits for a GPU
    seconds, spent = time.perf_counter() - began, prior.network_evaluations - before
    share = unit.sampling_steps / tried / len(unit.items)
    return Cost(spent * share, seconds * share)
