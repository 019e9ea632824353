"""What a file or folder is, whether it is whole, and whether it runs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from rewardsds.catalogue import Recipe
from rewardsds.errors import RewardsdsError
from rewardsds.foreign import read_checkpoint, recipe_of


def check(path: Path) -> list[str]:
    """Lines that say what it is, its size, and that one forward pass gave finite numbers.

    Raises RewardsdsError in one line for what is nothing that is known, incomplete or damaged.
    """
    path = path.expanduser()
    try:
        if path.is_file():
            return _check_file(path)
        if path.is_dir():
            return _check_prior(path) if _is_prior(path) else _check_reward(path)
    except ValueError as error:
        raise RewardsdsError(str(error)) from error
    raise RewardsdsError(f"there is nothing at {path.absolute()}")


def _check_file(path: Path) -> list[str]:
    state = read_checkpoint(path)
    recipe = recipe_of(state)
    if recipe is None:
        shown = ", ".join(sorted(state)[:3])
        raise ValueError(f"{path} holds {len(state)} tensors of no model that is known ({shown}, …)")
    what = _convert_in_memory(recipe, state, path)
    count = sum(value.numel() for value in state.values())
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in state.values()})
    return [
        f"{path}: {what}, in its authors' names for the weights",
        f"{count / 1e6:.1f} million numbers ({', '.join(dtypes)}), every weight has its place",
        f"to use it: rewardsds models convert {recipe} {path} FOLDER",
    ]


def _convert_in_memory(recipe: Recipe, state: dict[str, Tensor], path: Path) -> str:
    if recipe in ("mvdream", "stable-diffusion"):
        from rewardsds.priors.original import parts

        found = parts(state)
        kind = "MVDream's checkpoint" if recipe == "mvdream" else "a Stable Diffusion"
        return f"{kind}, which predicts {found.scheduler.config['prediction_type']}"
    if recipe == "image-reward":
        from rewardsds.rewards.original import image_reward_network

        image_reward_network(state)
        return "an ImageReward"
    if recipe == "reward3d":
        from rewardsds.rewards.reward3d import reward3d_network

        reward3d_network(state)
        return "a Reward3D"
    if recipe == "hps":
        from rewardsds.rewards.original import clip_from_open_clip

        clip_from_open_clip(state)
        return "a CLIP of open_clip's, such as HPSv2"
    from rewardsds.rewards.aesthetic import load_head

    load_head(path)
    return "an aesthetic head"


def _is_prior(folder: Path) -> bool:
    return (folder / "model_index.json").is_file() or (folder / "unet").is_dir()


@torch.no_grad()
def _check_prior(folder: Path) -> list[str]:
    from rewardsds.priors.load import load_prior

    prior = load_prior(folder, "cpu", torch.float32)
    views = prior.views
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn((1, 1, views, *prior.latent_shape), generator=generator)
    poses = torch.eye(4).expand(1, views, 4, 4) if views > 1 else None
    middle = torch.tensor([len(prior.alphas_cumprod) // 2])
    noise = prior.predict(noisy, middle, prior.condition(["a red cube"], "", poses)).conditional
    pictures = prior.decode(noisy[0, :, :1])
    if not (noise.isfinite().all() and pictures.isfinite().all()):
        raise ValueError(f"the prior in {folder} predicts NaN or infinity: its weights are damaged")
    seen = f"{views} views together" if views > 1 else "single pictures"
    return [
        f"{folder}: a prior for {seen} at {prior.image_size} pixels ({prior.prediction_type})",
        f"{_millions(prior.network, prior.vae, *prior.text_encoders):.1f} million parameters, complete",
        "one forward pass: finite",
    ]


@torch.no_grad()
def _check_reward(folder: Path) -> list[str]:
    from rewardsds.rewards.load import load_reward
    from rewardsds.rewards.reward3d import VIEWS, Reward3D

    reward = load_reward(folder, "cpu", torch.float32)
    views = VIEWS if isinstance(reward, Reward3D) else 1
    images = torch.rand((2, 1, views, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    scores = reward(images, ["a red cube"])
    if not scores.isfinite().all():
        raise ValueError(f"the reward in {folder} gives NaN or infinity: its weights are damaged")
    shown = ", ".join(f"{float(score):.3f}" for score in scores[:, 0])
    return [
        f"{folder}: a reward ({type(reward).__name__}){f' of {views} views' if views > 1 else ''}, complete",
        f"one forward pass: two random pictures score {shown}",
    ]


def _millions(*modules: torch.nn.Module) -> float:
    return sum(value.numel() for module in modules for value in module.parameters()) / 1e6
