"""What a reward-weighted step costs beside a plain one: seconds by stage, and network evaluations.

Plain SDS against RewardSDS (N = 4, S = 1, CLIP reward), for single pictures (V = 1) and sets of four views.

    python benchmarks/step_cost.py                          # the toybox prior and its CLIP
    python benchmarks/step_cost.py --prior DIR --reward DIR # any other

Prints a table and writes benchmarks/results/step_cost.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from record import write_record
from rewardsds import BestWorst, RewardSDS, Uniform, load_prior, load_reward
from rewardsds.priors.base import Prior
from rewardsds.rewards.base import Reward
from rewardsds.scenes.cameras import sample_orbit_group

STAGES = ("encode", "predict", "rollout", "decode", "reward", "loss", "backward")
RESULTS = Path(__file__).parent / "results" / "step_cost.json"


def measure(guidance: RewardSDS, views: int, repeats: int) -> dict[str, Any]:
    """Medians over `repeats` steps after a warm-up, forward and backward to pictures of the prior's size."""
    size = guidance.prior.image_size
    generator = torch.Generator().manual_seed(0)
    device = guidance.prior.alphas_cumprod.device
    images = torch.rand(1, views, 3, size, size, generator=generator).to(device).requires_grad_()
    cameras = sample_orbit_group(generator, views=views).camera_to_world.to(device)
    seconds: dict[str, list[float]] = {stage: [] for stage in (*STAGES, "total")}
    for repeat in range(repeats + 2):
        images.grad = None
        start = time.perf_counter()
        loss = guidance(images, "a green apple and a black backpack", cameras=cameras)
        before_backward = time.perf_counter()
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        end = time.perf_counter()
        if repeat < 2:
            continue
        spent = {**guidance.record.seconds, "backward": end - before_backward, "total": end - start}
        for stage, values in seconds.items():
            values.append(spent.get(stage, 0.0))
    return {
        "network_evaluations": guidance.record.network_evaluations,
        "milliseconds": {
            stage: round(1000 * statistics.median(values), 3) for stage, values in seconds.items()
        },
    }


def compare(prior: Prior, reward: Reward, repeats: int) -> list[dict[str, Any]]:
    rows = []
    for views in (1, 4):
        plain = measure(RewardSDS(prior, weighting=Uniform()), views, repeats)
        weighted = measure(RewardSDS(prior, reward, candidates=4, weighting=BestWorst(k=1)), views, repeats)
        ratio = weighted["milliseconds"]["total"] / plain["milliseconds"]["total"]
        rows.append({"views": views, "method": "SDS", **plain})
        rows.append({"views": views, "method": "RewardSDS N=4 S=1", **weighted, "times_sds": round(ratio, 2)})
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    result = Table(title="One step, milliseconds (median)")
    for column in ("views", "method", "UNet images", *STAGES, "total", "× SDS"):
        result.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        times = [f"{row['milliseconds'][stage]:.1f}" for stage in (*STAGES, "total")]
        result.add_row(
            str(row["views"]),
            row["method"],
            str(row["network_evaluations"]),
            *times,
            str(row.get("times_sds", "1")),
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prior", default="toybox", help="'toybox', a folder, or a hub id")
    parser.add_argument("--reward", default="clip", help="'clip', a folder, or a hub id")
    parser.add_argument("--device", default=None, help="CUDA where it is available unless said otherwise")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    try:
        prior = load_prior(options.prior, options.device)
        reward = load_reward(options.reward, options.device)
    except ValueError as error:
        sys.exit(f"error: {error}")
    rows = compare(prior, reward, options.repeats)
    Console(width=150).print(table(rows))
    result = {
        "prior": options.prior,
        "reward": options.reward,
        "repeats": options.repeats,
        "rows": rows,
    }
    write_record(options.out, result, str(prior.alphas_cumprod.device))
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
