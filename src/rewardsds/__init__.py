"""rewardsds: text to images and 3D objects by score distillation, steered by a reward model.

from rewardsds import RewardSDS, load_prior, load_reward
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewardsds.distillation.guidance import RewardSDS
    from rewardsds.distillation.losses import SDS, Recon
    from rewardsds.distillation.schedules import AnnealedRange, FixedRange
    from rewardsds.distillation.weighting import Best, BestWorst, Random, Softmax, Uniform
    from rewardsds.priors.load import load_prior
    from rewardsds.rewards.load import load_reward

__all__ = [
    "SDS",
    "AnnealedRange",
    "Best",
    "BestWorst",
    "FixedRange",
    "Random",
    "Recon",
    "RewardSDS",
    "Softmax",
    "Uniform",
    "load_prior",
    "load_reward",
]

__version__ = "0.1.0"

# Where each name lives. They are imported when they are first asked for: torch, diffusers and transformers
# take seconds, which `rewardsds --help` should not cost.
_HOMES = {
    "RewardSDS": "rewardsds.distillation.guidance",
    "SDS": "rewardsds.distillation.losses",
    "Recon": "rewardsds.distillation.losses",
    "AnnealedRange": "rewardsds.distillation.schedules",
    "FixedRange": "rewardsds.distillation.schedules",
    "Best": "rewardsds.distillation.weighting",
    "BestWorst": "rewardsds.distillation.weighting",
    "Random": "rewardsds.distillation.weighting",
    "Softmax": "rewardsds.distillation.weighting",
    "Uniform": "rewardsds.distillation.weighting",
    "load_prior": "rewardsds.priors.load",
    "load_reward": "rewardsds.rewards.load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rewardsds' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
