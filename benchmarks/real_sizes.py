"""A step with Stable Diffusion 2.1 and MVDream in their true sizes, with random weights: seconds and memory.

The step is the method's own: N noises, previews decoded, scored by an ImageReward of true size, the best and the worst
weighed, and the gradient taken back to the pictures (to four renders of 256 pixels for MVDream, to a latent of 512
pixels for Stable Diffusion). Memory is what torch holds on a GPU, and on a CPU all that the process holds; there a step
takes minutes, which `--device cpu --precisions bf16 --warm-ups 1 --repeats 1` keeps few.

    python benchmarks/real_sizes.py [--priors sd-2.1-base mvdream] [--candidates 1 4 10] [--precisions bf16 fp32]
        [--chunk auto] [--device cuda] [--out benchmarks/results/real_sizes_cuda.json]
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
from torch import Tensor
from transformers import BlipTextConfig, BlipVisionConfig

from record import write_record
from rewardsds import BestWorst, RewardSDS, Uniform
from rewardsds.memory import Chunks
from rewardsds.models import sizes
from rewardsds.priors.base import Condition
from rewardsds.priors.latent import LatentPrior
from rewardsds.rewards.image_reward import ImageRewardNetwork
from rewardsds.rewards.pictures import square

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
RESULTS = Path(__file__).parent / "results"


class Unread:
    """A prior whose texts are random numbers, since its tokenizer is not there."""

    def __init__(self, prior: LatentPrior, condition: Condition) -> None:
        self._prior = prior
        self._condition = condition

    def condition(self, *given: Any) -> Condition:
        return self._condition

    def unknown_words(self, prompt: str) -> list[str]:
        return []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prior, name)


class ImageRewardSized:
    """ImageReward's network on random words: BLIP ViT-L/16 and BERT with cross-attention."""

    def __init__(self, device: str, dtype: torch.dtype, chunk: Any) -> None:
        vision = BlipVisionConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
            image_size=224, patch_size=16,
        )  # fmt: skip
        text = BlipTextConfig(vocab_size=30524, encoder_hidden_size=1024, is_decoder=True)
        with torch.device(device):
            self.network = ImageRewardNetwork(vision, text).to(dtype).eval().requires_grad_(False)
            self.tokens = torch.randint(0, 30000, (1, 35))
        self.dtype = dtype
        self.chunks = Chunks(chunk)

    def __call__(self, images: Tensor, prompts: Any) -> Tensor:
        flat = images.flatten(0, 2)

        def look(rows: slice) -> Tensor:
            pixels = square(flat[rows], 224).to(self.dtype)
            tokens = self.tokens.expand(len(pixels), -1)
            return self.network(pixels, tokens, torch.ones_like(tokens)).float()

        return self.chunks(look, len(flat)).reshape(images.shape[:3]).mean(dim=2)


class Peak:
    """The most memory held since it was made: of torch on a GPU, of the whole process elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak

    def gib(self) -> float:
        if self.device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self.device) / 2**30, 2)
        status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        return round(int(status["VmHWM"].split()[0]) / 2**20, 2)


def measure(
    prior: LatentPrior, condition: Condition, reward: Any, candidates: int, warm_ups: int, repeats: int
) -> dict[str, Any]:
    """Medians of `repeats` steps after some more, and the most memory that was ever held."""
    device = prior.alphas_cumprod.device
    cuda = device.type == "cuda"
    unread: Any = Unread(prior, condition)
    weighed = candidates > 1
    guidance = RewardSDS(
        unread,
        reward if weighed else None,
        candidates=candidates,
        weighting=BestWorst(2 if candidates >= 4 else 1) if weighed else Uniform(),
    )
    views, size = prior.views, prior.image_size
    generator = torch.Generator().manual_seed(0)
    given: dict[str, Any] = (
        {"latents": torch.randn(1, 1, *prior.latent_shape, generator=generator)}
        if views == 1
        else {"images": torch.rand(1, views, 3, size, size, generator=generator)}
    )
    (name, start), *_ = given.items()
    variable = start.to(device).requires_grad_()
    peak = Peak(device)
    seconds: list[float] = []
    stages: dict[str, list[float]] = {}
    for repeat in range(warm_ups + repeats):
        variable.grad = None
        began = time.perf_counter()
        guidance(prompt="", cameras=condition.camera_to_world, **{name: variable}).backward()
        if cuda:
            torch.cuda.synchronize(device)
        if repeat >= warm_ups:
            seconds.append(time.perf_counter() - began)
            for stage, value in guidance.record.seconds.items():
                stages.setdefault(stage, []).append(value)
    return {
        "seconds": round(statistics.median(seconds), 4),
        "seconds_by_stage": {stage: round(statistics.median(values), 4) for stage, values in stages.items()},
        "peak_gib": peak.gib(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--priors", nargs="+", default=["sd-2.1-base", "mvdream"], choices=sorted(sizes.PRIORS)
    )
    parser.add_argument("--candidates", nargs="+", type=int, default=[1, 4, 10])
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"], choices=sorted(PRECISIONS))
    parser.add_argument("--chunk", default="auto", help="pictures in a call, or auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--warm-ups", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument(
        "--out", type=Path, help="results/real_sizes_cuda.json, or _cpu, unless said otherwise"
    )
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("error: torch sees no CUDA GPU; with --device cpu a step takes minutes")
    chunk = options.chunk if options.chunk == "auto" else int(options.chunk)
    kind = torch.device(options.device).type
    out: Path = options.out or RESULTS / f"real_sizes_{kind}.json"
    settings = {name: getattr(options, name) for name in ("chunk", "compile", "warm_ups", "repeats")}
    rows: list[dict[str, Any]] = []
    table = Table(title="One step with random weights of true size")
    for column in ("prior", "precision", "N", "seconds", "peak GiB"):
        table.add_column(column, justify="left" if column == "prior" else "right")
    for name in options.priors:
        for precision in options.precisions:
            dtype = PRECISIONS[precision]
            prior = sizes.make(name, options.device, dtype)
            prior.in_chunks(chunk)
            if options.compile:
                prior.compile()
            condition = sizes.condition(name, 1, prior.views, options.device)
            reward = ImageRewardSized(options.device, dtype, chunk)
            for count in options.candidates:
                found = measure(prior, condition, reward, count, options.warm_ups, options.repeats)
                rows.append({"prior": name, "precision": precision, "candidates": count, **found})
                table.add_row(name, precision, str(count), f"{found['seconds']:.3f}", str(found["peak_gib"]))
                print(rows[-1], flush=True)
                write_record(out, {**settings, "rows": rows}, options.device)
            del prior, reward
            if options.device.startswith("cuda"):
                torch.cuda.empty_cache()
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
