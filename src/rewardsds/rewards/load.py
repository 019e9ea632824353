"""`load_reward`: a reward from the package, a folder, the Hugging Face hub, the user's own function, or several."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import ConfigDict

from rewardsds.catalogue import find
from rewardsds.pretrained import default_device_and_dtype, installed_weights, load_from
from rewardsds.rewards.aesthetic import AestheticReward
from rewardsds.rewards.base import ModelReward, Reward
from rewardsds.rewards.clip import CLIPReward
from rewardsds.rewards.compose import Minimum, WeightedSum
from rewardsds.rewards.expression import (
    FUNCTION,
    GRADER,
    TOYBOX_REWARDS,
    Expression,
    Sum,
    Weakest,
    names,
    parse,
)
from rewardsds.rewards.files import reward_from_file
from rewardsds.rewards.grader import GraderReward
from rewardsds.rewards.image_reward import ImageReward
from rewardsds.rewards.pictures import Fit
from rewardsds.rewards.reward3d import Reward3D
from rewardsds.rewards.stored import FileModel, read_model


def load_reward(
    source: str | PathLike[str] | Reward = "clip",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    chunk: int | Literal["auto"] | None = None,
    *,
    skip_failures: bool = False,
    grader: Mapping[str, Any] | None = None,
) -> Reward:
    """Load a reward.

    source: "clip", "aesthetic" or "image-reward", the toybox's; a folder of a CLIPModel or of a converted reward; an
        original checkpoint; the hub id of a CLIPModel, such as "openai/clip-vit-large-patch14"; "package.module:name",
        a function of the user's own; or a function (images (N, B, V, 3, H, W), prompts) → (N, B), which is returned as
        it is. "grader:MODEL" asks a vision-language model at an OpenAI-compatible endpoint. Several in one text:
        "clip + 0.5 * package.module:name" is their weighted sum, "min(clip, package.module:name)" the weakest, each
        standardised over the candidates of an item; both may be nested. A PathLike is a folder or file, whatever its
        name.
    device: CUDA where it is available unless said otherwise. dtype: float32 on the CPU, float16 on CUDA.
    chunk: pictures in a call of a model, see `Chunks`; None: all.
    skip_failures: of several rewards, go on with the others where one fails.
    grader: options of `GraderReward`, for "grader:MODEL".

    Raises ValueError when there is no such reward, saying where it was looked for.
    """
    if not isinstance(source, (str, PathLike)):
        if callable(source):
            return source
        raise ValueError(
            "a reward is 'clip', a folder, a hub id or a function (images, prompts) -> scores, "
            f"got {type(source).__name__}"
        )
    device, dtype = default_device_and_dtype(device, dtype)

    def one(expression: Expression) -> Reward:
        if isinstance(expression, Weakest):
            return Minimum([one(part) for part in expression.parts], skip_failures=skip_failures)
        if isinstance(expression, Sum):
            weights, parts = zip(*expression.terms)
            return WeightedSum([one(part) for part in parts], weights, skip_failures=skip_failures)
        if expression.startswith(GRADER):
            return GraderReward(expression.removeprefix(GRADER), **(grader or {}))
        if FUNCTION.fullmatch(expression):
            return _function(expression)
        if expression in TOYBOX_REWARDS:
            instead = "a folder, a hub id or a function"
            return from_files(installed_weights(expression, "config.json", expression, instead))
        return from_files(expression)

    def from_files(source: str | PathLike[str]) -> ModelReward:
        known = find(source) if isinstance(source, str) else None
        scored = {} if known is None else known.scored
        reward = load_from(
            source, "reward", EXAMPLES, lambda found: _from_folder(found, device, dtype, scored)
        )
        reward.in_chunks(chunk)
        return reward

    return one(parse(source)) if isinstance(source, str) else from_files(source)


class _Config(FileModel):
    """Any `config.json`."""

    model_type: str | None = None


class _Aesthetic(FileModel):
    """The `config.json` of an aesthetic head. clip: a folder, from the head's own too, or a hub id."""

    clip: str


class _Scored(FileModel):
    """A `reward.json`, see `CLIPReward.from_pretrained`."""

    model_config = ConfigDict(extra="forbid")
    fit: Fit | None = None
    scaled: bool = False
    processor: str | None = None


def _from_folder(
    found: str | Path, device: torch.device, dtype: torch.dtype, scored: Mapping[str, Any]
) -> ModelReward:
    """A CLIP, an aesthetic head beside its CLIP, or an ImageReward: by what the folder holds.

    scored: what is known of it where its `reward.json` does not say.
    """
    if isinstance(found, Path) and found.is_file():
        return reward_from_file(found, device, dtype)
    if not isinstance(found, Path):
        return CLIPReward.from_pretrained(found, device, dtype, **scored)
    file = found / "config.json"
    kind = read_model(file, _Config).model_type if file.is_file() else None
    if kind in ("clip", "siglip"):
        extra = found / "reward.json"
        own = read_model(extra, _Scored).model_dump(exclude_unset=True) if extra.is_file() else {}
        return CLIPReward.from_pretrained(found, device, dtype, **{**scored, **own})
    if kind == "image-reward":
        return ImageReward.from_pretrained(found, device, dtype)
    if kind == "reward3d":
        return Reward3D.from_pretrained(found, device, dtype)
    if kind == "aesthetic":
        clip = read_model(file, _Aesthetic).clip
        clip = found / clip if (found / clip).is_dir() else clip
        return AestheticReward.from_file(
            CLIPReward.from_pretrained(clip, device, dtype), found / "model.safetensors"
        )
    raise ValueError(
        f"{found.absolute()} is no reward that is known: its config.json should say model_type clip, siglip, "
        f"aesthetic, image-reward or reward3d, it says {kind or 'nothing'}"
    )


EXAMPLES = (
    f"{', '.join(map(repr, TOYBOX_REWARDS))}, a name of `rewardsds models list` such as 'clip-l', a folder or file of "
    f"a reward, a hub id, 'package.module:function', '{GRADER}MODEL', or several, with spaces around a plus: "
    "'clip + 0.5 * aesthetic', or 'min(clip, aesthetic)'"
)
"""What `load_reward` takes, for messages."""


def reward_names(text: str) -> tuple[str, ...]:
    """The single rewards that `load_reward` makes a reward of, each once: of "clip + 0.5 * aesthetic" both."""
    return names(parse(text))


def _function(name: str) -> Reward:
    """The object that "package.module:name" says, looked for in the current folder too, as `python -m` does.

    The folder stays on the path, since the function may import from it when it is called.
    """
    module_name, attribute = name.split(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise ValueError(
                f"the reward {name!r} cannot be loaded: {module_name} needs {error.name}"
            ) from error
        raise ValueError(
            f"the reward {name!r} cannot be loaded: there is no module {module_name}, neither installed nor in {here}"
        ) from error
    except SystemExit as error:
        raise ValueError(
            f"the reward {name!r} cannot be loaded: importing {module_name} ends the program (sys.exit): "
            'what it runs as a program belongs under `if __name__ == "__main__":`'
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"the reward {name!r} cannot be loaded: importing {module_name} failed ({reason})"
        ) from error
    reward: Any = getattr(module, attribute, None)
    if not callable(reward):
        what = "nothing of that name" if reward is None else f"a {type(reward).__name__}, not a function"
        raise ValueError(f"the reward {name!r} cannot be loaded: {module_name} has {what}")
    return cast(Reward, reward)
