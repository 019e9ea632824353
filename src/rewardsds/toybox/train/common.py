"""The training loop that all stages share: schedule, weight averaging, checkpoints, log.

A stage gives a module, a function from the step number to a batch, and one from both to a loss. All randomness of a
step is drawn from generators seeded by (seed, step), so a stopped stage continues exactly where its checkpoint was
written, and nothing about random states has to be saved.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from rewardsds.hardware import hardware
from rewardsds.toybox.train.feed import batches, to_device
from rewardsds.toybox.train.settings import StageSettings

Draw = Callable[[int], Any]
"""The step's number → its batch, a tuple of CPU tensors: `feed.batches`."""
Loss = Callable[[int, Any], tuple[Tensor, dict[str, Tensor | float]]]
"""(The step's number, its batch on the module's device) → (loss, figures for the log). The figures stay tensors until
they are written.
"""


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step: a numpy generator for its batch, and a torch generator, on the device that
    computes the step, for what is done to pictures and latents there.
    """

    numpy: np.random.Generator
    torch: torch.Generator

    @staticmethod
    def of(seed: int, step: int, device: str | torch.device = "cpu") -> Draws:
        sequence = np.random.SeedSequence([seed, step])
        state = int(sequence.generate_state(1, np.uint64)[0] >> 1)
        return Draws(np.random.default_rng(sequence), torch.Generator(device).manual_seed(state))

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1)."""
        return torch.rand(shape, generator=self.torch, device=self.torch.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.torch, device=self.torch.device)


@dataclass
class Progress:
    step: int = 0
    seconds: float = 0.0
    finished: bool = False


def learning_rate(settings: StageSettings, fraction: float) -> float:
    """Linear warm-up, then a cosine from the full rate to `final_rate` of it; `fraction` is the share
    done.
    """
    if fraction < settings.warmup:
        return settings.learning_rate * fraction / settings.warmup
    remaining = (fraction - settings.warmup) / (1 - settings.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(remaining, 1.0)))
    return settings.learning_rate * (settings.final_rate + (1 - settings.final_rate) * cosine)


def fit(
    module: nn.Module,
    draw: Draw,
    loss: Loss,
    settings: StageSettings,
    folder: Path,
    log: Callable[[str], None] = print,
    stop_after: int | None = None,
) -> Progress:
    """Trains every parameter of `module` that wants a gradient; ends with the averaged weights in it.

    Continues from `folder/checkpoint` when there is one; writes `folder/log.jsonl`. `stop_after` leaves the
    stage unfinished after so many steps of this call, its checkpoint written: an interruption on request. A
    finished stage goes on when it is given more steps or minutes than it has had.
    Returns how far the stage has come, with the seconds spent training over all calls.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
    weights: list[Tensor] = list(parameters.values())
    optimizer = torch.optim.AdamW(
        _decay_groups(parameters, settings.weight_decay),
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    average = [value.detach().clone() for value in weights]
    progress = _load(folder, parameters, average, optimizer)
    if progress.step:
        log(f"continuing at step {progress.step} after {progress.seconds / 60:.1f} minutes of training")

    def fraction() -> float:
        by_time = progress.seconds / (60 * settings.minutes) if settings.minutes else 0.0
        return max(progress.step / settings.steps, by_time)

    module.train()
    first = progress.step
    device = weights[0].device
    cuda = device.type == "cuda"
    steps = range(progress.step, settings.steps)
    feed = batches(draw, steps, folder / "batches.pickle", settings.workers, pinned=cuda)
    # workers begin before the clock does
    fed = chain([next(feed)], feed) if fraction() < 1 else feed
    began = last_saved = last_line = time.monotonic()
    already = progress.seconds
    rate_from = (progress.step, began)

    # which DataLoader pins memory for
    here = torch.cuda.device(device) if cuda else nullcontext()
    with here, (folder / "log.jsonl").open("a") as lines, closing(feed):
        while fraction() < 1:
            if stop_after is not None and progress.step - first >= stop_after:
                break
            rate = learning_rate(settings, max(fraction(), 1 / settings.steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            value, figures = loss(progress.step, to_device(next(fed), device))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            norm = nn.utils.clip_grad_norm_(weights, settings.clip_norm)
            optimizer.step()
            progress.step += 1
            # A young average forgets faster, so that it never carries the random initial weights along.
            decay = min(settings.average, (1 + progress.step) / (10 + progress.step))
            get_ema_multi_avg_fn(decay)(average, weights, progress.step)

            now = time.monotonic()
            progress.seconds = already + now - began
            if progress.step % 10 == 0 or progress.step == 1:
                record = {
                    "step": progress.step,
                    "seconds": round(progress.seconds, 2),
                    "loss": float(value.detach()),
                }
                record |= {name: _number(figure) for name, figure in figures.items()}
                record |= {"gradient_norm": float(norm), "learning_rate": rate}
                if not math.isfinite(record["loss"]):
                    raise FloatingPointError(
                        f"the loss is {record['loss']} at step {progress.step}: lower the rate"
                    )
                lines.write(json.dumps(record) + "\n")
                lines.flush()
                if now - last_line > 10 or progress.step in (1, settings.steps):
                    speed = (progress.step - rate_from[0]) / max(now - rate_from[1], 1e-9)
                    log(_line(record, speed, settings, progress))
                    last_line, rate_from = now, (progress.step, now)
            if now - last_saved > 60 * settings.checkpoint_minutes:
                _save(folder, parameters, average, optimizer, progress)
                last_saved = now
    progress.finished = fraction() >= 1
    _save(folder, parameters, average, optimizer, progress)
    with torch.no_grad():
        for weight, mean in zip(weights, average):
            weight.copy_(mean)
    module.eval()
    return progress


def _number(figure: Tensor | float) -> float:
    return float(figure.detach()) if isinstance(figure, Tensor) else float(figure)


def _line(record: dict[str, Any], speed: float, settings: StageSettings, progress: Progress) -> str:
    left = (settings.steps - progress.step) / max(speed, 1e-9)
    if settings.minutes:
        left = min(left, 60 * settings.minutes - progress.seconds)
    hidden = ("step", "seconds", "learning_rate")
    figures = "  ".join(f"{name} {value:.4g}" for name, value in record.items() if name not in hidden)
    return (
        f"step {record['step']:>6}/{settings.steps}  {figures}  {speed:.2f} steps/s  {left / 60:.1f} min left"
    )


def _decay_groups(parameters: dict[str, nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Matrices and kernels decay; gains, biases and scalars do not."""
    return [
        {"params": [value for value in parameters.values() if value.ndim > 1], "weight_decay": decay},
        {"params": [value for value in parameters.values() if value.ndim <= 1], "weight_decay": 0.0},
    ]


# --------------------------------------------------------------------------------------------- checkpoints


def _save(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    average: list[Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Written beside the old checkpoint, which it replaces only when it is complete."""
    tensors: dict[str, Tensor] = {}
    for (name, value), mean in zip(parameters.items(), average):
        tensors[f"weight.{name}"] = value.detach()
        tensors[f"average.{name}"] = mean
        for key, moment in optimizer.state.get(value, {}).items():
            tensors[f"optimizer.{key}.{name}"] = moment.detach()
    new, current, old = (folder / name for name in ("checkpoint.new", "checkpoint", "checkpoint.old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, new / "state.safetensors")
    (new / "progress.json").write_text(
        json.dumps({"step": progress.step, "seconds": progress.seconds, "finished": progress.finished})
    )
    if current.exists():
        current.rename(old)
    new.rename(current)
    shutil.rmtree(old, ignore_errors=True)


def _load(
    folder: Path, parameters: dict[str, nn.Parameter], average: list[Tensor], optimizer: torch.optim.Optimizer
) -> Progress:
    checkpoint = next(
        (folder / name for name in ("checkpoint", "checkpoint.old") if (folder / name).is_dir()), None
    )
    if checkpoint is None:
        return Progress()
    tensors = load_file(checkpoint / "state.safetensors")
    kept = {
        name.removeprefix("weight."): value for name, value in tensors.items() if name.startswith("weight.")
    }
    if {name: value.shape for name, value in kept.items()} != {n: v.shape for n, v in parameters.items()}:
        raise ValueError(f"{checkpoint} is of another network: remove it, or train into another folder")
    moments: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, key, parameter = name.split(".", 2)
            moments.setdefault(parameter, {})[key] = value
    with torch.no_grad():
        for (name, weight), mean in zip(parameters.items(), average):
            weight.copy_(kept[name])
            mean.copy_(tensors[f"average.{name}"])
            if name in moments:
                # The fused optimiser wants `step` on the weight's device, and walks weight and moments side by side in
                # memory: equal layouts.
                optimizer.state[weight] = {
                    key: value.to(weight.device) if key == "step" else torch.empty_like(weight).copy_(value)
                    for key, value in moments[name].items()
                }
    return Progress(**json.loads((checkpoint / "progress.json").read_text()))


# -------------------------------------------------------------------------------------------------- record


def write_record(
    folder: Path, settings: StageSettings, progress: Progress, device: str, **figures: Any
) -> None:
    """folder/stage.json: what the model card says about a stage."""
    record = {
        "settings": settings.model_dump(),
        "steps": progress.step,
        "minutes": progress.seconds / 60,
        "hardware": hardware(device),
        **figures,
    }
    write_json(folder / "stage.json", record)


def write_json(path: Path, value: Any) -> None:
    temporary = path.with_suffix(path.suffix + ".new")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
