"""The CLIP that scores pictures and whose text tower conditions the prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewardsds.toybox import captions
from rewardsds.toybox.data import ToyboxData
from rewardsds.toybox.models import TEXT_LENGTH, build_clip, export_clip, load_autoencoder, normalise
from rewardsds.toybox.specification import COLOURS, GROUNDS, KINDS, SceneSpec
from rewardsds.toybox.tokenizer import build_tokenizer
from rewardsds.toybox.train.common import Draws, Progress, fit, say, write_record
from rewardsds.toybox.train.feed import Rows
from rewardsds.toybox.train.negatives import hard_negatives
from rewardsds.toybox.train.pictures import (
    FRONT,
    as_pictures,
    augment,
    choose_views,
    grounds_of,
    kinds_of,
    reconstruct,
    truth,
)
from rewardsds.toybox.train.settings import StageSettings

RECONSTRUCTED = 0.25
"""Share of the pictures that pass through the autoencoder: the CLIP will score decoded previews."""


class Scaffold(nn.Module):
    """The CLIP with heads that are thrown away after training: which toys and what ground a picture shows.

    The contrastive loss alone needs many more pictures before patches mean anything, and it long treats a caption
    as a bag of words: swapped colours hardly change it. So pictures and captions alike say which (kind, colour)
    pairs they hold, by one set of directions in the space that they share. Another head binds kinds to colours at
    each patch, before the last layer, so that the pooled state has something to collect.
    """

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip
        width = clip.config.vision_config.hidden_size
        self.pairs = Directions(clip.config.projection_dim)
        self.kinds = nn.Linear(width, len(KINDS))
        self.ground = nn.Linear(width, len(GROUNDS))
        self.patches = Binding(width)

    def forward(self, pixels: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """Pixels (M, 3, 64, 64) normalised and tokens (L, T) → normalised embeddings and the heads' logits."""
        seen = self.clip.vision_model(pixel_values=pixels, output_hidden_states=True)
        pooled, patches = seen.pooler_output, seen.hidden_states[-2][:, 1:]
        read = self.clip.text_model(input_ids=tokens).pooler_output
        image = F.normalize(self.clip.visual_projection(pooled), dim=-1)
        text = F.normalize(self.clip.text_projection(read), dim=-1)
        patch_kinds, patch_pairs = self.patches(patches)
        return {
            "image": image,
            "text": text,
            "kinds": self.kinds(pooled),
            "pairs": self.pairs(image),
            "text_pairs": self.pairs(text),
            "ground": self.ground(pooled),
            "patch_kinds": patch_kinds,
            "patch_pairs": patch_pairs,
        }


class Directions(nn.Module):
    """A direction for each (kind, colour) in the space of embeddings: unit vectors (M, P) → logits (M, K, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.randn(len(KINDS) * len(COLOURS), width) * width**-0.5)
        self.scale = nn.Parameter(torch.tensor(20.0).log())
        self.bias = nn.Parameter(torch.full((len(KINDS) * len(COLOURS),), -6.0))

    def forward(self, embeddings: Tensor) -> Tensor:
        cosine = embeddings @ F.normalize(self.direction, dim=-1).T
        return (self.scale.exp() * cosine + self.bias).unflatten(-1, (len(KINDS), len(COLOURS)))


class Binding(nn.Module):
    """Which kinds, and which kinds in which colours, are somewhere among the places of a feature map.

    A place votes for kind k in colour c with k's score plus c's; the places' votes are joined by a soft
    maximum. (M, L, width) → kind logits (M, K) and pair logits (M, K, C).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kind = nn.Linear(width, len(KINDS))
        self.colour = nn.Linear(width, len(COLOURS))
        self.bias = nn.Parameter(torch.full((len(KINDS),), -7.0))
        self.pair_bias = nn.Parameter(torch.full((len(KINDS), len(COLOURS)), -9.0))

    def forward(self, places: Tensor) -> tuple[Tensor, Tensor]:
        kind, colour = self.kind(places).float(), self.colour(places).float()
        # Soft maximum over places, stable: each row is taken out at its largest value and put back.
        top_kind, top_colour = kind.amax(1, keepdim=True), colour.amax(1, keepdim=True)
        votes = torch.einsum("mlk,mlc->mkc", (kind - top_kind).exp(), (colour - top_colour).exp())
        top = top_kind.squeeze(1)[:, :, None] + top_colour.squeeze(1)[:, None, :]
        pairs = votes.clamp_min(1e-12).log() + top + self.pair_bias
        return kind.logsumexp(1) + self.bias, pairs


def presence_loss(logits: Tensor, present: Tensor, asked: Tensor, positive: float) -> Tensor:
    """Binary cross-entropy, a mean over pictures of the sum over questions; present ones weigh `positive`."""
    weight = asked * (1 + (positive - 1) * present)
    return (
        (F.binary_cross_entropy_with_logits(logits, present, reduction="none") * weight)
        .flatten(1)
        .sum(1)
        .mean()
    )


class Batch(NamedTuple):
    """M pictures and 3M captions: their own, and two wrong ones of each. Masks are bool.

    scenes, views, grounds: (M,). tokens: (3M, T). present, asked: (M, K, C), of the pictures (`truth`); said_present,
    said_asked: (3M, K, C), of the captions (`said_pairs`). same: (M, M), `same_toys`.
    """

    scenes: Tensor
    views: Tensor
    grounds: Tensor
    tokens: Tensor
    present: Tensor
    asked: Tensor
    said_present: Tensor
    said_asked: Tensor
    same: Tensor


def draw_batch(data: ToyboxData, tokenizer: Any, count: int, seed: int, step: int) -> Batch:
    rng = Draws.of(seed, step).numpy
    scenes = rng.integers(0, len(data), count)
    views = choose_views(data, scenes, rng)
    said = [spec for specs in true_and_wrong(data, scenes, views, rng) for spec in specs]
    present, asked = truth(data, scenes, views)
    said_present, said_asked = said_pairs(said)
    return Batch(
        torch.from_numpy(scenes),
        torch.from_numpy(views),
        grounds_of(data, scenes),
        shortened(tokenise(tokenizer, [captions.describe(spec, rng) for spec in said]), tokenizer),
        present.bool(),
        asked.bool(),
        said_present.bool(),
        said_asked.bool(),
        same_toys(data, scenes),
    )


def true_and_wrong(
    data: ToyboxData, scenes: np.ndarray, views: np.ndarray, rng: np.random.Generator
) -> tuple[list[SceneSpec], ...]:
    """Of each picture the true scene, and two `hard_negatives`: three lists of M."""
    described: tuple[list[SceneSpec], ...] = ([], [], [])
    for scene, view in zip(scenes, views):
        spec, toys = data.scenes[scene]["spec"], data.scenes[scene]["toys"]
        negatives = hard_negatives(spec, toys, bool(view == FRONT), rng, data.kinds)
        for specs, one in zip(described, (spec, *negatives)):
            specs.append(one)
    return described


def train_clip(
    data: ToyboxData,
    out: Path,
    settings: StageSettings,
    seed: int = 0,
    device: str = "cpu",
    log: Callable[[str], None] = say,
    stop_after: int | None = None,
) -> Progress:
    """Trains and exports to out/weights/clip and out/weights/prior/{text_encoder,tokenizer}.

    Loss: symmetric InfoNCE in the batch, with two wrong captions of each picture's own added (colours swapped
    between toys, a wrong colour, a wrong kind, left for right), and the presence losses of `Scaffold`. Pairs
    of scenes with the same toys are no negatives of each other: their captions may fit both.
    """
    tokenizer: Any = build_tokenizer(data.kinds)
    autoencoder = load_autoencoder(out / "weights").to(device, memory_format=torch.channels_last)
    torch.manual_seed(seed + 1)
    model = Scaffold(build_clip(tokenizer)).to(device)
    views = Rows(data.views, device)

    def loss(step: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        draws = Draws.of(seed + 1, step, device)
        images = as_pictures(views[batch.scenes, batch.views])
        images = augment(reconstruct(autoencoder, images, draws, RECONSTRUCTED), draws)
        found = model(normalise(images), batch.tokens)
        present, asked = batch.present.float(), batch.asked.float()
        kinds, asked_kinds = kinds_of(present, asked)
        contrast, accuracy = contrastive_loss(
            found["image"], found["text"], model.clip.logit_scale, batch.same
        )
        heads = presence_loss(found["pairs"], present, asked, 4.0) + presence_loss(
            found["patch_pairs"], present, asked, 4.0
        )
        texts = presence_loss(found["text_pairs"], batch.said_present.float(), batch.said_asked.float(), 4.0)
        heads = heads + 0.5 * presence_loss(found["kinds"], kinds, asked_kinds, 2.0)
        heads = heads + 0.5 * presence_loss(found["patch_kinds"], kinds, asked_kinds, 2.0)
        ground = F.cross_entropy(found["ground"], batch.grounds)
        value = contrast + 0.1 * (heads + texts) + 0.1 * ground
        return value, {
            "contrast": contrast.detach(),
            "heads": heads.detach(),
            "texts": texts.detach(),
            "ground": ground.detach(),
            "top1": accuracy,
        }

    folder = out / "clip"
    draw = partial(draw_batch, data, tokenizer, settings.batch, seed + 1)
    progress = fit(model, draw, loss, settings, folder, log, stop_after)
    if progress.finished:
        export_clip(model.clip, tokenizer, out / "weights")
        write_record(folder, settings, progress, device, scenes=len(data), seed=seed)
    return progress


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric InfoNCE (arXiv 2103.00020) with own wrong captions: image (M, P), text (3M, P), same (M, M).

    The text's rows are M true captions and twice M wrong ones. Returns the loss and the share of pictures
    whose own caption scores highest.
    """
    count = len(image)
    scale = scale.exp().clamp(max=100)
    true, wrong, other = text.split(count)
    logits = (scale * image @ true.T).masked_fill(
        same & ~torch.eye(count, dtype=torch.bool, device=same.device), -1e4
    )
    own = scale * torch.stack([(image * wrong).sum(-1), (image * other).sum(-1)], dim=1)
    target = torch.arange(count, device=image.device)
    forwards = torch.cat([logits, own], dim=1)
    value = 0.5 * (F.cross_entropy(forwards, target) + F.cross_entropy(logits.T, target))
    return value, (forwards.detach().argmax(1) == target).float().mean()


def said_pairs(specs: Sequence[SceneSpec]) -> tuple[Tensor, Tensor]:
    """Which (kind, colour) pairs scenes name, as `truth` says it of pictures: present and asked, (L, K, C).

    A group without a colour leaves open which colour of its kind is meant: none of them is asked.
    """
    present = torch.zeros(len(specs), len(KINDS), len(COLOURS))
    asked = torch.ones_like(present)
    for row, spec in enumerate(specs):
        for group in spec.groups:
            if group.colour is None:
                asked[row, KINDS.index(group.kind)] = 0
            else:
                present[row, KINDS.index(group.kind), COLOURS.index(group.colour)] = 1
    return present, torch.maximum(asked, present)


def same_toys(data: ToyboxData, scenes) -> Tensor:
    """(M, M) whether two scenes show the same toys in the same colours."""
    names = [tuple(sorted(data.scenes[scene]["toys"])) for scene in scenes]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    labels = torch.tensor([numbers[name] for name in names])
    return labels[:, None] == labels[None, :]


def tokenise(tokenizer: Any, texts: list[str]) -> Tensor:
    """(M, 24) ids, padded."""
    return tokenizer(
        texts, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids


def shortened(tokens: Tensor, tokenizer: Any) -> Tensor:
    """Without the padding that all rows share: what follows a caption's end is never read."""
    return tokens[:, : int((tokens != tokenizer.pad_token_id).sum(dim=1).max())].contiguous()
