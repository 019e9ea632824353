"""What a reward's choice does in each loss: do candidates pull different ways, and towards what the reward saw?

At every step the best and the worst candidate are compared.

spread: the energy of the difference of their residuals, halved, over their mean energy. 0 says that they pull the same
way, so that no weighting changes anything; 1 that they have nothing in common, as independent noises have.

alignment: the cosine between the difference of their pulls (minus the residual) and the difference of their previews.
1 says that to follow the better candidate is to go to the preview that the reward liked; 0 that the choice has nothing
to do with where the latent goes.

    python benchmarks/reward_lever.py [--losses sds recon …] [--prompts 4] [--steps 160]
        [--out benchmarks/results/reward_lever.json]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

import rewardsds.distillation.losses as losses
from batch import optimise_latents
from record import write_record
from rewardsds.distillation.candidates import Candidates
from rewardsds.priors.load import load_prior
from rewardsds.rewards.load import load_reward
from rewardsds.tasks.parts import make_guidance, make_loss
from rewardsds.tasks.settings import LossName, TextToImageSettings
from rewardsds.tasks.text_to_image import make_scene
from rewardsds.toybox.captions import benchmark_prompts, known_kinds


@contextmanager
def watched(rollout_guidance_scale: float) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    """Spread and alignment (B,) of the residuals that any loss makes, as they are made."""
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    kinds = [kind for kind in vars(losses).values() if isinstance(kind, type) and "residual" in vars(kind)]
    own = {kind: kind.residual for kind in kinds}

    def watch(kind: type) -> None:
        def residual(self: losses.Loss, candidates: Candidates) -> Tensor:
            found = own[kind](self, candidates)
            previews = candidates.predicted_clean(rollout_guidance_scale)
            seen.append((spread(*found), alignment(-found, previews)))
            return found

        kind.residual = residual  # pyright: ignore[reportAttributeAccessIssue]

    for kind in kinds:
        watch(kind)
    try:
        yield seen
    finally:
        for kind, residual in own.items():
            kind.residual = residual


def spread(best: Tensor, worst: Tensor) -> np.ndarray:
    """Of residuals (B, …) → (B,)"""
    differ = (best - worst).flatten(1).square().sum(1) / 2
    energy = (best.flatten(1).square().sum(1) + worst.flatten(1).square().sum(1)) / 2
    return (differ / energy.clamp_min(1e-20)).cpu().double().numpy()


def alignment(pulls: Tensor, previews: Tensor) -> np.ndarray:
    """Of (2, B, …) both → (B,)"""
    pull, preview = (values[0] - values[1] for values in (pulls, previews))
    return torch.cosine_similarity(pull.flatten(1), preview.flatten(1), dim=1).cpu().double().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--losses", nargs="+", default=list(get_args(LossName)), choices=get_args(LossName))
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()
    prior, reward = load_prior("toybox"), load_reward("clip")
    prompts = benchmark_prompts(options.prompts, split="validation", kinds=known_kinds(prior))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in options.losses:
        inversion = {"inversion": {"steps": 4}} if name == "sdi" else {}
        given = {"prompt": prompts[0], "loss": name, "steps": options.steps, **inversion}
        settings = TextToImageSettings.model_validate(given).resolved()
        groups_seen: list[np.ndarray] = []
        # An estimator is one prompt's.
        groups = [[prompt] for prompt in prompts] if name == "vsd" else [list(prompts)]
        for group in groups:
            seeds = range(len(group))
            scene = make_scene(settings, prior, seeds)
            loss = make_loss(settings, prior, reward)
            guidance = make_guidance(settings, prior, reward, loss)
            with watched(settings.resolved_rollout_guidance_scale) as seen:
                optimise_latents(scene, guidance, prior, group, seeds, settings.steps)
            groups_seen.append(np.array(seen))  # steps, 2, items
            if isinstance(loss, losses.VSD):
                loss.estimator.remove()  # pyright: ignore[reportAttributeAccessIssue]
        whole = np.concatenate(groups_seen, axis=2)
        quarter = max(1, len(whole) // 4)
        found[name] = {}
        for index, what in enumerate(("spread", "alignment")):
            values = whole[:, index]
            of_prompts = values.mean(axis=0)
            found[name][what] = {
                "mean": float(values.mean()),
                "first quarter of the steps": float(values[:quarter].mean()),
                "last quarter": float(values[-quarter:].mean()),
                "least of a prompt": float(of_prompts.min()),
                "most of a prompt": float(of_prompts.max()),
            }
            print(
                f"{name:8}{what:10}",
                "  ".join(f"{key} {value:.3f}" for key, value in found[name][what].items()),
            )
    if options.out:
        write_record(options.out, {"prompts": prompts, "steps": options.steps, "losses": found})


if __name__ == "__main__":
    main()
