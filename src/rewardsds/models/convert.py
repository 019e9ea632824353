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
from rewardsds.errors import RewardsdsError, SettingsError, some_of
from rewardsds.foreign import read_checkpoint, recipe_of, without_leftovers
from rewardsds.models.check import check
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
    """Writes the folder `out`, whole or not at all, after a forward pass of what was written gave finite numbers.

    companion: a folder or hub id for what the checkpoint does not hold, its tokenizer or an aesthetic head's CLIP;
        None: the usual one. half: write float16, which halves the size.
    prediction_type: of Stable Diffusion or MVDream, see `priors.original.parts`.

    Raises RewardsdsError in one line.
    """
    source, out = source.expanduser(), out.expanduser().absolute()
    if prediction_type is not None and recipe not in PRIORS:
        raise SettingsError(
            f"--prediction-type is of {' and '.join(PRIORS)}, {recipe} predicts nothing: leave it out"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RewardsdsError(f"{out} exists already: give another folder, or remove it")
    dtype = torch.float16 if half else torch.float32
    _require_recipe(recipe, source, dtype)
    partial = out
    try:
        # Where the folder is there, and may be the one that we are in, it is filled; else it comes in one piece.
        place = out if out.exists() else out.parent
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place, prefix=f".{out.name}-") as name:
            partial = Path(name) / "model"
            partial.mkdir()
            if recipe in PRIORS:
                _prior(source, partial, companion, dtype, prediction_type)
            else:
                _reward(source, partial, companion, dtype)
            check(partial)
            if place == out:
                for path in sorted(
                    partial.iterdir(), key=Path.is_file
                ):  # what says that a model is there comes last
                    shutil.move(path, out)
            else:
                shutil.move(partial, out)
    except ValueError as error:
        told = str(error).replace(str(partial), str(out))
        raise RewardsdsError(told) from error
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise RewardsdsError(f"{out} cannot be written: {reason}; nothing of it is left") from error
    return out


PRIORS: tuple[Recipe, ...] = ("stable-diffusion", "mvdream")


def _require_recipe(recipe: Recipe, source: Path, dtype: torch.dtype) -> None:
    """Raises RewardsdsError for a file of another model, or with weights that are no numbers, or none in `dtype`."""
    state = without_leftovers(_read(source))
    found = recipe_of(state)
    if found != recipe:
        raise RewardsdsError(
            f"{source} is no checkpoint of {recipe}{f', it is one of {found}' if found else ''}"
        )
    damaged = sorted(name for name, value in state.items() if not value.isfinite().all())
    if damaged:
        raise RewardsdsError(f"{source} is damaged: NaN or infinity in {some_of(damaged)}; get it again")
    large = sorted(name for name, value in state.items() if not value.to(dtype).isfinite().all())
    if large:
        most = max(float(state[name].double().abs().max()) for name in large)
        kind = str(dtype).removeprefix("torch.")
        advice = "convert it with --no-half" if dtype == torch.float16 else "get it in float32"
        raise RewardsdsError(
            f"{source} has numbers up to {most:.3g} in {some_of(large)}, which {kind} does not hold: {advice}"
        )


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
