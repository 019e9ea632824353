"""What a training run is told: which stages, on what data, for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rewardsds.hardware import available_cores
from rewardsds.toybox.specification import KINDS

Preset = Literal["cpu", "gpu"]
StageName = Literal[
    "autoencoder", "clip", "prior", "aesthetic", "image-reward", "judge", "view-judge", "card"
]
STAGES: tuple[StageName, ...] = (
    "autoencoder",
    "clip",
    "prior",
    "aesthetic",
    "image-reward",
    "judge",
    "view-judge",
    "card",
)


class StageSettings(BaseModel):
    """One stage's optimisation: AdamW, linear warm-up, cosine decay, an exponential average of the weights.

    minutes: the stage ends at `steps` or after so many minutes of training, whichever comes first; the
    learning rate follows whichever of the two is further on. Without a limit a run depends on its settings
    alone.
    batch: scenes a step (four views each in the prior's four-view batches, one view elsewhere).
    workers: processes that draw batches ahead of the steps; 0: the training process draws them. The numbers are the
        same.
    """

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.03, ge=0, lt=1)
    final_rate: float = Field(default=0.05, ge=0, le=1)
    clip_norm: float = Field(default=1.0, gt=0)
    average: float = Field(default=0.999, ge=0, lt=1)
    minutes: float | None = Field(default=None, gt=0)
    checkpoint_minutes: float = Field(default=3.0, ge=0)
    workers: int = Field(default=0, ge=0)


CORE_KINDS = (
    "apple", "backpack", "bag", "banana", "car", "couch", "cube", "dog", "hat", "penguin", "sheep", "table",
    "tree",
)  # fmt: skip
"""As many kinds as a few hours of two CPU cores can teach the networks to know well."""


def stage_settings(preset: Preset, stage: StageName) -> StageSettings:
    """Settings of a stage: `cpu` for nearly three hours on two cores, `gpu` for about twenty minutes on one
    data-centre GPU with sixteen cores, rendering included.
    """
    return _PRESETS[preset][stage].model_copy()


def _gpu(steps: int, batch: int, learning_rate: float, **own: Any) -> StageSettings:
    """Saved every minute, of which each is dear on such a machine."""
    return StageSettings(steps=steps, batch=batch, learning_rate=learning_rate, checkpoint_minutes=1.0, **own)


_PRESETS: dict[Preset, dict[StageName, StageSettings]] = {
    "cpu": {
        "autoencoder": StageSettings(steps=3500, batch=24, learning_rate=2e-3, average=0.995, minutes=10),
        "clip": StageSettings(
            steps=6000, batch=64, learning_rate=1e-3, weight_decay=0.05, average=0.995, minutes=22
        ),
        "prior": StageSettings(steps=6000, batch=12, learning_rate=1.3e-3, average=0.998, minutes=64),
        "aesthetic": StageSettings(
            steps=600, batch=32, learning_rate=2e-2, weight_decay=0.0, average=0.99, minutes=4
        ),
        "image-reward": StageSettings(
            steps=4000, batch=32, learning_rate=6e-4, weight_decay=0.05, average=0.995, minutes=15
        ),
        "judge": StageSettings(
            steps=4000, batch=48, learning_rate=3e-3, weight_decay=0.02, average=0.995, minutes=11
        ),
        "view-judge": StageSettings(
            steps=4000, batch=48, learning_rate=2e-3, weight_decay=0.02, average=0.995, minutes=20
        ),
        "card": StageSettings(steps=1, batch=64, learning_rate=1.0),
    },
    "gpu": {
        "autoencoder": _gpu(20_000, 128, 2e-3, average=0.998, minutes=1.25),
        "clip": _gpu(30_000, 384, 1e-3, weight_decay=0.05, average=0.998, minutes=3.5, workers=14),
        "prior": _gpu(30_000, 256, 1.6e-3, average=0.999, minutes=5.5, workers=14),
        "aesthetic": _gpu(2000, 128, 1e-2, weight_decay=0.0, average=0.99, minutes=0.3, workers=2),
        "image-reward": _gpu(20_000, 192, 6e-4, weight_decay=0.05, average=0.998, minutes=2, workers=14),
        "judge": _gpu(20_000, 192, 2e-3, weight_decay=0.02, average=0.998, minutes=1.25, workers=4),
        "view-judge": _gpu(20_000, 192, 2e-3, weight_decay=0.02, average=0.998, minutes=1.25, workers=2),
        "card": _gpu(1, 256, 1.0),
    },
}


class TrainSettings(BaseModel):
    """A training run.

    data: a folder with the data sets `train`, `validation` and `judge`; those that are missing are rendered.
    out: where checkpoints, logs and the exported `weights` go. A stage that was stopped continues from its
        last checkpoint, a finished one is left alone.
    stage: one stage alone, or all of them in order.
    steps, batch, minutes: instead of the preset's.
    device: the CPU for the preset cpu and CUDA for gpu, unless given. workers: threads that render; None: all.
        Processes that draw batches are the preset's, as many as there are cores to spare.
    kinds: of toy in data sets that are missing: all of the world's, or a core; the preset's unless given.
        What the networks know is what their data shows.
    compile: compile the prior's network first, which takes minutes and makes long trainings faster.
    sets: scenes to render for `train` when it is missing, the preset's unless given (a quarter of it for
        `judge`, a twentieth for `validation`).
    """

    model_config = ConfigDict(extra="forbid")

    data: Path
    out: Path
    preset: Preset = "cpu"
    stage: Literal["all"] | StageName = "all"
    device: str | None = None
    seed: int = 0
    steps: int | None = Field(default=None, gt=0)
    batch: int | None = Field(default=None, gt=0)
    minutes: float | None = Field(default=None, gt=0)
    kinds: Literal["core", "all"] | None = None
    sets: int | None = Field(default=None, gt=0)
    workers: int | None = Field(default=None, gt=0)
    compile: bool = False

    @model_validator(mode="after")
    def _overrides_need_a_stage(self) -> TrainSettings:
        given = [name for name in ("steps", "batch", "minutes") if getattr(self, name) is not None]
        if given and self.stage == "all":
            raise ValueError(f"{', '.join(given)} given for all stages at once: choose one with `stage`")
        return self

    def resolved_device(self) -> str:
        """Raises ValueError where there is no CUDA device and the preset asks for one."""
        import torch

        device = self.device or ("cuda" if self.preset == "gpu" else "cpu")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"the device {device} is not there: choose --preset cpu, or --device cpu")
        return device

    def scenes(self) -> tuple[tuple[str, ...], int]:
        """Kinds of toy, and number of training scenes, of data sets that are missing."""
        cpu = self.preset == "cpu"
        core = self.kinds == "core" or (self.kinds is None and cpu)
        return CORE_KINDS if core else KINDS, self.sets or (20_000 if cpu else 40_000)

    def resolve(self, stage: StageName) -> StageSettings:
        """The preset's settings of a stage with this run's own values put in."""
        own = {name: getattr(self, name) for name in ("steps", "batch", "minutes")}
        settings = stage_settings(self.preset, stage)
        own["workers"] = min(settings.workers, max(0, available_cores() - 1))
        return settings.model_copy(update={name: value for name, value in own.items() if value is not None})
