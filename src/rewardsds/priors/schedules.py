"""Noise schedules from the configurations of schedulers, whose samplers are of no interest here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

BETAS = ("beta_schedule", "beta_start", "beta_end")


def diffusion_schedule(config: Mapping[str, Any]) -> DDPMScheduler:
    """The schedule that a model was trained with, from the configuration of any sampler of diffusers for it.

    config: what `scheduler_config.json` says.

    Raises ValueError for those of flows and of noise without bounds (EDM, arXiv 2206.00364), whose levels are others.
    """
    name = config.get("_class_name", "scheduler without a name")
    if _is_flow(config) or "sigma_data" in config or config.get("timestep_type") == "continuous":
        raise ValueError(
            f"its scheduler is a {name}, which has no noise levels of Stable Diffusion's kind: expected one with "
            f"{', '.join(BETAS)}, such as DDIMScheduler"
        )
    missing = [key for key in BETAS if key not in config]
    if missing and not config.get("trained_betas"):
        raise ValueError(
            f"its scheduler_config.json does not say {', '.join(missing)}: get the one that belongs to the model"
        )
    return DDPMScheduler.from_config(config)  # pyright: ignore[reportReturnType, reportArgumentType]


def flow_shift(config: Mapping[str, Any], tokens: int | None = None) -> float:
    """How far the scheduler of a flow shifts times towards noise; FLUX's shifts larger pictures more.

    config: what `scheduler_config.json` says. tokens: of the picture, needed where the shift depends on it.

    Raises ValueError for schedulers of other models.
    """
    if not _is_flow(config):
        raise ValueError(
            f"its scheduler is a {config.get('_class_name', 'scheduler without a name')}, which is none of a flow: "
            "expected one such as FlowMatchEulerDiscreteScheduler"
        )
    if not config.get("use_dynamic_shifting"):
        shift = config.get("flow_shift", config.get("shift"))
        if shift is None:
            raise ValueError(
                "its scheduler_config.json does not say shift: get the one that belongs to the model"
            )
        return float(shift)
    if tokens is None:
        raise ValueError(
            "its scheduler shifts times by the picture's size, which this model does not: get the one that belongs to "
            "the model"
        )
    low, high = config["base_image_seq_len"], config["max_image_seq_len"]
    slope = (config["max_shift"] - config["base_shift"]) / (high - low)
    return math.exp(config["base_shift"] + slope * (tokens - low))


def _is_flow(config: Mapping[str, Any]) -> bool:
    named = str(config.get("_class_name", "")).startswith("Flow")
    return (
        named or config.get("use_flow_sigmas") is True or config.get("prediction_type") == "flow_prediction"
    )
