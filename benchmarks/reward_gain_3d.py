"""RewardSDS against SDS in 3D, on the toybox: what the judge finds in views that no optimisation has seen.

Every prompt and seed is a run of `rewardsds 3d` with the weighting and one without, from the same start, kept in a
folder of runs: what is finished is not made again, what was stopped goes on. As in the paper (arXiv 2503.09601, section
4.2) an object is judged over 10 random views. Beside the judge: the three rewards, of which the first is optimised;
how far neighbouring views of a turntable disagree, which grows with the contrast of the object's colours, so that it is
told beside it, and at equal contrast too; and second faces, by the judge of views, for prompts whose toys it
can tell. Differences are paired; intervals are bootstrapped over prompts, whose seeds are averaged first.

    python benchmarks/reward_gain_3d.py [--backbone gaussians] [--prompts 16] [--seeds 2] [--set NAME=VALUE …]
        [--runs runs/reward_gain_3d] [--sheet SHEET.png] [--out benchmarks/results/gain_3d_gaussians.json]
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from batch import assigned, known_spec
from paired import compare, compare_at_equal, table
from record import write_record
from rewardsds.evaluation.consistency import reprojection_error
from rewardsds.evaluation.janus import measure_janus
from rewardsds.evaluation.settings import VIEWS
from rewardsds.evaluation.views import held_out_views
from rewardsds.priors.load import load_prior
from rewardsds.rewards.base import Reward
from rewardsds.rewards.load import load_reward
from rewardsds.runs.folder import RunFolder
from rewardsds.scenes.export import render_turntable, turntable_cameras, write_contact_sheet
from rewardsds.scenes.object3d import Object3D
from rewardsds.tasks.objects import load_objects
from rewardsds.tasks.run import resume, run
from rewardsds.tasks.settings import TextTo3DSettings
from rewardsds.toybox.captions import benchmark_prompts, known_kinds
from rewardsds.toybox.judge import Judge, load_judge
from rewardsds.toybox.view_judge import ViewJudge, load_view_judge

QUIET = Console(file=io.StringIO())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backbone", default="gaussians", choices=["gaussians", "nerf"])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--split", default="test", choices=["validation", "test"])
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings of the task"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/reward_gain_3d"), help="where runs are kept")
    parser.add_argument(
        "--sheet", type=Path, help="also write a picture: one row a prompt and seed, plain | weighted"
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()

    overrides = assigned(options.set)
    methods = {"plain": {**overrides, "weighting": "none"}, "weighted": overrides}
    prompts = benchmark_prompts(options.prompts, split=options.split, kinds=known_kinds(load_prior("toybox")))
    items = [(prompt, seed) for prompt in prompts for seed in range(options.seeds)]
    folders: dict[tuple[str, str, int], Path] = {}
    for prompt, seed in items:  # both methods of an item after each other: a part of the runs is a fair part
        for method, values in methods.items():
            given = {
                "prompt": prompt, "seed": seed, "backbone": options.backbone, "video_frames": 2, "video_size": 64,
                "candidate_previews": 0, "previews_every": 0, **values,
            }  # fmt: skip
            settings = TextTo3DSettings.model_validate(given)
            name = settings.default_out().name
            folders[method, prompt, seed] = made(settings, options.runs / options.backbone / method / name)
            print(f"{options.backbone} {method}: {prompt}, seed {seed}", flush=True)

    judge, view_judge = load_judge(), load_view_judge()
    rewards = {name: load_reward(name) for name in ("clip", "aesthetic", "image-reward")}
    shape = (options.prompts, options.seeds)
    results: dict[str, dict[str, np.ndarray]] = {}
    sheet: dict[str, list[Tensor]] = {}
    for method in methods:
        rows = []
        for prompt, seed in items:
            folder = folders[method, prompt, seed]
            one = load_objects(folder, QUIET)[0]
            rows.append(measured(one, prompt, seed, folder, judge, view_judge, rewards))
            sides = render_turntable(one.render_images, turntable_cameras(4), 96)
            sheet.setdefault(method, []).append(torch.cat(list(sides), dim=-1))
        results[method] = {name: np.array([row[name] for row in rows]).reshape(shape) for name in rows[0]}

    sides_of_all = np.stack([results[method]["back as front"] for method in methods])
    told = np.asarray(~np.isnan(sides_of_all).any(axis=(0, 2)))
    record: dict[str, Any] = {
        "backbone": options.backbone,
        "prompts": prompts,
        "prompts whose sides are told": [prompts[index] for index in np.flatnonzero(told)],
        "seeds": options.seeds,
        "split": options.split,
        "settings": overrides,
        "weighted against plain": {
            name: compare(*(results[method][name][told if name in SIDED else ...] for method in methods))
            for name in results["plain"]
            if name not in SIDED or told.sum() > 1
        }
        | {
            "reprojection error at equal contrast": compare_at_equal(
                *(results[method][name] for name in ("reprojection error", "contrast") for method in methods)
            )
        },
    }
    print(f"{options.backbone}: {options.prompts} prompts × {options.seeds} seeds")
    print(table("plain", record["weighted against plain"]))
    if options.out:
        write_record(options.out, record)
    if options.sheet:
        pairs = [picture for both in zip(*sheet.values()) for picture in both]
        captions = [
            f"{prompt}, {seed}, {method}: finds {results[method]['judge finds'].reshape(-1)[index]:.0%}"
            for index, (prompt, seed) in enumerate(items)
            for method in methods
        ]
        write_contact_sheet(pairs, options.sheet, columns=2, captions=captions)


SIDED = ("back as front", "fronts")
"""Measures that only prompts have whose largest toys' sides the judge of views can tell, in all results of them. They
are left out of fewer than two."""


def made(settings: TextTo3DSettings, folder: Path) -> Path:
    """The folder of a finished run, which is made, continued or taken as it is."""
    if RunFolder(folder).is_run:
        resume(folder, console=QUIET)
    else:
        run(settings.model_copy(update={"out": folder}), console=QUIET)
    return folder


def measured(
    one: Object3D,
    prompt: str,
    seed: int,
    folder: Path,
    judge: Judge,
    view_judge: ViewJudge,
    rewards: dict[str, Reward],
) -> dict[str, float]:
    images = one.render_images(held_out_views(seed), 64)[0]  # V 3 64 64
    spec = known_spec(prompt)
    consistency = reprojection_error(one)
    sided = all(group.kind in view_judge.kinds for group in spec.groups)
    janus = None
    if sided:
        with suppress(ValueError):  # of an object without a front it cannot be told
            janus = measure_janus(one, view_judge)
    result = RunFolder(folder).read_results()

    def mean(score: Callable[[Tensor, list], Tensor]) -> float:
        return float(score(images, [spec] * len(images)).mean())

    with torch.no_grad():
        scores = {
            name: float(reward(images[None, :, None], [prompt] * VIEWS).mean())
            for name, reward in rewards.items()
        }
    return {
        "judge finds": mean(judge.finds),
        "judge probability": mean(judge.score),
        "clip (optimised)": scores["clip"],
        "aesthetic": scores["aesthetic"],
        "image-reward": scores["image-reward"],
        "reprojection error": consistency.error,
        "reprojection error over contrast": consistency.relative_error,
        "contrast": consistency.contrast,
        "back as front": janus.back_as_front if janus else math.nan,
        "fronts": janus.fronts if janus else math.nan,
        "seconds a run": result["seconds"],
        "network evaluations a run": result["network_evaluations"],
    }


if __name__ == "__main__":
    main()
