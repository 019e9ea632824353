"""The multi-view diffusion prior, in latent space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rewardsds.priors.multiview import camera_embedding, enable_multiview_attention
from rewardsds.toybox import captions
from rewardsds.toybox.data import ToyboxData
from rewardsds.toybox.models import (
    LATENT_SHAPE,
    build_scheduler,
    build_unet,
    encode_images,
    export_unet,
    load_autoencoder,
    load_text_encoder,
)
from rewardsds.toybox.tokenizer import build_tokenizer
from rewardsds.toybox.train.clip import tokenise
from rewardsds.toybox.train.common import Draws, Progress, fit, say, write_record
from rewardsds.toybox.train.feed import Rows
from rewardsds.toybox.train.pictures import FRONT, pictures
from rewardsds.toybox.train.settings import StageSettings

DROPPED = 0.1
"""Share of the captions replaced by "", for classifier-free guidance (arXiv 2207.12598)."""
SINGLE = 0.25
"""Share of the batches that are single front views without a pose: the camera embedding is zero."""
VIEWS = 4


class Batch(NamedTuple):
    """Scenes (M, 1), views of each (V,), and tokens (M, 24) of their captions or of ""."""

    scenes: Tensor
    views: Tensor
    tokens: Tensor


def draw_batch(data: ToyboxData, tokenizer: Any, count: int, seed: int, step: int) -> Batch:
    rng = Draws.of(seed, step).numpy
    views = torch.tensor([FRONT]) if rng.random() < SINGLE else torch.arange(VIEWS)
    scenes = rng.integers(0, len(data), count * VIEWS // len(views))
    texts = [captions.describe(data.scenes[scene]["spec"], rng) for scene in scenes]
    dropped = rng.random(len(texts)) < DROPPED
    texts = ["" if gone else text for text, gone in zip(texts, dropped)]
    return Batch(torch.from_numpy(scenes)[:, None], views, tokenise(tokenizer, texts))


def train_prior(
    data: ToyboxData,
    out: Path,
    settings: StageSettings,
    seed: int = 0,
    device: str = "cpu",
    log: Callable[[str], None] = say,
    stop_after: int | None = None,
    compiled: bool = False,
) -> Progress:
    """Trains and exports to out/weights/prior/{unet,scheduler}.

    Loss: squared error of the predicted noise, weighted by `min_snr_weights`, at `spread_timesteps`; the four
    views of a scene share the timestep, as in MVDream (arXiv 2308.16512, section 3.2). Single-view
    batches hold as many pictures as the four-view ones, so that every step costs the same.
    """
    weights = out / "weights"
    tokenizer = build_tokenizer(data.kinds)
    text_encoder = load_text_encoder(weights).to(device)
    latents, poses = Rows(cached_latents(data, out, device, log), device), Rows(data.poses, device)
    torch.manual_seed(seed + 2)
    model = build_unet().to(device, memory_format=torch.channels_last)
    enable_multiview_attention(model)
    call = torch.compile(model, dynamic=False) if compiled else model
    alphas = build_scheduler().alphas_cumprod.to(device)
    weights_of = min_snr_weights(alphas)

    def loss(step: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        draws = Draws.of(seed + 2, step, device)
        views = len(batch.views)
        single = views == 1
        clean = latents[batch.scenes, batch.views].to(torch.float32).flatten(0, 1)
        with torch.no_grad():
            states = text_encoder(batch.tokens).last_hidden_state
        if single:
            cameras = clean.new_zeros((len(clean), 16))
        else:
            cameras = camera_embedding(poses[batch.scenes, batch.views]).flatten(0, 1)
        times = spread_timesteps(len(batch.scenes), len(alphas), draws.torch).repeat_interleave(views)
        noise = draws.normal(*clean.shape)
        kept = alphas[times][:, None, None, None]
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        predicted = call(
            noisy.contiguous(memory_format=torch.channels_last),
            times,
            states.repeat_interleave(views, dim=0),
            class_labels=cameras,
            cross_attention_kwargs={"views": views},
        ).sample
        error = (predicted - noise).square().mean(dim=(1, 2, 3))
        value = (weights_of[times] * error).mean()
        return value, {"single" if single else "four": error.detach().mean()}

    folder = out / "prior"
    draw = partial(draw_batch, data, tokenizer, settings.batch, seed + 2)
    progress = fit(model, draw, loss, settings, folder, log, stop_after)
    if progress.finished:
        export_unet(model, weights)
        write_record(folder, settings, progress, device, scenes=len(data), seed=seed)
    return progress


def spread_timesteps(number: int, steps: int, generator: torch.Generator) -> Tensor:
    """(number,) timesteps below `steps`, each of them uniform, together evenly spread over the whole range; on the
    generator's device.

    One shared uniform offset, the low-discrepancy sampler of arXiv 2107.00630: less noise in the loss than independent
    draws have.
    """
    device = generator.device
    offset = torch.rand((), generator=generator, dtype=torch.float64, device=device)
    fractions = (offset + torch.arange(number, dtype=torch.float64, device=device) / number) % 1
    return (fractions * steps).long().clamp_(max=steps - 1)


def min_snr_weights(alphas_cumprod: Tensor, most: float = 5.0) -> Tensor:
    """min(SNR, 5) / SNR for ε-prediction (arXiv 2303.09556, section 3.4), for every timestep.

    A short training should spend itself on what is where in which colour, which is settled at high noise;
    with the plain error most of the gradient comes from the last details at low noise.
    """
    ratio = alphas_cumprod / (1 - alphas_cumprod)
    return ratio.clamp(max=most) / ratio


def cached_latents(data: ToyboxData, out: Path, device: str, log: Callable[[str], None] = say) -> np.ndarray:
    """(M, 5, 4, 16, 16) float16 scaled latents of all views, memory-mapped from out/prior/latents.npy.

    Written anew when the autoencoder or the scenes have changed.
    """
    weights = out / "weights"
    folder = out / "prior"
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(data), data.views.shape[1], *LATENT_SHAPE)
    of = {
        "autoencoder": _digest(weights / "prior" / "vae"),
        "data": _digest_of_data(data),
        "shape": list(shape),
    }
    path, note = folder / "latents.npy", folder / "latents.json"
    if path.exists() and note.exists() and json.loads(note.read_text()) == of:
        return np.load(path, mmap_mode="r")
    log(f"encoding {shape[0] * shape[1]} pictures")
    note.unlink(missing_ok=True)
    autoencoder: Any = load_autoencoder(weights).to(device, memory_format=torch.channels_last)
    latents = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    with torch.no_grad():
        for start in range(0, len(data), 32):
            scenes = np.arange(start, min(start + 32, len(data)))
            rows, views = np.repeat(scenes, shape[1]), np.tile(np.arange(shape[1]), len(scenes))
            coded = encode_images(autoencoder, pictures(data, rows, views, device))
            latents[start : start + len(scenes)] = coded.cpu().contiguous().numpy().reshape(-1, *shape[1:])
            if start % 4096 == 0 and start:
                log(f"encoded {start * shape[1]} of {shape[0] * shape[1]} pictures")
    latents.flush()
    note.write_text(json.dumps(of))
    return np.load(path, mmap_mode="r")


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _digest_of_data(data: ToyboxData) -> str:
    return hashlib.sha256(np.ascontiguousarray(data.poses).tobytes()).hexdigest()
