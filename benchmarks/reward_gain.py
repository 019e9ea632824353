"""A loss weighted by a reward against the loss alone, on the toybox: does the judge find more of the asked toys?

Every prompt and seed is run twice with the settings of `rewardsds image`, once with the weighting and once without,
from the same initial latent. The judge has been seen by no optimisation; of the rewards that are measured only the
first is optimised. Differences are paired; intervals are bootstrapped over prompts, whose seeds are averaged first.
What suits the weighted loss need not suit the plain one: `--tuned-plain` adds the plain loss with settings of its own,
as a second and harder rival. With `--loss vsd` the seeds of a prompt are particles of one estimator.

    python benchmarks/reward_gain.py [--loss sds] [--prompts 32] [--seeds 3] [--set NAME=VALUE …]
        [--tuned-plain NAME=VALUE …] [--out benchmarks/results/reward_gain_sds.json]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from batch import assigned, known_spec, optimise_latents
from paired import compare, table
from record import write_record
from rewardsds.distillation.losses import VSD
from rewardsds.priors.load import load_prior
from rewardsds.priors.lora import LoRAEstimator
from rewardsds.rewards.load import load_reward
from rewardsds.scenes.export import save_png
from rewardsds.tasks.parts import make_guidance, make_loss
from rewardsds.tasks.settings import LossName, TextToImageSettings
from rewardsds.tasks.text_to_image import make_scene
from rewardsds.toybox.captions import benchmark_prompts, known_kinds
from rewardsds.toybox.judge import load_judge


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--loss", default="sds", choices=get_args(LossName))
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", default="test", choices=["validation", "test"])
    parser.add_argument("--batch", type=int, default=32, help="items optimised side by side")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings of the task"
    )
    parser.add_argument(
        "--tuned-plain",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="also run the plain loss with these settings",
    )
    parser.add_argument(
        "--sheet", type=Path, help="also write a picture: one row a prompt, plain beside weighted"
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()

    overrides = assigned(options.set)
    methods = {"plain": {**overrides, "weighting": "none"}, "weighted": overrides}
    if options.tuned_plain:
        methods["tuned plain"] = {**overrides, **assigned(options.tuned_plain), "weighting": "none"}
    prior, judge = load_prior("toybox"), load_judge()
    rewards = {name: load_reward(name) for name in ("clip", "aesthetic", "image-reward")}
    prompts = benchmark_prompts(options.prompts, split=options.split, kinds=known_kinds(prior))
    results: dict[str, dict[str, np.ndarray]] = {}
    pictures: dict[str, Tensor] = {}
    kept: dict[str, TextToImageSettings] = {}
    for method, values in methods.items():
        given = {"prompt": prompts[0], "loss": options.loss, **values}
        settings = kept[method] = TextToImageSettings.model_validate(given).resolved()
        began, before = time.perf_counter(), prior.network_evaluations
        items = [(prompt, seed) for prompt in prompts for seed in range(options.seeds)]
        # An estimator is one prompt's.
        size = options.seeds if options.loss == "vsd" else options.batch
        images = torch.cat(
            [
                optimise(items[start : start + size], settings, prior, rewards["clip"])
                for start in range(0, len(items), size)
            ]
        )
        seconds = time.perf_counter() - began
        specs = [known_spec(prompt) for prompt, _ in items]
        shape = (options.prompts, options.seeds)
        with torch.no_grad():
            scores = {
                name: reward(images[None, :, None], [prompt for prompt, _ in items])[0].reshape(shape).numpy()
                for name, reward in rewards.items()
            }
        results[method] = {
            "judge finds": judge.finds(images, specs).reshape(shape).numpy(),
            "judge probability": judge.score(images, specs).reshape(shape).numpy(),
            "clip (optimised)": scores["clip"],
            "aesthetic": scores["aesthetic"],
            "image-reward": scores["image-reward"],
            "seconds a run": np.full(shape, seconds / len(items)),
            "network evaluations a run": np.full(shape, (prior.network_evaluations - before) / len(items)),
        }
        pictures[method] = images

    record = {
        "prompts": prompts,
        "seeds": options.seeds,
        "split": options.split,
        "settings": {method: settings.model_dump(mode="json") for method, settings in kept.items()},
        "weighted against": {
            rival: {name: compare(results[rival][name], results["weighted"][name]) for name in results[rival]}
            for rival in methods
            if rival != "weighted"
        },
    }
    print(
        f"{options.loss}: {options.prompts} prompts × {options.seeds} seeds, {kept['weighted'].steps} steps"
    )
    for rival, measures in record["weighted against"].items():
        print(table(rival, measures))
    if options.out:
        write_record(options.out, record)
    if options.sheet:
        write_sheet(pictures, options.seeds, options.sheet)


def optimise(items: list[tuple[str, int]], settings: TextToImageSettings, prior, reward) -> Tensor:
    """The pictures (B, 3, H, W) of B items, optimised side by side as `rewardsds image` does it one by one."""
    scene = make_scene(settings, prior, [seed for _, seed in items])
    loss = make_loss(settings, prior, reward)
    guidance = make_guidance(settings, prior, reward, loss)
    prompts, seeds = zip(*items)
    images = optimise_latents(scene, guidance, prior, prompts, seeds, settings.steps)
    if isinstance(loss, VSD) and isinstance(loss.estimator, LoRAEstimator):
        loss.estimator.remove()
    return images


def write_sheet(pictures: dict[str, Tensor], seeds: int, path: Path) -> None:
    """One row for two prompts; for each prompt the seeds of the plain loss, then those of every other method."""
    cells = [images.reshape(-1, seeds, *images.shape[1:]) for images in pictures.values()]
    rows = torch.cat(cells, dim=1).permute(0, 3, 1, 4, 2).flatten(2, 3)  # prompts, H, 2·seeds·W, 3
    if len(rows) % 2 == 0:
        rows = torch.cat([rows[0::2], rows[1::2]], dim=2)
    save_png(rows.flatten(0, 1).permute(2, 0, 1), path)


if __name__ == "__main__":
    main()
