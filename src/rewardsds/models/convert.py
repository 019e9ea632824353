"""From an original checkpoint to a folder that `--prior` or `--reward` takes."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from rewardsds.catalogue import Recipe
from rewardsds.errors import RewardsdsError
from rewardsds.foreign import read_checkpoint, recipe_of
from rewardsds.priors.diffusion import DiffusionPrior
from rewardsds.priors.load import prior_from_file
from rewardsds.priors.original import PredictionType, noise_schedule
from rewardsds.rewards.clip import CLIPReward
from rewardsds.rewards.files import COMPANIONS, reward_from_file
from rewardsds.rewards.image_reward import ImageReward


def convert(
    recipe: Recipe,
    source: Path,
    out: Path,
    companion: str | None = None,
    *,
    half: bool = True,
    prediction_type: PredictionType | None = None,
) -> Path:
    """Writes the folder `out`, whole or not at all.

    companion: a folder or hub id for what the checkpoint does not hold, its tokenizer or an aesthetic head's CLIP;
        None: the usual one. half: write float16, which halves the size.
    prediction_type: of Stable Diffusion, see `priors.original.parts`.

    Raises RewardsdsError in one line.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RewardsdsError(f"{out} exists already: give another folder, or remove it")
    found = recipe_of(_read(source))
    if found != recipe:
        raise RewardsdsError(
            f"{source} is no checkpoint of {recipe}{f', it is one of {found}' if found else ''}"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as name:
        partial = Path(name) / "model"
        partial.mkdir()
        try:
            dtype = torch.float16 if half else torch.float32
            if recipe in ("mvdream", "stable-diffusion"):
                _prior(source, partial, companion, dtype, prediction_type)
            else:
                _reward(source, partial, companion, dtype)
        except ValueError as error:
            raise RewardsdsError(str(error)) from error
        except (OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:160]
            raise RewardsdsError(f"{out} cannot be written: {reason}; nothing of it is left") from error
        if out.exists():
            out.rmdir()
        shutil.move(partial, out)
    return out


def _read(source: Path) -> dict[str, Tensor]:
    try:
        return read_checkpoint(source)
    except ValueError as error:
        raise RewardsdsError(str(error)) from error


def _prior(
    source: Path,
    out: Path,
    companion: str | None,
    dtype: torch.dtype,
    prediction_type: PredictionType | None,
) -> None:
    prior = prior_from_file(source, torch.device("cpu"), dtype, None, companion, prediction_type)
    if not isinstance(prior, DiffusionPrior):
        prior.pipeline.save_pretrained(out)
        return
    for part, model in (("unet", prior.network), ("vae", prior.vae), ("text_encoder", prior.text_encoder)):
        model.save_pretrained(out / part)
    noise_schedule(prior.prediction_type).save_pretrained(out / "scheduler")  # pyright: ignore[reportArgumentType]
    prior.tokenizer.save_pretrained(out / "tokenizer")
    _write_json(
        out / "model_index.json", {"_class_name": "MVDream" if prior.multiview else "StableDiffusion"}
    )


def _reward(source: Path, out: Path, companion: str | None, dtype: torch.dtype) -> None:
    reward = reward_from_file(source, torch.device("cpu"), torch.float32, companion)
    if isinstance(reward, ImageReward):  # Reward3D too
        reward.save_pretrained(out, dtype)
    elif isinstance(reward, CLIPReward):
        reward.model.to(dtype).save_pretrained(out)
        reward.tokenizer.save_pretrained(out)
        _write_json(out / "reward.json", {"fit": reward.fit})
    else:
        state = {name: value.to(dtype).contiguous() for name, value in _read(source).items()}
        save_file(state, out / "model.safetensors")
        clip = Path(companion or COMPANIONS["aesthetic"]).expanduser()
        place = str(clip.resolve()) if clip.is_dir() else str(clip)  # it is looked for from any folder
        _write_json(out / "config.json", {"model_type": "aesthetic", "clip": place})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
