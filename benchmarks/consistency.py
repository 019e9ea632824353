"""How much of the reprojection error is the object's: against an opaque surface of the same colours.

    python benchmarks/consistency.py FOLDER [--rival SDS] [--ours RewardSDS]
        [--out benchmarks/results/consistency.json]

FOLDER: a finished comparison of objects (`rewardsds compare`) with both methods. An object's colours differ between
neighbouring views where it is inconsistent, and also by what pictures of a size can show: pixels between texels, soft
edges in front of what lies behind. The mesh that is exported from an object has one colour at every place, the same
from everywhere, so that its error is of the second kind alone. Differences are paired; intervals are bootstrapped over
prompts, whose seeds are averaged first.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

import numpy as np
from rich.console import Console

from paired import compare, table
from record import write_record
from rewardsds.evaluation.consistency import reprojection_error
from rewardsds.scenes.mesh.make import make_mesh
from rewardsds.scenes.mesh.scene import MeshScene
from rewardsds.tasks.objects import load_objects, read_run

QUIET = Console(file=io.StringIO())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rival", default="SDS")
    parser.add_argument("--ours", default="RewardSDS")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = {name: errors(given.folder, name) for name in (given.rival, given.ours)}
    if found[given.rival].keys() != found[given.ours].keys():
        raise SystemExit(f"{given.folder} has other prompts or seeds of {given.rival} than of {given.ours}")
    prompts = sorted({prompt for prompt, _ in found[given.ours]})
    seeds = sorted({seed for _, seed in found[given.ours]})
    rival, ours = (
        np.array([[found[name][prompt, seed] for seed in seeds] for prompt in prompts])
        for name in (given.rival, given.ours)
    )
    measures = {
        "reprojection error": compare(rival[..., 0], ours[..., 0]),
        "of an opaque surface": compare(rival[..., 1], ours[..., 1]),
        "beyond that": compare(rival[..., 0] - rival[..., 1], ours[..., 0] - ours[..., 1]),
    }
    print(table(given.ours, measures))
    if given.out is not None:
        backbone = read_run(given.folder / results(given.folder, given.ours)[0]["result"]).backbone
        about = {"benchmark": "consistency", "backbone": backbone, "rival": given.rival, "ours": given.ours}
        sizes = {"prompts": len(prompts), "seeds": len(seeds)}
        write_record(given.out, {**about, **sizes, "measures": measures})


def results(folder: Path, method: str) -> list[dict[str, str]]:
    """Lines of the comparison's table of a method."""
    with (folder / "comparison.csv").open(encoding="utf-8", newline="") as file:
        found = [line for line in csv.DictReader(file) if line["method"] == method and line["result"]]
    if not found:
        raise SystemExit(f"no results of {method} in {folder}")
    return found


def errors(folder: Path, method: str) -> dict[tuple[str, int], tuple[float, float]]:
    """Of a method's results, by prompt and seed: the error of the object, and of its mesh."""
    found = {}
    for line in results(folder, method):
        (scene,) = load_objects(folder / line["result"], QUIET)
        surface = MeshScene(make_mesh(scene), camera=scene.camera, background=scene.background)
        own, opaque = reprojection_error(scene).error, reprojection_error(surface).error
        found[line["prompt"], int(line["seed"])] = own, opaque
        print(f"{method}, {line['prompt']}, seed {line['seed']}: {own:.4f}, {opaque:.4f}", file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
