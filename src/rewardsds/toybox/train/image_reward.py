"""The toybox's ImageReward: which of two pictures fits a caption better, and looks better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipVisionConfig

from rewardsds.rewards.image_reward import ImageReward, ImageRewardNetwork
from rewardsds.toybox import captions
from rewardsds.toybox.data import ToyboxData
from rewardsds.toybox.models import (
    IMAGE_SIZE,
    PIXEL_MEAN,
    PIXEL_STD,
    TEXT_LENGTH,
    load_autoencoder,
    load_clip,
    normalise,
)
from rewardsds.toybox.specification import COLOURS, KINDS, SceneSpec
from rewardsds.toybox.tokenizer import build_tokenizer
from rewardsds.toybox.train.clip import Binding, presence_loss, shortened, tokenise, true_and_wrong
from rewardsds.toybox.train.common import Draws, Progress, fit, say, write_record
from rewardsds.toybox.train.damage import damage, draw_damage
from rewardsds.toybox.train.feed import Rows
from rewardsds.toybox.train.pictures import (
    as_pictures,
    augment,
    choose_views,
    kinds_of,
    pictures,
    reconstruct,
    truth,
)
from rewardsds.toybox.train.settings import StageSettings

RECONSTRUCTED = 0.4
MARGIN = 0.15
"""Of two pictures whose utilities differ by less, neither is preferred."""
QUALITY = 0.6
"""What a damage of severity 1 costs, where a caption without any of its toys costs 1."""
WIDTHS = (64, 16, 1)


def build_network(tokenizer: Any, width: int = 160, vision_layers: int = 4, text_layers: int = 2) -> Any:
    """BLIP's towers at the size of the toybox: pictures of 64 pixels in patches of 8, captions of 24 words."""
    shared: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": width // 32,
    }
    vision = BlipVisionConfig(
        **shared, num_hidden_layers=vision_layers, image_size=IMAGE_SIZE, patch_size=8, hidden_act="gelu"
    )
    text = BlipTextConfig(
        **shared,
        encoder_hidden_size=width,
        vocab_size=max(tokenizer.get_vocab().values()) + 1,
        num_hidden_layers=text_layers,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        sep_token_id=tokenizer.eos_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return ImageRewardNetwork(vision, text, WIDTHS)


def start_from_clip(network: ImageRewardNetwork, clip: Any) -> None:
    """Gives both towers what the CLIP has learned, where they are built alike: its layers, patches and words.

    ImageReward too starts from towers that know pictures and captions: BLIP's.
    """
    seen, read = clip.vision_model, clip.text_model
    vision = network.vision
    with torch.no_grad():
        vision.embeddings.patch_embedding.weight.copy_(seen.embeddings.patch_embedding.weight)
        vision.embeddings.class_embedding.copy_(seen.embeddings.class_embedding.reshape(1, 1, -1))
        vision.embeddings.position_embedding.copy_(seen.embeddings.position_embedding.weight[None])
        layers: Any = vision.encoder.layers
        for ours, theirs in zip(layers, seen.encoder.layers):
            attention = theirs.self_attn
            parts = (attention.q_proj, attention.k_proj, attention.v_proj)
            ours.self_attn.qkv.weight.copy_(torch.cat([part.weight for part in parts]))
            ours.self_attn.qkv.bias.copy_(torch.cat([part.bias for part in parts]))
            ours.self_attn.projection.load_state_dict(attention.out_proj.state_dict())
            for name in ("layer_norm1", "layer_norm2", "mlp"):
                getattr(ours, name).load_state_dict(getattr(theirs, name).state_dict())
        words = network.text.embeddings.word_embeddings.weight
        words.copy_(read.embeddings.token_embedding.weight[: len(words)])


class Scaffold(nn.Module):
    """The network with a head that is thrown away: which coloured toys the patches show, as in the CLIP's training."""

    def __init__(self, network: ImageRewardNetwork) -> None:
        super().__init__()
        self.network = network
        self.patches = Binding(network.vision.config.hidden_size)


class Batch(NamedTuple):
    """(M,) scenes, (M,) views, (2, M) shares of `Scenes.aligned`, what `truth` says of the pictures as bool (M, K, C),
    and the tokens (3, M, T) of the true captions and of two wrong ones.
    """

    scenes: Tensor
    views: Tensor
    aligned: Tensor
    present: Tensor
    asked: Tensor
    tokens: Tensor


def draw_batch(data: ToyboxData, tokenizer: Any, count: int, seed: int, step: int) -> Batch:
    rng = Draws.of(seed, step).numpy
    drawn = draw_scenes(data, count, rng)
    said = [captions.describe(spec, rng) for specs in drawn.described for spec in specs]
    return Batch(
        torch.from_numpy(drawn.scenes),
        torch.from_numpy(drawn.views),
        drawn.aligned,
        drawn.present.bool(),
        drawn.asked.bool(),
        shortened(tokenise(tokenizer, said), tokenizer).unflatten(0, (3, -1)),
    )


def train_image_reward(
    data: ToyboxData,
    out: Path,
    settings: StageSettings,
    seed: int = 0,
    device: str = "cpu",
    log: Callable[[str], None] = say,
    stop_after: int | None = None,
) -> Progress:
    """Trains and exports to out/weights/image-reward.

    Loss: for each caption, pictures of the true scene and of another one, each as it is and damaged, are ranked by
    their utilities (Bradley-Terry over all pairs that differ enough, as in ImageReward); and a picture scores higher
    with its caption than with two that are wrong in one respect.
    """
    tokenizer: Any = build_tokenizer(data.kinds)
    autoencoder = load_autoencoder(out / "weights").to(device, memory_format=torch.channels_last)
    torch.manual_seed(seed + 6)
    network = build_network(tokenizer)
    start_from_clip(network, load_clip(out / "weights"))
    model = Scaffold(network).to(device)
    views = Rows(data.views, device)

    def loss(step: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        draws = Draws.of(seed + 6, step, device)
        images = as_pictures(views[batch.scenes, batch.views])
        images, utilities = compared(images, batch.aligned, draws, autoencoder)
        tokens, mask = batch.tokens, (batch.tokens != tokenizer.pad_token_id).long()

        seen = network.vision(pixel_values=normalise(images.flatten(0, 1))).last_hidden_state
        own, damaged = seen.unflatten(0, (2, -1))
        other, damaged_other = own.roll(-1, 0), damaged.roll(-1, 0)
        shown = torch.cat([own, damaged, other, damaged_other, own, own])
        captioned = [0, 0, 0, 0, 1, 2]
        scores = network.score(
            shown, torch.cat([tokens[i] for i in captioned]), torch.cat([mask[i] for i in captioned])
        )
        scores = scores.unflatten(0, (6, -1))
        ranking, right = ranking_loss(scores[:4], utilities)
        wrong = F.softplus(scores[4:] - scores[:1]).mean()
        present, asked = batch.present.float(), batch.asked.float()
        kinds, asked_kinds = kinds_of(present, asked)
        found_kinds, found_pairs = model.patches(own[:, 1:])
        heads = presence_loss(found_pairs, present, asked, 4.0)
        heads = heads + 0.5 * presence_loss(found_kinds, kinds, asked_kinds, 2.0)
        return ranking + wrong + 0.1 * heads, {
            "ranking": ranking.detach(),
            "wrong": wrong.detach(),
            "heads": heads.detach(),
            "right": right,
            "right_captions": (scores[:1] > scores[4:]).float().mean(),
        }

    folder = out / "image-reward"
    draw = partial(draw_batch, data, tokenizer, settings.batch, seed + 6)
    progress = fit(model, draw, loss, settings, folder, log, stop_after)
    if progress.finished:
        mean, std = spread(network.eval(), data, tokenizer, autoencoder, settings.batch, seed, device)
        reward = ImageReward(network, tokenizer, mean, std, PIXEL_MEAN, PIXEL_STD, TEXT_LENGTH)
        reward.save_pretrained(out / "weights" / "image-reward")
        write_record(folder, settings, progress, device, scenes=len(data), seed=seed + 6)
    return progress


@dataclass(frozen=True, eq=False)
class Scenes:
    """M scenes and views of them, what `truth` says of the pictures, and the true scenes with two lists of wrong ones.

    aligned: (2, M) share of what caption m names that picture m shows, and that picture m + 1 does.
    """

    scenes: np.ndarray
    views: np.ndarray
    present: Tensor
    asked: Tensor
    described: tuple[list[SceneSpec], ...]
    aligned: Tensor


def draw_scenes(data: ToyboxData, count: int, rng: np.random.Generator) -> Scenes:
    """Half of the scenes are followed by one that shares a kind or a colour with them."""
    scenes = related_scenes(data, count, rng)
    views = choose_views(data, scenes, rng)
    present, asked = truth(data, scenes, views)
    described = true_and_wrong(data, scenes, views, rng)
    aligned = [alignment(described[0], shown) for shown in (present, present.roll(-1, 0))]
    return Scenes(scenes, views, present, asked, described, torch.stack(aligned))


def compared(images: Tensor, aligned: Tensor, draws: Draws, autoencoder: Any) -> tuple[Tensor, Tensor]:
    """Images and utilities of `Preferences`, of pictures (M, 3, H, W) and of `Scenes.aligned`."""
    images = reconstruct(autoencoder, images, draws, RECONSTRUCTED)
    severity, kinds = draw_damage(len(images), draws)
    versions = torch.stack([augment(images, draws, 0.5), damage(images, severity, kinds, draws)])
    own, other = aligned
    utilities = [own, own - QUALITY * severity, other, other - QUALITY * severity.roll(-1, 0)]
    return versions, torch.stack(utilities)


@dataclass(frozen=True, eq=False)
class Preferences:
    """M captions, each with four pictures and how good each of them is.

    images: (2, M, 3, H, W): scenes as they are, and damaged. Caption m belongs to scene m; its other two pictures
        are those of scene m + 1.
    utilities: (4, M) of the own picture, the own damaged, the other, and the other damaged.
    described: the true scenes, and two lists of wrong ones.
    """

    images: Tensor
    utilities: Tensor
    described: tuple[list[SceneSpec], ...]


def preferences(data: ToyboxData, count: int, draws: Draws, autoencoder: Any) -> Preferences:
    """Draws a batch, on the device of the draws."""
    drawn = draw_scenes(data, count, draws.numpy)
    device = draws.torch.device
    images = pictures(data, drawn.scenes, drawn.views, device)
    return Preferences(*compared(images, drawn.aligned.to(device), draws, autoencoder), drawn.described)


def related_scenes(data: ToyboxData, count: int, rng: np.random.Generator, tries: int = 48) -> np.ndarray:
    """(M,) scenes; every second one has, where `tries` draws find one, most in common with the scene before it."""
    scenes = rng.integers(0, len(data), count)
    for place in range(0, count - 1, 2):
        drawn = rng.integers(0, len(data), tries)
        scenes[place + 1] = max(drawn, key=partial(_in_common, data, scenes[place]))
    return scenes


def _in_common(data: ToyboxData, first: int, second: int) -> int:
    """How much of two scenes' toys is alike; −1 where they show the same."""
    toys, others = set(data.scenes[first]["toys"]), set(data.scenes[second]["toys"])
    if toys == others:
        return -1
    kinds, colours = {kind for kind, _ in toys}, {colour for _, colour in toys}
    return sum(2 * (kind in kinds) + (colour in colours) for kind, colour in others)


def alignment(specs: list[SceneSpec], present: Tensor) -> Tensor:
    """(M,) share of the groups that a caption names which a picture (M, K, C) shows; half for the kind alone."""
    shares = []
    for spec, shown in zip(specs, present):
        found = []
        for group in spec.groups:
            row = shown[KINDS.index(group.kind)]
            of_kind = float(row.amax())
            found.append(
                of_kind
                if group.colour is None
                else 0.5 * of_kind + 0.5 * float(row[COLOURS.index(group.colour)])
            )
        shares.append(sum(found) / len(found))
    return torch.tensor(shares)


def ranking_loss(scores: Tensor, utilities: Tensor) -> tuple[Tensor, Tensor]:
    """Bradley-Terry over the pairs of pictures (P, M) of a caption, and the share of pairs in the right order."""
    better = utilities[:, None] - utilities[None, :] > MARGIN
    ahead = scores[:, None] - scores[None, :]
    count = better.sum().clamp_min(1)
    return (F.softplus(-ahead) * better).sum() / count, ((ahead > 0) & better).sum() / count


@torch.no_grad()
def spread(
    network: ImageRewardNetwork,
    data: ToyboxData,
    tokenizer: Any,
    autoencoder: Any,
    batch: int,
    seed: int,
    device: str,
) -> tuple[float, float]:
    """Mean and deviation of the raw scores over fresh preferences, as ImageReward standardises its own."""
    found = []
    for index in range(8):
        draws = Draws.of(seed + 61, index, device)
        group = preferences(data, batch, draws, autoencoder)
        tokens = tokenise(tokenizer, [captions.describe(spec, draws.numpy) for spec in group.described[0]])
        tokens = tokens.to(device)
        mask = (tokens != tokenizer.pad_token_id).long()
        for images in (*group.images, *group.images.roll(-1, 1)):
            found.append(network(normalise(images), tokens, mask))
    scores = torch.cat(found)
    return float(scores.mean()), float(scores.std())
