"""What VSD's estimator adds to memory: a second copy of the prior, or LoRA weights alone?

For each number of particles the bytes of the prior's weights, of the adapters with their optimiser's moments, and of
all parameters and moments that the process holds after a step of VSD; and the process' own peak, which has the work of
a step in it too. Each number of particles is measured in a process of its own.

    python benchmarks/vsd_memory.py [--particles 1 4 16] [--prior FOLDER] [--out benchmarks/results/vsd_memory.json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import write_record


def measure(loss: str, particles: int, prior_name: str) -> dict[str, int]:
    """Bytes after one plain step of `rewardsds image` with that loss."""
    import resource

    import torch

    from batch import optimise_latents
    from rewardsds.distillation.losses import VSD
    from rewardsds.priors.load import load_prior
    from rewardsds.tasks.parts import make_guidance, make_loss
    from rewardsds.tasks.settings import TextToImageSettings
    from rewardsds.tasks.text_to_image import make_scene

    prior = load_prior(prior_name)
    parts = (prior.network, prior.vae, *prior.text_encoders)
    weights = sum(nbytes(p) for part in parts for p in part.parameters())
    unet = sum(nbytes(p) for p in prior.network.parameters())
    settings = TextToImageSettings.model_validate(
        {
            "prompt": "a red cube",
            "loss": loss,
            "weighting": "none",
            "particles": particles,
            "prior": prior_name,
        }
    )
    made = make_loss(settings, prior, None)
    guidance = make_guidance(settings, prior, None, made)
    scene = make_scene(settings, prior, settings.seeds)
    optimise_latents(scene, guidance, prior, ["a red cube"] * particles, settings.seeds, 1)
    afterwards = sum(nbytes(p) for part in parts for p in part.parameters())
    estimator = moments = 0
    if isinstance(made, VSD):
        estimator = sum(nbytes(p) for p in made.estimator.parameters())
        moments = sum(
            nbytes(value)
            for state in made.optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        )
    return {
        "prior": weights,
        "UNet": unet,
        "estimator": estimator,
        "its moments": moments,
        "prior and adapters afterwards": afterwards,
        "peak of the process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def nbytes(tensor: Any) -> int:
    return tensor.numel() * tensor.element_size()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--prior", default="toybox")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--only", nargs=2, metavar=("LOSS", "PARTICLES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        loss, particles = options.only
        print(json.dumps(measure(loss, int(particles), options.prior)))
        return
    results: dict[str, dict[str, dict[str, int]]] = {}
    print(
        f"{'loss':5} {'particles':>9} {'UNet':>8} {'estimator':>10} {'moments':>8} {'process peak':>13}   (MiB)"
    )
    for particles in options.particles:
        for loss in ("sds", "vsd"):
            command = [sys.executable, __file__, "--prior", options.prior, "--only", loss, str(particles)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            one = results.setdefault(str(particles), {})[loss] = json.loads(said)
            figures = (
                one[name] / 2**20 for name in ("UNet", "estimator", "its moments", "peak of the process")
            )
            print("{:5} {:9} {:8.2f} {:10.2f} {:8.2f} {:13.1f}".format(loss, particles, *figures))
    if options.out:
        write_record(options.out, {"bytes by particles": results})


if __name__ == "__main__":
    main()
