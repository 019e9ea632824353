"""Many prompts in one batch against as many single runs: both as a user starts them, each its own process.

    python benchmarks/batch_throughput.py [--items 16] [--steps 160] [--set NAME=VALUE …]
        [--out benchmarks/results/batch_throughput.json]

The seconds of whole commands are measured, and beside them the seconds of the steps alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import write_record
from rewardsds.priors.load import load_prior
from rewardsds.toybox.captions import benchmark_prompts, known_kinds


def run(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Seconds of the command, and of its steps by its own record."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "rewardsds", "image", *arguments, "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - began
    return seconds, json.loads((folder / "results.json").read_text())["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument(
        "--weightings", nargs="+", default=["none", "best-worst"], help="plain, and with the reward"
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()
    prompts = benchmark_prompts(options.items, split="test", kinds=known_kinds(load_prior("toybox")))
    results = {}
    for weighting in options.weightings:
        common = ["--steps", str(options.steps), "--weighting", weighting]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")
            together = run(["--prompts", str(folder / "prompts.txt"), *common], folder / "together")
            single = [run([prompt, *common], folder / str(i)) for i, prompt in enumerate(prompts)]
        alone = tuple(sum(values) for values in zip(*single))
        results[weighting] = {
            "one batch, seconds of the command": together[0],
            "one batch, seconds of its steps": together[1],
            "single runs, seconds of the commands": alone[0],
            "single runs, seconds of their steps": alone[1],
            "throughput of the batch over single runs": alone[0] / together[0],
            "the same of the steps alone": alone[1] / together[1],
        }
        print(weighting)
        for what, value in results[weighting].items():
            print(f"  {what:45} {value:8.2f}")
    if options.out:
        record = {"items": options.items, "steps": options.steps, "by weighting": results}
        write_record(options.out, record)


if __name__ == "__main__":
    main()
