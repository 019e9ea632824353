"""Which way from rewards to a gradient gains most: weightings, numbers of candidates, and structured candidates.

Every method optimises the same prompts from the same latents with the settings of `rewardsds image`. After given shares
of the steps the reward of the pictures is measured, and the judge's score, which nothing optimises. All weightings with
the same N cost the same; plain SDS costs less, so it is run again with as many steps as make its cost equal.

Gains are paired over prompts with plain SDS of the same number of steps, with 95% bootstrap intervals; that of the
reward is also divided by the network evaluations that it took. Choices are made here, on validation prompts.

    python benchmarks/weightings.py [--prompts 24] [--only NAME …] [--out benchmarks/results/weightings.json]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batch import known_spec, optimise_latents
from paired import compare
from record import write_record
from rewardsds.priors.load import load_prior
from rewardsds.rewards.load import load_reward
from rewardsds.tasks.parts import make_guidance, make_loss
from rewardsds.tasks.settings import TextToImageSettings
from rewardsds.tasks.text_to_image import make_scene
from rewardsds.toybox.captions import benchmark_prompts, known_kinds
from rewardsds.toybox.judge import load_judge
from structured import LastWinner, SharedDetail

PLAIN = "sds"
METHODS: dict[str, dict[str, Any]] = {
    PLAIN: {"weighting": "none"},
    "sds, 4 times the steps": {"weighting": "none", "steps": 640},
    "random": {"weighting": "random"},
    "softmax, temperature 0.02": {"weighting": "softmax", "temperature": 0.02},
    "best 1": {"weighting": "best"},
    "best 2": {"weighting": "best", "weighting_k": 2},
    "best-worst 1": {"weighting": "best-worst"},
    "best-worst 2": {"weighting": "best-worst", "weighting_k": 2},
    "rank": {"weighting": "rank"},
    "advantage 3": {"weighting": "advantage"},
    "best-worst 1, antithetic": {"weighting": "best-worst", "noise": "antithetic"},
    "advantage 3, antithetic": {"weighting": "advantage", "noise": "antithetic"},
    "best-worst 1, N=2": {"weighting": "best-worst", "candidates": 2},
    "best-worst 1, N=8": {"weighting": "best-worst", "candidates": 8},
    "best-worst 1, detail shared": {"structured": SharedDetail(4)},
    "best-worst 1, last winner 0.5": {"structured": LastWinner(0.5)},
}
SHARES = (0.25, 0.625, 1.0)
"""Of the steps, after which pictures are measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--split", default="validation", choices=["validation", "test"])
    parser.add_argument("--steps", type=int, default=TextToImageSettings.model_fields["steps"].default)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=METHODS,
        metavar="NAME",
        help=f"besides {PLAIN}, of: {'; '.join(METHODS)}",
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()

    prior, reward, judge = load_prior("toybox"), load_reward("clip"), load_judge()
    prompts = benchmark_prompts(options.prompts, split=options.split, kinds=known_kinds(prior))
    specs = [known_spec(prompt) for prompt in prompts]
    methods = {name: METHODS[name] for name in dict.fromkeys([PLAIN, *(options.only or METHODS)])}
    results: dict[str, Any] = {}
    plain: list[dict[str, np.ndarray]] = []
    for name, values in methods.items():
        measured = run(prompts, {"steps": options.steps, **values}, prior, reward, judge, specs)
        if name == PLAIN:
            plain = measured
        results[name] = [summary(at, rival) for at, rival in zip(measured, plain)]
        end = results[name][-1]
        print(
            f"{name:32} reward {end['reward']['ours']:.3f} ({end['reward']['difference']:+.3f} "
            f"[{end['reward']['interval'][0]:+.3f}, {end['reward']['interval'][1]:+.3f}]), judge "
            f"{end['judge']['ours']:.3f} ({end['judge']['difference']:+.3f} [{end['judge']['interval'][0]:+.3f}, "
            f"{end['judge']['interval'][1]:+.3f}]), {end['network evaluations']:.0f} evaluations",
            flush=True,
        )
        if options.out:
            record = {
                "prompts": prompts,
                "split": options.split,
                "steps": options.steps,
                "shares of the steps": SHARES,
                "methods": results,
            }
            write_record(options.out, record)


def run(
    prompts: list[str], values: Mapping[str, Any], prior, reward, judge, specs
) -> list[dict[str, np.ndarray]]:
    """Measures (prompts, 1) after each of `SHARES` of the steps."""
    values = dict(values)
    structured = values.pop("structured", None)
    settings = TextToImageSettings.model_validate({"prompt": prompts[0], **values})
    guidance = make_guidance(settings, prior, reward, make_loss(settings, prior, reward))
    if structured is not None:
        guidance.settings = replace(guidance.settings, noise=structured)
    scene = make_scene(settings, prior, range(len(prompts)))
    marks = [round(share * settings.steps) for share in SHARES]
    measured: list[dict[str, np.ndarray]] = []
    before = prior.network_evaluations

    def after_step(step: int) -> None:
        if isinstance(structured, LastWinner):
            structured.remember(guidance.record.weights)
        if step + 1 not in marks:
            return
        with torch.no_grad():
            pictures = prior.decode(scene.latents)[:, 0]
            scores = reward(pictures[None, :, None], prompts)[0]
        evaluations = (prior.network_evaluations - before) / len(prompts)
        measured.append(
            {
                "reward": scores[:, None].numpy(),
                "judge": judge.score(pictures, specs)[:, None].numpy(),
                "network evaluations": np.full((len(prompts), 1), evaluations),
            }
        )

    optimise_latents(scene, guidance, prior, prompts, range(len(prompts)), settings.steps, after_step)
    return measured


def summary(ours: dict[str, np.ndarray], plain: dict[str, np.ndarray]) -> dict[str, Any]:
    rows = {name: compare(plain[name], ours[name]) for name in ("reward", "judge")}
    evaluations = float(ours["network evaluations"].mean())
    gain = {
        "reward gained per 1000 network evaluations": 1000 * rows["reward"]["difference"] / evaluations,
        "judge gained per 1000 network evaluations": 1000 * rows["judge"]["difference"] / evaluations,
    }
    return {**rows, "network evaluations": evaluations, **gain}


if __name__ == "__main__":
    main()
