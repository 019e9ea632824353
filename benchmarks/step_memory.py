"""How much memory a reward-weighted step takes with published priors in their true sizes, beside their weights.

Steps are gone through without numbers, with fused attention, in half precision of both kinds and in fp32; on a GPU
`benchmarks/real_sizes.py` measures them. `rewardsds doctor` plans with these figures.

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
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
FEW, MANY = 4, 10


def measured(name: str, dtype: torch.dtype) -> dict[str, int]:
    """Bytes; see `rewardsds.models.doctor.sizes`."""
    prior = sizes.make(name, sizes.META, dtype)
    texts = [sizes.weights_bytes(encoder) for encoder in prior.text_encoders]
    few, many = (sizes.step_bytes(name, count, dtype=dtype) for count in (FEW, MANY))
    return {
        "weights": sizes.weights_bytes(prior.network, prior.vae),
        "text_encoders": sum(texts),
        "largest_text_encoder": max(texts),
        "step": sizes.step_bytes(name, 1, dtype=dtype),
        "candidate": (many - few) // (MANY - FEW),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args()
    found: dict[str, dict[str, dict[str, int]]] = {}
    for name in sizes.PRIORS:
        found[name] = {}
        for precision, dtype in PRECISIONS.items():
            size = found[name][precision] = measured(name, dtype)
            print(name, precision, {key: f"{value / 2**30:.2f} GiB" for key, value in size.items()})
    with atomic_path(options.out) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
