"""From an original checkpoint to a folder that `--prior` or `--reward` takes."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rewardsds.catalogue import BERT, CLIP_H, CLIP_L, SD21_BASE, Recipe
from rewardsds.errors import RewardsdsError
from rewardsds.foreign import read_checkpoint
from rewardsds.pretrained import quiet_loading

COMPANIONS: dict[Recipe, str] = {
    "mvdream": SD21_BASE,
    "image-reward": BERT,
    "reward3d": BERT,
    "hps": CLIP_H,
    "aesthetic": CLIP_L,
}
"""Whose tokenizer a converted model gets; of aesthetic, the CLIP whose features the head reads."""


def convert(
    recipe: Recipe, source: Path, out: Path, companion: str | None = None, *, half: bool = True
) -> Path:
    """Writes the folder `out`, whole or not at all.

    companion: a folder or hub id for what the checkpoint does not hold, see `COMPANIONS`.
    half: write float16, which halves the size. Raises RewardsdsError in one line.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RewardsdsError(f"{out} exists already: give another folder, or remove it")
    companion = companion or COMPANIONS[recipe]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as name:
        partial = Path(name) / "model"
        partial.mkdir()
        try:
            RECIPES[recipe](source, partial, companion, torch.float16 if half else torch.float32)
        except ValueError as error:
            raise RewardsdsError(str(error)) from error
        if out.exists():
            out.rmdir()
        shutil.move(partial, out)
    return out


def _mvdream(source: Path, out: Path, companion: str, dtype: torch.dtype) -> None:
    from rewardsds.priors.original import mvdream_parts

    tokenizer = _tokenizer(companion, "tokenizer")
    unet, vae, text_encoder, scheduler = mvdream_parts(read_checkpoint(source))
    for part, model in (("unet", unet), ("vae", vae), ("text_encoder", text_encoder)):
        whole: Any = model
        whole.to(dtype).save_pretrained(out / part)
    scheduler.save_pretrained(out / "scheduler")
    tokenizer.save_pretrained(out / "tokenizer")
    _write_json(out / "model_index.json", {"_class_name": "MVDream"})


def _image_reward(source: Path, out: Path, companion: str, dtype: torch.dtype) -> None:
    from rewardsds.rewards.image_reward import ImageReward
    from rewardsds.rewards.original import image_reward_network

    tokenizer = _bert(companion)
    network = image_reward_network(read_checkpoint(source))
    ImageReward(network, tokenizer, length=_length(network)).save_pretrained(out, dtype)


def _reward3d(source: Path, out: Path, companion: str, dtype: torch.dtype) -> None:
    from rewardsds.rewards.reward3d import Reward3D, reward3d_network

    tokenizer = _bert(companion)
    network = reward3d_network(read_checkpoint(source))
    Reward3D(network, tokenizer, length=_length(network.views)).save_pretrained(out, dtype)


def _length(network: Any) -> int:
    """Of captions in tokens: ImageReward's 35, or what the text encoder has positions for."""
    from rewardsds.rewards.image_reward import LENGTH

    return min(LENGTH, network.text.config.max_position_embeddings)


def _hps(source: Path, out: Path, companion: str, dtype: torch.dtype) -> None:
    from rewardsds.rewards.original import clip_from_open_clip

    tokenizer = _tokenizer(companion)
    model: Any = clip_from_open_clip(read_checkpoint(source))
    model.to(dtype).save_pretrained(out)
    tokenizer.save_pretrained(out)
    _write_json(out / "reward.json", {"fit": "pad", "scaled": False})


def _aesthetic(source: Path, out: Path, companion: str, dtype: torch.dtype) -> None:
    from rewardsds.rewards.aesthetic import load_head

    load_head(source)  # it has to be one
    state = {name: value.to(dtype).contiguous() for name, value in read_checkpoint(source).items()}
    save_file(state, out / "model.safetensors")
    _write_json(out / "config.json", {"model_type": "aesthetic", "clip": companion})


RECIPES: dict[Recipe, Callable[[Path, Path, str, torch.dtype], None]] = {
    "mvdream": _mvdream,
    "image-reward": _image_reward,
    "reward3d": _reward3d,
    "hps": _hps,
    "aesthetic": _aesthetic,
}


def _tokenizer(companion: str, subfolder: str | None = None) -> Any:
    from transformers import AutoTokenizer

    folder = Path(companion).expanduser()
    inner = subfolder if subfolder and (not folder.is_dir() or (folder / subfolder).is_dir()) else ""
    try:
        with quiet_loading():
            return AutoTokenizer.from_pretrained(str(companion), subfolder=inner)
    except (OSError, ValueError) as error:
        raise RewardsdsError(
            f"the tokenizer of {companion} cannot be loaded: fetch it with a network, or give a folder that has it "
            "with --companion FOLDER"
        ) from error


def _bert(companion: str) -> Any:
    """BERT's tokenizer with BLIP's two additional tokens, so that numbers stay within its 30,524 embeddings."""
    tokenizer = _tokenizer(companion)
    tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    return tokenizer


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
