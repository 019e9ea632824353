"""How long the toybox world takes to render four-view training sets of 64×64 pixels.

python benchmarks/toybox_renderer.py [--sets 2000] [--out benchmarks/results/toybox_renderer.json]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

from record import write_record
from rewardsds.scenes.cameras import orbit
from rewardsds.toybox.captions import sample_spec
from rewardsds.toybox.render import render
from rewardsds.toybox.world import build

ASKED = 40_000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/toybox_renderer.json"))
    options = parser.parse_args()

    render_sets(0, 16)  # compile
    began = time.perf_counter()
    for start in range(0, options.sets, 128):
        render_sets(start, min(128, options.sets - start))
    seconds = time.perf_counter() - began
    record = {
        "sets": options.sets,
        "views": 4 * options.sets,
        "seconds": seconds,
        "milliseconds_per_view": 250 * seconds / options.sets,
        f"minutes_for_{ASKED}_sets": seconds / options.sets * ASKED / 60,
    }
    print(json.dumps(record, indent=1))
    write_record(options.out, record)


def render_sets(start: int, count: int) -> None:
    """Scenes are drawn, laid out and rendered, as for training."""
    scenes, azimuths = [], []
    for index in range(start, start + count):
        rng = np.random.default_rng((0, index))
        scenes.append(build(sample_spec(rng), rng))
        azimuths.append(rng.uniform(0, 2 * math.pi) + np.arange(4) * math.pi / 2)
    azimuth = torch.tensor(np.concatenate(azimuths), dtype=torch.float32)
    fov = torch.full_like(azimuth, math.radians(40.0))
    cameras = orbit(azimuth, torch.full_like(azimuth, 0.3), 1.0 / torch.tan(0.5 * fov), fov)
    render(
        scenes,
        np.repeat(np.arange(count), 4),
        cameras.camera_to_world.numpy(),
        cameras.field_of_view.numpy(),
    )


if __name__ == "__main__":
    main()
