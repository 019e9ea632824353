"""Training of the toybox's networks: `train(TrainSettings(...))`, or `python -m rewardsds.toybox.train`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rewardsds.toybox.train.settings import STAGES, StageName, StageSettings, TrainSettings

if TYPE_CHECKING:
    from rewardsds.toybox.data import ToyboxData

__all__ = ["STAGES", "StageName", "StageSettings", "TrainSettings", "train"]


def train(settings: TrainSettings, log: Callable[[str], None] | None = None) -> Path:
    """Runs the stages asked for, each from its last checkpoint on; returns the folder of exported weights.

    Where stages have workers, a script that calls this does so under `if __name__ == "__main__"`: they import it.
    `log` takes lines of progress (standard error without it). Raises ValueError when a stage needs a model
    that has not been trained yet, or for data and checkpoints that do not fit.
    """
    import torch

    from rewardsds.toybox.train.common import say

    log = log or say
    stages = STAGES if settings.stage == "all" else (settings.stage,)
    settings.out.mkdir(parents=True, exist_ok=True)
    cuda = settings.resolved_device().startswith("cuda")
    for stage in stages:
        log(f"— {stage}")
        # TF32 is several times faster, and exact enough to train, not to measure
        torch.set_float32_matmul_precision("high" if cuda and stage != "card" else "highest")
        _run(stage, settings, log)
    return settings.out / "weights"


def _run(stage: StageName, settings: TrainSettings, log: Callable[[str], None]) -> None:
    own = settings.resolve(stage)
    out, device, seed = settings.out, settings.resolved_device(), settings.seed
    if stage == "autoencoder":
        from rewardsds.toybox.train.autoencoder import train_autoencoder

        train_autoencoder(_data(settings, "train", log), out, own, seed, device, log)
    elif stage == "clip":
        from rewardsds.toybox.train.clip import train_clip

        train_clip(_data(settings, "train", log), out, own, seed, device, log)
    elif stage == "prior":
        from rewardsds.toybox.train.prior import train_prior

        train_prior(_data(settings, "train", log), out, own, seed, device, log, compiled=settings.compile)
    elif stage == "aesthetic":
        from rewardsds.toybox.train.aesthetic import train_aesthetic

        train_aesthetic(_data(settings, "train", log), out, own, seed, device, log)
    elif stage == "image-reward":
        from rewardsds.toybox.train.image_reward import train_image_reward

        train_image_reward(_data(settings, "train", log), out, own, seed, device, log)
    elif stage == "judge":
        from rewardsds.toybox.train.judge import train_judge

        train_judge(_data(settings, "judge", log), out, own, seed, device, log)
    elif stage == "view-judge":
        from rewardsds.toybox.train.view_judge import train_view_judge

        judged, validation = (
            with_yaws(_data(settings, name, log), settings.data / name) for name in ("judge", "validation")
        )
        train_view_judge(judged, validation, out, own, seed, device, log)
    else:
        from rewardsds.toybox.train.card import write_card

        write_card(_data(settings, "validation", log), out, own.batch, seed, device, log)


def with_yaws(data: ToyboxData, folder: Path) -> ToyboxData:
    """The data set. Raises ValueError where it does not say which way its toys face."""
    if not data.has_yaws:
        raise ValueError(f"{folder} does not say which way its toys face: delete it, it is rendered anew")
    return data


def _data(settings: TrainSettings, name: str, log: Callable[[str], None]):
    """The data set `name` of the run's data folder, rendered first where it is missing."""
    from rewardsds.toybox.data import generate, load

    folder = settings.data / name
    kinds, sets = settings.scenes()
    if (folder / "scenes.jsonl").exists():
        data = load(folder)
        if settings.kinds is not None and data.kinds != kinds:
            raise ValueError(
                f"{folder} shows other kinds of toy than --kinds {settings.kinds}: name another folder"
            )
        return data
    share, seed, split = {
        "train": (1, 0, "train"),
        "judge": (4, 1, "train"),
        "validation": (20, 2, "validation"),
    }[name]
    sets = max(sets // share, 1)
    log(f"rendering {sets} scenes into {folder}")

    def report(done: int, total: int) -> None:
        if done % 2048 == 0:
            log(f"rendered {done} of {total} scenes")

    return generate(folder, sets, settings.seed + seed, split, kinds, settings.workers, report)
