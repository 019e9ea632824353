"""What a file or folder is, whether it is whole, and whether it runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rewardsds.catalogue import Recipe
from rewardsds.errors import RewardsdsError, some_of
from rewardsds.foreign import SUFFIXES, leftovers, numbers_in, read_checkpoint, recipe_of
from rewardsds.hub import PARTS
from rewardsds.priors.base import Condition
from rewardsds.priors.latent import LatentPrior, downsampling
from rewardsds.priors.load import load_prior, prior_from_parts
from rewardsds.priors.original import TEXT_2, parts, refuse_others
from rewardsds.rewards.aesthetic import load_head
from rewardsds.rewards.load import load_reward
from rewardsds.rewards.original import clip_from_open_clip, image_reward_network
from rewardsds.rewards.reward3d import VIEWS, Reward3D, reward3d_network

LATENT = 16
"""Height and width of the latents that a prior's file is tried with, whatever it was trained at."""
TOKENS = 8
"""Of the text that a file is tried with, which holds no tokenizer."""


class Built(NamedTuple):
    """The networks of a file, and a pass through all of them on random numbers."""

    what: str
    networks: tuple[nn.Module, ...]
    run: Callable[[], Tensor]


def check(path: Path) -> list[str]:
    """Lines that say what it is, its size, and that one forward pass gave finite numbers.

    Raises RewardsdsError in one line for what is nothing that is known, incomplete or damaged.
    """
    path = path.expanduser()
    try:
        if path.is_file():
            return _check_file(path)
        if path.is_dir():
            if _is_prior(path):
                return _check_prior(path)
            _require_reward(path)
            return _check_reward(path)
    except ValueError as error:
        raise RewardsdsError(str(error)) from error
    raise RewardsdsError(f"there is nothing at {path.absolute()}")


@torch.no_grad()
def _check_file(path: Path) -> list[str]:
    state = read_checkpoint(path)
    recipe = recipe_of(state)
    if recipe is None:
        with _of(path):
            refuse_others(state)
        shown = ", ".join(sorted(state)[:3])
        raise ValueError(f"{path} holds {len(state)} tensors of no model that is known ({shown}, …)")
    with _of(path):
        built = _built(recipe, state, path)
    _check_weights(path, *built.networks)
    if not built.run().isfinite().all():
        raise ValueError(f"{path} gives NaN or infinity: its weights are damaged, get it again")
    count = sum(value.numel() for value in state.values())
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in state.values()})
    unused = _unused(state)
    return [
        f"{path}: {built.what}, in its authors' names for the weights",
        f"{count / 1e6:.1f} million numbers ({', '.join(dtypes)}), every {'other ' * bool(unused)}weight has its place",
        *([f"not used, as left from training: {some_of(unused, 8)}"] if unused else []),
        "one forward pass: finite",
        f"to use it: rewardsds models convert {recipe} {path} FOLDER",
    ]


@contextmanager
def _of(path: Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _unused(state: dict[str, Tensor]) -> list[str]:
    """What nothing reads of a file; of Stable Diffusion 2's text encoder that is its last layer too."""
    layers = numbers_in(state, rf"{re.escape(TEXT_2)}transformer\.resblocks\.")
    return [*leftovers(state), *(f"{TEXT_2}transformer.resblocks.{layer}.*" for layer in layers[-1:])]


def _check_weights(path: Path, *networks: nn.Module) -> None:
    wrong = [
        name
        for network in networks
        for name, value in network.named_parameters()
        if not value.isfinite().all()
    ]
    if wrong:
        raise ValueError(f"{path} is damaged: NaN or infinity in {some_of(wrong)}; get it again")


def _built(recipe: Recipe, state: dict[str, Tensor], path: Path) -> Built:
    if recipe in ("mvdream", "stable-diffusion"):
        found = parts(state)
        kind = "MVDream's checkpoint" if recipe == "mvdream" else "a Stable Diffusion"
        what = f"{kind}, which predicts {found.scheduler.config['prediction_type']}"
        prior = prior_from_parts(found, (None, None), LATENT * downsampling(found.vae))
        networks = (prior.network, prior.vae, *prior.text_encoders)
        return Built(what, networks, lambda: _run_prior(prior, _unread(prior)))
    if recipe in ("image-reward", "reward3d"):
        several = recipe == "reward3d"
        network = reward3d_network(state) if several else image_reward_network(state)
        what = "a Reward3D" if several else "an ImageReward"
        return Built(what, (network,), lambda: _run_image_reward(network))
    if recipe == "hps":
        clip: Any = clip_from_open_clip(state)
        pixels = _pictures(1, clip.config.vision_config.image_size)
        what = "a CLIP of open_clip's, such as HPSv2"
        return Built(what, (clip,), lambda: clip(_tokens(1), pixels).logits_per_image)
    head = load_head(path)
    width = next(head.parameters()).shape[1]
    return Built("an aesthetic head", (head,), lambda: head(_random(1, width)))


def _unread(prior: LatentPrior) -> Condition:
    """Of tokens that no tokenizer made, since files hold none."""
    texts: list[Any] = [encoder(_tokens(1)) for encoder in prior.text_encoders]
    states = torch.cat([text.last_hidden_state for text in texts], dim=-1)
    extras = None
    if len(texts) > 1:
        extras = {"pooled": texts[-1].text_embeds, "negative_pooled": texts[-1].text_embeds}
    return Condition([""], states, states, _poses(prior), extras)


def _poses(prior: LatentPrior) -> Tensor | None:
    return torch.eye(4).expand(1, prior.views, 4, 4) if prior.views > 1 else None


def _run_prior(prior: LatentPrior, condition: Condition) -> Tensor:
    """Every number that it gave."""
    noisy = _random(1, 1, prior.views, *prior.latent_shape)
    middle = torch.tensor([len(prior.alphas_cumprod) // 2])
    noise = prior.predict(noisy, middle, condition).conditional
    return torch.cat([noise.flatten(), prior.decode(noisy[0, :, :1]).flatten()])


def _run_image_reward(network: Any) -> Tensor:
    """Of the four views of an object."""
    tokens = _tokens(VIEWS)
    return network(_pictures(VIEWS, network.vision.config.image_size), tokens, torch.ones_like(tokens))


def _pictures(count: int, size: int) -> Tensor:
    return _random(count, 3, size, size)


def _tokens(count: int) -> Tensor:
    return torch.arange(1, TOKENS + 1).expand(count, -1)


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _is_prior(folder: Path) -> bool:
    return (folder / "model_index.json").is_file() or (folder / "unet").is_dir()


def _require_reward(folder: Path) -> None:
    """Raises ValueError that says what is in a folder that is neither a prior nor a reward, and what would be."""
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
    found = some_of(names, 6) if names else "nothing"
    expected = (
        f"a prior has model_index.json, or the folders {', '.join(PARTS)}; a reward has config.json and "
        "model.safetensors"
    )
    if (folder / "config.json").is_file():
        said: Any = {}
        with suppress(ValueError):  # a damaged one is told of where it is loaded
            said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if isinstance(said, dict) and (kind := said.get("_class_name")):
            raise ValueError(
                f"{folder.absolute()} is a {kind}, a part of a prior: give the folder above it; {expected}"
            )
        return
    if inner := [path.name for path in folder.iterdir() if path.is_dir() and _is_model(path)]:
        raise ValueError(
            f"{folder.absolute()} holds no prior and no reward that is known, but folders do that lie in it: give one "
            f"of {some_of(sorted(inner))}"
        )
    files = [name for name in names if Path(name).suffix in SUFFIXES]
    advice = f"; a checkpoint is given as the file itself: {folder / files[0]}" if files else ""
    raise ValueError(
        f"{folder.absolute()} holds no prior and no reward that is known: {expected}; there is {found}{advice}"
    )


def _is_model(folder: Path) -> bool:
    return _is_prior(folder) or (folder / "config.json").is_file()


@torch.no_grad()
def _check_prior(folder: Path) -> list[str]:
    prior = load_prior(folder, "cpu", torch.float32)
    _check_weights(folder, prior.network, prior.vae, *prior.text_encoders)
    if not _run_prior(prior, prior.condition(["a red cube"], "", _poses(prior))).isfinite().all():
        raise ValueError(f"the prior in {folder} predicts NaN or infinity: its weights are damaged")
    views = prior.views
    seen = f"{views} views together" if views > 1 else "single pictures"
    return [
        f"{folder}: a prior for {seen} at {prior.image_size} pixels ({prior.prediction_type})",
        f"{_millions(prior.network, prior.vae, *prior.text_encoders):.1f} million parameters, complete",
        "one forward pass: finite",
    ]


@torch.no_grad()
def _check_reward(folder: Path) -> list[str]:
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
