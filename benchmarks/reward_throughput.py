"""Pictures scored in a second: rewards on tensors, as they are, against the usual way through PIL, one by one.

The usual way is what evaluation scripts do: a picture goes to the CPU, becomes a PIL image of bytes, is resized and
normalised there, comes back, and is scored alone; its text is read again each time. The model is the same.

    python benchmarks/reward_throughput.py [--pictures 40] [--size 512] [--device cpu]
        [--out benchmarks/results/reward_throughput.json]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from record import write_record
from rewardsds.rewards.clip import CLIPReward
from rewardsds.rewards.image_reward import ImageReward
from rewardsds.rewards.load import load_reward

PROMPT = "a penguin wearing a red hat"


def through_pil(image: Tensor, size: int, mean: Tensor, std: Tensor) -> Tensor:
    """(3, H, W) in [0, 1] → (1, 3, size, size) normalised."""
    array = (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(array).resize((size, size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].to(mean.device) / 255
    return (pixels - mean) / std


def clip_by_pil(reward: CLIPReward, images: Tensor) -> list[float]:
    model, device = reward.model, reward.model.device
    size: int = model.config.vision_config.image_size
    scores = []
    for image in images:
        seen = model.get_image_features(
            pixel_values=through_pil(image, size, reward._mean, reward._std)
        ).pooler_output
        tokens = reward.tokenizer(PROMPT, return_tensors="pt")["input_ids"].to(device)
        read = model.get_text_features(input_ids=tokens).pooler_output
        scores.append(float(F.cosine_similarity(seen, read)))
    return scores


def image_reward_by_pil(reward: ImageReward, images: Tensor) -> list[float]:
    network = reward.network
    device = next(network.parameters()).device
    size: Any = network.vision.config.image_size
    scores = []
    for image in images:
        tokens = reward.tokenizer(
            PROMPT, padding="max_length", truncation=True, max_length=reward.length, return_tensors="pt"
        ).to(device)
        raw = network(
            through_pil(image, size, reward._image_mean, reward._image_std),
            tokens["input_ids"],
            tokens["attention_mask"],
        )
        scores.append((float(raw) - reward.mean) / reward.std)
    return scores


def rates(
    ways: Sequence[Callable[[], object]], pictures: int, repeats: int, device: torch.device
) -> list[float]:
    """Pictures a second of each way, medians of `repeats` after one; by turns, so that a busy minute slows all."""
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(repeats + 1):
        for run, taken in zip(ways, seconds):
            began = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken.append(time.perf_counter() - began)
    return [pictures / statistics.median(taken[1:]) for taken in seconds]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pictures", type=int, default=40, help="ten candidates of four views")
    parser.add_argument("--size", type=int, default=512, help="pixels of a picture")
    parser.add_argument("--rewards", nargs="+", default=["clip", "image-reward"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()
    device = torch.device(options.device)
    images = torch.rand(options.pictures, 3, options.size, options.size).to(device)
    rows = []
    for name in options.rewards:
        reward: Any = load_reward(name, device, torch.float32)
        by_pil: Callable[[], list[float]] = partial(
            clip_by_pil if isinstance(reward, CLIPReward) else image_reward_by_pil, reward, images
        )
        ours = reward(images[:, None, None], [PROMPT])[:, 0].cpu()
        theirs = torch.tensor(by_pil())
        together = partial(reward, images[:, None, None], [PROMPT])
        batched, alone = rates([together, by_pil], len(images), options.repeats, device)
        rows.append(
            {
                "reward": name,
                "pictures_a_second": round(batched, 1),
                "by_pil": round(alone, 1),
                "times": round(batched / alone, 2),
                "largest_difference": round(float((ours - theirs).abs().max()), 5),
            }
        )
        print(rows[-1])
    if options.out:
        figures = {"pictures": options.pictures, "size": options.size, "rows": rows}
        write_record(options.out, figures, options.device)


if __name__ == "__main__":
    main()
