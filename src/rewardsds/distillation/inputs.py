"""What `RewardSDS` is given: checked, and brought into one form.

Types, shapes and devices are looked at in every call, which costs nothing; values only where `check_values` is called,
since they have to be waited for on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any, get_args

import torch
from torch import Tensor
from typing_extensions import get_protocol_members

from rewardsds.distillation.candidates import NoiseKind
from rewardsds.distillation.losses.base import Loss
from rewardsds.distillation.weighting import Weighting
from rewardsds.errors import NotFiniteError, some_of
from rewardsds.priors.base import Prior
from rewardsds.prompts import Texts, per_view

ROUNDING = 0.01
"""How far beyond [0, 1] a renderer's pictures may be."""


def expect_parts(
    prior: object, reward: object, weighting: object, loss: object, timesteps: object, noise: object
) -> None:
    """Raises ValueError, in one line, for what is no prior, no reward and so on, such as the name of one."""
    for name, value in {"prior": prior, "reward": reward}.items():
        if isinstance(value, (str, PathLike)):
            given = repr(str(value))
            raise ValueError(f"{name} is {given}, a name: give what it stands for, load_{name}({given})")
    missing = sorted(name for name in get_protocol_members(Prior) if not hasattr(prior, name))
    _expect(
        "prior",
        prior,
        not missing and not isinstance(prior, type),
        (f"it has no {some_of(missing)}; " if missing else "")
        + "give what load_prior returns, or an object with all that rewardsds.priors.base.Prior says",
    )
    _expect(
        "reward",
        reward,
        reward is None or (callable(reward) and not isinstance(reward, type)),
        "give what load_reward returns, a function (images, prompts) → scores of your own, or None for plain SDS",
    )
    _expect(
        "weighting",
        weighting,
        isinstance(weighting, Weighting),
        "give an object such as BestWorst(k=1), Softmax(temperature=0.02) or, for plain SDS, Uniform()",
    )
    _expect(
        "loss",
        loss,
        loss is None or isinstance(loss, Loss),
        "give an object such as SDS(guidance_scale=100) or Recon()",
    )
    _expect(
        "timesteps",
        timesteps,
        callable(timesteps) and not isinstance(timesteps, type),
        "give FixedRange(0.02, 0.98), AnnealedRange(…), or a function of the step that returns (low, high)",
    )
    known = isinstance(noise, str) and noise in get_args(NoiseKind)
    _expect("noise", noise, callable(noise) or known, "expected 'iid' or 'antithetic', or a function")


def expect_counts(least: int, **counts: object) -> None:
    for name, value in counts.items():
        fits = isinstance(value, Integral) and int(value) >= least
        _expect(name, value, fits, f"expected a whole number, at least {least}")


def expect_numbers(**numbers: object) -> None:
    for name, value in numbers.items():
        _expect(name, value, isinstance(value, Real) and math.isfinite(value), "expected a finite number")


def expect_text(**texts: object) -> None:
    for name, value in texts.items():
        _expect(name, value, isinstance(value, str), "expected a text, empty for none")


def images_of(images: object, device: torch.device) -> Tensor:
    """Images as (B, V, 3, H, W)."""
    return _with_views(
        "images", images, (3, "H", "W"), device, "channels come first, and are red, green and blue"
    )


def latents_of(latents: object, prior: Prior, device: torch.device) -> Tensor:
    """Latents as (B, V, D, h, w)."""
    hint = "these are the latents of the prior, which encode makes of images"
    return _with_views("latents", latents, (prior.latent_shape[0], "h", "w"), device, hint)


def _with_views(
    name: str, values: object, single: Sequence[int | str], device: torch.device, hint: str
) -> Tensor:
    """(C, H, W), (B, C, H, W) or (B, V, C, H, W) → (B, V, C, H, W). single: C, H and W, a letter where any will do."""
    if not isinstance(values, Tensor) or not values.is_floating_point():
        given = f"one of {values.dtype}" if isinstance(values, Tensor) else _told(values)
        raise ValueError(f"{name} must be a tensor of floating-point numbers, got {given}")
    shape = tuple(values.shape)
    fits = 3 <= len(shape) <= 5 and all(
        isinstance(wanted, str) or wanted == size for wanted, size in zip(single, shape[-3:])
    )
    if not fits or 0 in shape:
        axes = ", ".join(map(str, single))
        raise ValueError(
            f"{name} must have shape ({axes}), (items, {axes}) or (items, views, {axes}), got {shape}; {hint}"
        )
    if values.device != device:
        raise ValueError(f"{name} are on {values.device}, the prior is on {device}: bring both to one device")
    if len(shape) == 5:
        return values
    return values[None, None] if len(shape) == 3 else values[:, None]


def check_values(images: Tensor | None, latents: Tensor | None) -> None:
    """Raises NotFiniteError for images or latents with NaN or infinity, ValueError for images not in [0, 1]."""
    name, values = ("images", images) if latents is None else ("latents", latents)
    assert values is not None
    low, high = (float(end) for end in values.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise NotFiniteError(f"{name} hold NaN or infinity: look at what makes them")
    if images is not None and not -ROUNDING <= low <= high <= 1 + ROUNDING:
        raise ValueError(
            f"images have values from {low:.3g} to {high:.3g}: expected 0 to 1; give (images + 1) / 2 of those from -1 "
            "to 1, images / 255 of those from 0 to 255"
        )


def prompts_of(prompt: object, batch: int, views: int) -> Texts:
    """A text for each item, or for each view of each item."""
    if prompt is None:
        raise ValueError("a prompt is needed: one text, or one for each item")
    prompts: list[Any] = [prompt] * batch
    if isinstance(prompt, Sequence) and not isinstance(prompt, (str, bytes)):
        prompts = list(prompt)
    wrong = [text for text in single_texts(prompts) if not isinstance(text, str)]
    if wrong:
        raise ValueError(f"prompts are texts, got {_told(wrong[0])}: give one text, or one for each item")
    if len(prompts) != batch:
        raise ValueError(f"{batch} items need {batch} prompts (or one text for all), got {len(prompts)}")
    if per_view(prompts):
        counts = [len(_texts(one)) for one in prompts]
        if any(isinstance(one, str) for one in prompts) or any(count != views for count in counts):
            raise ValueError(f"prompts for views need {views} texts for every item, got {counts}")
    return prompts


def single_texts(prompts: Texts) -> list[str]:
    """Every text that is in prompts, of items and of views."""
    return [text for item in prompts for text in _texts(item)]


def _texts(item: Any) -> Sequence[str]:
    """The texts of an item's views, or its one."""
    return item if isinstance(item, Sequence) and not isinstance(item, (str, bytes)) else [item]


def cameras_of(cameras: Any, batch: int, views: int) -> Tensor | None:
    """Any accepted form of cameras → (B, V, 4, 4), or None."""
    if cameras is None:
        return None
    poses = getattr(cameras, "camera_to_world", cameras)
    if isinstance(poses, Tensor) and poses.ndim == 3:
        poses = poses[None].expand(batch, *poses.shape)
    if not isinstance(poses, Tensor) or tuple(poses.shape) != (batch, views, 4, 4):
        shape = tuple(poses.shape) if isinstance(poses, Tensor) else type(poses).__name__
        raise ValueError(
            "cameras must be camera-to-world matrices of shape (items, views, 4, 4) "
            f"= ({batch}, {views}, 4, 4) or (views, 4, 4), "
            f"got {shape}; several views of one item have shape (items, views, 3, H, W)"
        )
    return poses


def expect_generators(generators: Sequence[torch.Generator], batch: int) -> None:
    given = generators if isinstance(generators, Sequence) else [generators]
    if len(given) != batch:
        raise ValueError(f"{batch} items need {batch} generators, got {len(given)}")
    for one in given:
        fits = isinstance(one, torch.Generator) and one.device.type == "cpu"
        _expect(
            "one of the generators",
            one,
            fits,
            "expected torch.Generator() on the CPU, as it draws alike anywhere",
        )


def _expect(name: str, value: object, fits: bool, expected: str) -> None:
    if not fits:
        raise ValueError(f"{name} is {_told(value)}: {expected}")


def _told(value: object) -> str:
    """A value as a message shows it, in one line."""
    if value is None or isinstance(value, (str, bytes, PathLike, Real, tuple)):
        return " ".join(repr(value).split())[:80]
    return (
        f"the class {value.__name__}" if isinstance(value, type) else f"an object of {type(value).__name__}"
    )
