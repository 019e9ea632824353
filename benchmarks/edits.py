"""RewardDDS against DDS on exact edits: one toy of a true picture recoloured or replaced.

The toybox renders the same scene before and after, so both halves of an edit can be measured: whether the judge
finds the new toy (and still the other one), and how little changed outside the edited toy's mask.

    python benchmarks/edits.py [--edits 48] [--set NAME=VALUE …] [--out benchmarks/results/edits.json] [--sheet FILE]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from batch import assigned, optimise_latents
from paired import compare, table
from record import write_record
from rewardsds.distillation.losses import DDS
from rewardsds.evaluation.edits import ExactEdit, make_edits
from rewardsds.priors.load import load_prior
from rewardsds.rewards.load import load_reward
from rewardsds.scenes.export import save_png
from rewardsds.scenes.image import LatentImageScene, LatentImageSettings
from rewardsds.tasks.parts import make_guidance
from rewardsds.tasks.settings import EditSettings
from rewardsds.toybox.captions import describe, known_kinds
from rewardsds.toybox.judge import load_judge


def edit(edits: list[ExactEdit], settings: EditSettings, prior, reward) -> Tensor:
    """(B, 3, 64, 64): all edits side by side, as `rewardsds edit` makes them one by one."""
    with torch.no_grad():
        reference = prior.encode(torch.stack([one.before for one in edits])[:, None])
    scene = LatentImageScene.from_latents(
        reference, LatentImageSettings(learning_rate=settings.learning_rate)
    )
    source = prior.condition([describe(one.source) for one in edits])
    loss = DDS(reference, source, settings.resolved_guidance_scale)
    guidance = make_guidance(settings, prior, reward, loss)
    targets = [describe(one.target) for one in edits]
    return optimise_latents(scene, guidance, prior, targets, range(len(edits)), settings.steps)


def measure(images: Tensor, edits: list[ExactEdit], judge, reward) -> dict[str, np.ndarray]:
    """Each (edits, 1)."""
    asked = judge.asked(images, [one.target for one in edits])
    new = torch.stack([answer[one.changed] for answer, one in zip(asked, edits)])
    kept = torch.stack([answer[1 - one.changed] for answer, one in zip(asked, edits)])
    outside = torch.stack([1 - one.mask for one in edits])[:, None]
    before = torch.stack([one.before for one in edits])
    error = ((images - before).square() * outside).sum((1, 2, 3)) / (3 * outside.sum((1, 2, 3)))
    with torch.no_grad():
        clip = reward(images[None, :, None], [describe(one.target) for one in edits])[0]
    found = {
        "judge finds the new toy": (new > 0.5).float(),
        "judge finds the other toy": (kept > 0.5).float(),
        "judge finds both": ((new > 0.5) & (kept > 0.5)).float(),
        "PSNR outside the mask, dB": -10 * error.log10(),
        "reward (optimised)": clip,
    }
    return {name: value[:, None].numpy() for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--edits", type=int, default=48)
    parser.add_argument("--split", default="test", choices=["validation", "test"])
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings of the task"
    )
    parser.add_argument(
        "--sheet", type=Path, help="also write a picture: before, DDS, RewardDDS, the true edit"
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()

    overrides = assigned(options.set)
    prior, reward, judge = load_prior("toybox"), load_reward("clip"), load_judge()
    edits = make_edits(options.edits, options.split, known_kinds(prior))
    given = {"picture": "true picture", "source": "each its own", "target": "each its own"}
    results, pictures, kept, seconds = {}, {}, {}, {}
    for method, extra in (("dds", {"weighting": "none"}), ("rewarddds", {})):
        kept[method] = EditSettings.model_validate({**given, **overrides, **extra})
        began = time.perf_counter()
        pictures[method] = edit(edits, kept[method], prior, reward)
        seconds[method] = time.perf_counter() - began
        results[method] = measure(pictures[method], edits, judge, reward)
    with torch.no_grad():
        coded = prior.decode(prior.encode(torch.stack([one.before for one in edits])[:, None]))[:, 0]
    record = {
        "edits": [[describe(one.source), describe(one.target)] for one in edits],
        "split": options.split,
        "settings": {method: settings.model_dump(mode="json") for method, settings in kept.items()},
        "seconds for all": seconds,
        "unedited, through the autoencoder": {
            name: float(value.mean()) for name, value in measure(coded, edits, judge, reward).items()
        },
        "rewarddds against dds": {
            name: compare(results["dds"][name], results["rewarddds"][name]) for name in results["dds"]
        },
    }
    print(
        f"{options.edits} edits, {kept['dds'].steps} steps; unedited: {record['unedited, through the autoencoder']}"
    )
    print(table("dds", record["rewarddds against dds"]))
    if options.out:
        write_record(options.out, record)
    if options.sheet:
        columns = [torch.stack([one.before for one in edits]), *pictures.values()]
        columns.append(torch.stack([one.after for one in edits]))
        rows = torch.cat(columns, dim=3)  # B, 3, H, 4 W
        rows = rows[: len(rows) // 4 * 4].unflatten(0, (-1, 4)).permute(0, 2, 3, 1, 4).flatten(3, 4)
        save_png(rows.transpose(0, 1).flatten(1, 2), options.sheet)


if __name__ == "__main__":
    main()
