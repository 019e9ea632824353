"""How much memory a reward-weighted step takes with published priors in their true sizes, beside their weights.

Steps are gone through without numbers, with fused attention; on a GPU `benchmarks/real_sizes.py` measures them.
`rewardsds doctor` plans with these figures.

    python benchmarks/step_memory.py [--out src/rewardsds/models/memory.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import rewardsds
from rewardsds.models import sizes
from rewardsds.scenes.files import atomic_path

FILE = Path(rewardsds.__file__).parent / "models" / "memory.json"
FEW, MANY = 4, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args()
    found = {}
    for name in sizes.PRIORS:
        prior = sizes.make(name, sizes.META, torch.bfloat16)
        peaks = [sizes.step_bytes(name, count) for count in (FEW, MANY)]
        found[name] = {
            "weights": sizes.weights_bytes(prior, texts=False),
            "text_encoders": sizes.weights_bytes(prior) - sizes.weights_bytes(prior, texts=False),
            "step": sizes.step_bytes(name, 1),
            "candidate": (peaks[1] - peaks[0]) // (MANY - FEW),
        }
        print(name, {key: f"{value / 2**30:.2f} GiB" for key, value in found[name].items()})
    with atomic_path(options.out) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
