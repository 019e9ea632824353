"""`rewardsds doctor`: the machine, what is installed, which models are there, what fits, and what to run."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from rewardsds.catalogue import KNOWN, known
from rewardsds.errors import some_of
from rewardsds.hardware import hardware
from rewardsds.hub import cache_folder, lacking_in_cache, offline_variable
from rewardsds.pretrained import embedded_weights

GIB = 2**30
REWARD = "image-reward"
"""The reward that is planned for."""
CONTEXT = 0.6 * GIB
"""What CUDA takes for itself."""
SLACK = 1.1
"""Allocators never fill memory to the last byte."""
LIBRARIES = ("rewardsds", "torch", "diffusers", "transformers", "peft", "accelerate", "numba")
OPTIONAL = {
    "gsplat": "Gaussians by CUDA kernels: pip install 'rewardsds[cuda]'",
    "openai": "the reward grader:MODEL: pip install 'rewardsds[grader]'",
}


@dataclass(frozen=True)
class Plan:
    """How a prior fits. fits: "as it is", or what is needed for it; None where nothing helps.

    options: of the command. needed: bytes, with these options, or where nothing helps with those that need least.
    precision: of the weights.
    """

    fits: str | None
    options: tuple[str, ...]
    needed: float
    precision: str


def sizes() -> dict[str, dict[str, dict[str, int]]]:
    """Bytes by prior and precision: weights (without texts), text_encoders, largest_text_encoder, step (of one
    candidate), candidate (each beyond)."""
    file = resources.files("rewardsds.models") / "memory.json"
    return json.loads(file.read_text(encoding="utf-8"))


def plan(name: str, available: float, candidates: int, gpu: bool = True, bf16: bool = False) -> Plan:
    """The mildest options with which a prior, and a reward beside it, fit into `available` bytes.

    bf16: whether it is to be thought of, too. A GPU takes fp16 of its own accord. A CPU, which takes fp32, has no other
    memory to put anything into, and makes no chunks of its own accord. What fits in no other way may without a reward.
    """
    tries = list(_tries(sizes()[name], candidates, gpu, bf16))
    for found in tries:
        if found.needed <= available:
            return found
    least = min(tries, key=lambda found: found.needed)
    return Plan(None, (), least.needed, least.precision)


def _tries(size: dict[str, dict[str, int]], candidates: int, gpu: bool, bf16: bool) -> Iterator[Plan]:
    """Plans from the mildest on."""
    usual = "fp16" if gpu else "fp32"
    precisions = {usual: (), **({"bf16": ("--precision", "bf16")} if bf16 else {})}

    def one(precision: str, offload: bool, chunked: bool, scored: bool) -> Plan:
        own = size[precision]
        whole = own["weights"] + scored * known(REWARD).memory(4 if precision == "fp32" else 2) * GIB
        at_once = max(own["step"], (1 if chunked or not scored else candidates) * own["candidate"])
        # With --offload a text is read before the step, by one encoder at a time.
        more = max(own["largest_text_encoder"], at_once) if offload else own["text_encoders"] + at_once
        options = (
            *precisions[precision],
            *(("--offload",) if offload else ()),
            *(("--chunk", "1") if chunked and not gpu else ()),
            *(() if scored else ("--weighting", "none")),
        )
        fits = f"with {' '.join(options)}" if options else "as it is"
        fits += ", in chunks, which is slower" if chunked and gpu else ""
        fits += "" if scored else ": without a reward"
        return Plan(fits, options, SLACK * (whole + more), precision)

    ways = ((False, False), (True, False), (True, True)) if gpu else ((False, False), (False, True))
    # On a GPU it is half precision either way; on a CPU chunks, which change results by rounding only, come first.
    if gpu:
        yield from (one(precision, *way, True) for way in ways for precision in precisions)
    else:
        yield from (one(precision, *way, True) for precision in precisions for way in ways)
    alone = [way for way in ways if not way[1]]
    yield from (one(precision, *way, False) for way in alone for precision in precisions)


def doctor(candidates: int = 10) -> list[str]:
    """Lines for a person."""
    import torch

    cuda = torch.cuda.is_available()
    machine: dict[str, Any] = hardware("cuda:0" if cuda else "cpu")
    lines = [
        "machine",
        _row("processor", f"{machine['processor']}, {machine['cores']} cores"),
        _row("memory", f"{machine['memory_gigabytes']} GB, {_available_memory() / 1e9:.1f} GB of it free"),
        _row("disk", f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB free here"),
        *(_gpus() or [_row("GPU", "none that torch can use")]),
        "",
        "software",
        _row("python", platform.python_version()),
        *[_row(name, metadata.version(name)) for name in LIBRARIES],
        *[_row(name, _optional(name, purpose, cuda)) for name, purpose in OPTIONAL.items()],
        _row(
            "C++ compiler",
            next(filter(shutil.which, ("c++", "g++", "clang++")), "none (--compile needs one)"),
        ),
        "",
        "models",
        *_models(),
        "",
    ]
    free = torch.cuda.mem_get_info()[0] - CONTEXT if cuda else _available_memory()
    place = "that are free on the GPU" if cuda else "of free memory"
    beside = f"{candidates} candidates, {REWARD} beside them"
    lines.append(f"what fits into the {free / GIB:.1f} GiB {place} ({beside})")
    bf16 = _has_bf16() if cuda else True
    plans = {name: plan(name, free, candidates, cuda, bf16) for name in sizes()}
    for name, found in plans.items():
        told = found.fits or "does not fit"
        lines.append(_row(name, f"{found.needed / GIB:5.1f} GiB  {found.precision}  {told}"))
    return [*lines, "", "recommended", *_recommended(cuda, plans)]


def _has_bf16(index: int = 0) -> bool:
    """Before Ampere bf16 is emulated, and slow."""
    import torch

    return torch.cuda.device_count() > index and torch.cuda.get_device_properties(index).major >= 8


def _recommended(cuda: bool, plans: dict[str, Plan]) -> list[str]:
    toybox = [
        _row("to try it", 'rewardsds 3d "a penguin with a brown bag in the snow"'),
    ]
    if not cuda:
        return [
            *toybox,
            _row("note", "without a GPU a step of the large priors takes minutes: the toybox is made for it"),
        ]
    lines: list[str] = []
    scored = False
    for name, task in (("mvdream", "3d"), ("sd-2.1-base", "image")):
        if plans[name].fits is not None:
            prior = f"models/{name}" if known(name).recipe else known(name).repos[0]
            reward = [] if "--weighting" in plans[name].options else [f"--reward models/{REWARD}"]
            scored |= bool(reward)
            options = [f"--prior {prior}", *reward, *plans[name].options]
            lines += [
                _row(task, f'rewardsds {task} "…" --preset paper {" ".join(options)}'),
                *_converted(name),
            ]
    return [*toybox, *lines, *(_converted(REWARD) if scored else [])]


def _converted(name: str) -> list[str]:
    """How the folder of a model is made that comes as its authors' file; the toybox's goes by its bare name."""
    model = known(name)
    if model.recipe is None:
        return []
    return [
        _row("once before", f"rewardsds models fetch {name} --folder models/files"),
        _row("", f"rewardsds models convert {model.recipe} models/files/{model.files[0]} models/{name}"),
    ]


def _gpus() -> list[str]:
    import torch

    lines = []
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        bf16 = "bf16 and fp16" if _has_bf16(index) else "fp16"
        lines.append(
            _row(
                f"GPU {index}",
                f"{found.name}, {total / GIB:.1f} GiB, {free / GIB:.1f} GiB of it free, capability "
                f"{found.major}.{found.minor}, {bf16}, CUDA {torch.version.cuda}",
            )
        )
    return lines


def _models() -> list[str]:
    toybox = embedded_weights("prior")
    missing = f"missing in {toybox.parent} (rewardsds toybox train)"
    lines = [_row("toybox", f"in {toybox.parent}" if (toybox / "unet").is_dir() else missing)]
    lacking = {model.name: lacking_in_cache(model) for model in KNOWN}
    there = [name for name, lacks in lacking.items() if lacks == []]
    variable = offline_variable()
    offline = "" if variable is None else f" ({variable} is set: nothing is downloaded)"
    return [
        *lines,
        _row("hub's cache", f"{cache_folder()}{offline}"),
        _row("in it", ", ".join(there) or "none of `rewardsds models list`"),
        *[
            _row("in part", f"{name}, it lacks {some_of(lacks)}: rewardsds models fetch {name}")
            for name, lacks in lacking.items()
            if lacks
        ],
    ]


def _optional(name: str, purpose: str, cuda: bool) -> str:
    """Its version, what it lacks, or what it would be good for."""
    version = _version(name)
    if version is None:
        return f"not installed ({purpose})"
    problem = None
    if name == "gsplat" and cuda:
        from rewardsds.scenes.gaussians.rasterization import gsplat_problem

        print("looking at gsplat, which builds its kernels the first time: minutes …", file=sys.stderr)
        problem = gsplat_problem()
    return version if problem is None else f"{version}, which cannot be used: {problem}"


def _version(name: str) -> str | None:
    if importlib.util.find_spec(name) is None:
        return None
    return metadata.version(name)


def _available_memory() -> int:
    import psutil

    return psutil.virtual_memory().available


def _row(name: str, value: str) -> str:
    return f"  {name:14} {value}"
