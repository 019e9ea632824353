"""A step's seconds by how long OpenMP's threads spin, on idle cores and beside other runs of the same kind.

The `rewardsds` command sets GOMP_SPINCOUNT unless the user has set it, or OMP_WAIT_POLICY. Each row is a process of its
own, since OpenMP reads them once.

    python benchmarks/threads.py [--seconds 10] [--out benchmarks/results/threads.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTINGS: dict[str, dict[str, str]] = {
    "OpenMP's default": {},
    "GOMP_SPINCOUNT=3000": {"GOMP_SPINCOUNT": "3000"},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
}


@contextmanager
def beside(runs: int, environment: dict[str, str]) -> Iterator[None]:
    """That many processes that make steps all the time, with threads that wait alike."""
    command = [sys.executable, __file__, "--single", "--seconds", "3600"]
    running = [subprocess.Popen(command, env=environment) for _ in range(runs)]
    time.sleep(20 if runs else 0)  # until they have begun
    try:
        yield
    finally:
        for program in running:
            program.kill()
            program.wait()


def steps(seconds: float) -> dict[str, float]:
    """Milliseconds of a step of SDS and of RewardSDS on the toybox, medians over so many seconds each."""
    import torch

    from rewardsds import RewardSDS, load_prior, load_reward
    from rewardsds.distillation.weighting import Uniform

    torch.set_num_threads(os.cpu_count() or 1)
    prior, reward = load_prior("toybox", "cpu"), load_reward("clip", "cpu")
    methods = {
        "sds": RewardSDS(prior, weighting=Uniform(), guidance_scale=3),
        "rewardsds": RewardSDS(prior, reward, guidance_scale=3, rollout_guidance_scale=3),
    }
    found = {}
    for name, guidance in methods.items():
        latents = torch.randn(prior.latent_shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        taken: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(taken) < 4:
            began = time.perf_counter()
            guidance(latents=latents, prompt="a red apple and a blue car").backward()
            taken.append(time.perf_counter() - began)
        found[name] = round(1000 * statistics.median(taken[1:]), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each method and row")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--single", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.single:
        print(json.dumps(steps(options.seconds)))
        return
    rows = []
    for others in (0, 2):
        for name, setting in SETTINGS.items():
            kept = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
            command = [sys.executable, __file__, "--single", "--seconds", str(options.seconds)]
            with beside(others, {**kept, **setting}):
                done = subprocess.run(
                    command, env={**kept, **setting}, check=True, capture_output=True, text=True
                )
            figures = json.loads(done.stdout.splitlines()[-1])
            rows.append({"other_runs": others, "threads_wait": name, "milliseconds": figures})
            print(rows[-1], flush=True)
    if options.out:
        from record import write_record

        write_record(
            options.out, {"benchmark": "threads that wait", "seconds": options.seconds, "rows": rows}
        )


if __name__ == "__main__":
    main()
