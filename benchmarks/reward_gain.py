"""RewardSDS against SDS on the toybox: does the judge find more of the asked toys?

Every prompt and seed is run twice with the settings of `rewardsds image`, once with the weighting and once as
plain SDS, from the same initial latent. The judge has been seen by no optimisation. Differences are paired;
intervals are bootstrapped over prompts, whose seeds are averaged first. What suits RewardSDS need not suit SDS:
`--tuned-sds` adds plain SDS with settings of its own, as a second and harder rival.

    python benchmarks/reward_gain.py [--prompts 32] [--seeds 3] [--set NAME=VALUE …] [--tuned-sds NAME=VALUE …]
        [--out benchmarks/results/reward_gain.json]
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from batch import known_spec, optimise_latents
from paired import compare, table
from rewardsds.hardware import hardware
from rewardsds.priors.load import load_prior
from rewardsds.rewards.load import load_reward
from rewardsds.tasks.parts import make_guidance, make_loss
from rewardsds.tasks.settings import TextToImageSettings
from rewardsds.tasks.text_to_image import make_scene
from rewardsds.toybox.captions import benchmark_prompts, known_kinds
from rewardsds.toybox.judge import load_judge


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", default="test", choices=["validation", "test"])
    parser.add_argument("--batch", type=int, default=32, help="items optimised side by side")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings of the task"
    )
    parser.add_argument(
        "--tuned-sds",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="also run plain SDS with these settings",
    )
    parser.add_argument(
        "--sheet", type=Path, help="also write a picture: one row a prompt, SDS beside RewardSDS"
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()

    overrides = dict(item.split("=", 1) for item in options.set)
    methods = {"sds": {**overrides, "weighting": "none"}, "rewardsds": overrides}
    if options.tuned_sds:
        tuned = dict(item.split("=", 1) for item in options.tuned_sds)
        methods["tuned sds"] = {**overrides, **tuned, "weighting": "none"}
    prior, reward, judge = load_prior("toybox"), load_reward("clip"), load_judge()
    prompts = benchmark_prompts(options.prompts, split=options.split, kinds=known_kinds(prior))
    results: dict[str, dict[str, np.ndarray]] = {}
    pictures: dict[str, Tensor] = {}
    kept: dict[str, TextToImageSettings] = {}
    for method, values in methods.items():
        settings = kept[method] = TextToImageSettings.model_validate({"prompt": prompts[0], **values})
        began, before = time.perf_counter(), prior.network_evaluations
        items = [(prompt, seed) for prompt in prompts for seed in range(options.seeds)]
        images = torch.cat(
            [
                optimise(items[start : start + options.batch], settings, prior, reward)
                for start in range(0, len(items), options.batch)
            ]
        )
        seconds = time.perf_counter() - began
        specs = [known_spec(prompt) for prompt, _ in items]
        shape = (options.prompts, options.seeds)
        with torch.no_grad():
            clip = reward(images[None, :, None], [prompt for prompt, _ in items])[0]
        results[method] = {
            "judge finds": judge.finds(images, specs).reshape(shape).numpy(),
            "judge probability": judge.score(images, specs).reshape(shape).numpy(),
            "reward (optimised)": clip.reshape(shape).numpy(),
            "seconds a run": np.full(shape, seconds / len(items)),
            "network evaluations a run": np.full(shape, (prior.network_evaluations - before) / len(items)),
        }
        pictures[method] = images

    record = {
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "prompts": prompts,
        "seeds": options.seeds,
        "split": options.split,
        "settings": {method: settings.model_dump(mode="json") for method, settings in kept.items()},
        "rewardsds against": {
            rival: {
                name: compare(results[rival][name], results["rewardsds"][name]) for name in results[rival]
            }
            for rival in methods
            if rival != "rewardsds"
        },
    }
    print(f"{options.prompts} prompts × {options.seeds} seeds, {kept['rewardsds'].steps} steps")
    for rival, measures in record["rewardsds against"].items():
        print(table(rival, measures))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    if options.sheet:
        write_sheet(pictures, options.seeds, options.sheet)


def optimise(items: list[tuple[str, int]], settings: TextToImageSettings, prior, reward) -> Tensor:
    """The pictures (B, 3, H, W) of B items, optimised side by side as `rewardsds image` does it one by one."""
    scene = make_scene(settings, prior, [seed for _, seed in items])
    guidance = make_guidance(settings, prior, reward, make_loss(settings, prior, reward))
    prompts, seeds = zip(*items)
    return optimise_latents(scene, guidance, prior, prompts, seeds, settings.steps)


def write_sheet(pictures: dict[str, Tensor], seeds: int, path: Path) -> None:
    """One row for two prompts; for each prompt the seeds of SDS, then those of every other method."""
    cells = [images.reshape(-1, seeds, *images.shape[1:]) for images in pictures.values()]
    rows = torch.cat(cells, dim=1).permute(0, 3, 1, 4, 2).flatten(2, 3)  # prompts, H, 2·seeds·W, 3
    if len(rows) % 2 == 0:
        rows = torch.cat([rows[0::2], rows[1::2]], dim=2)
    sheet = (rows.flatten(0, 1) * 255).round().to(torch.uint8).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)


if __name__ == "__main__":
    main()
