"""`rewardsds models check`: what is damaged, or was not made for each other, is told before anything is run with it."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from models.test_models_command import checkpoints
from priors.test_single_files import SingleFile
from rewardsds.errors import RewardsdsError
from rewardsds.models.check import check
from rewardsds.priors.load import load_prior
from rewardsds.rewards.clip import CLIPReward
from rewardsds.rewards.load import load_reward


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    xl = folder / "xl.pt"
    torch.save(SingleFile("xl").published(), xl)
    return {**checkpoints(folder), "xl": xl}


RECIPES = ("image-reward", "reward3d", "mvdream", "stable-diffusion", "xl", "hps", "aesthetic")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_file_is_run_once(recipe: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    call = torch.nn.Module.__call__

    def heard(self: Any, *given: Any, **named: Any) -> Any:
        ran.append(type(self).__name__)
        return call(self, *given, **named)

    monkeypatch.setattr(torch.nn.Module, "__call__", heard)
    lines = check(files[recipe])
    assert "one forward pass: finite" in lines
    networks = {
        "image-reward": {"ImageRewardNetwork"},
        "reward3d": {"Reward3DNetwork"},
        "hps": {"CLIPModel"},
        "aesthetic": {"Linear"},
        "xl": {"UNet2DConditionModel", "Decoder", "CLIPTextModel", "CLIPTextModelWithProjection"},
    }
    assert networks.get(recipe, {"UNet2DConditionModel", "Decoder", "CLIPTextModel"}) <= set(ran)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_told(
    recipe: str, value: float, files: dict[str, Path], tmp_path: Path
) -> None:
    state = torch.load(files[recipe], weights_only=True)
    own = state.get("state_dict", state)
    last = [name for name, tensor in own.items() if tensor.is_floating_point() and name.endswith("weight")][
        -1
    ]
    own[last].flatten()[-1] = value
    torch.save(state, tmp_path / "damaged.pt")
    with pytest.raises(
        RewardsdsError, match=r"damaged.pt is damaged: NaN or infinity in .*get it again"
    ) as error:
        check(tmp_path / "damaged.pt")
    assert "\n" not in str(error.value)


def test_numbers_that_overflow_are_told(files: dict[str, Path], tmp_path: Path) -> None:
    """Every weight is finite, and what comes out is not."""
    torch.save({"weight": torch.full((1, 16), 3e38), "bias": torch.zeros(1)}, tmp_path / "large.pt")
    with pytest.raises(RewardsdsError, match=r"large.pt gives NaN or infinity"):
        check(tmp_path / "large.pt")


def test_the_part_of_a_folder_that_no_pass_needs_is_looked_at(
    tiny_prior_folder: Path, tmp_path: Path
) -> None:
    """Its encoder, which only training needs."""
    folder = tmp_path / "prior"
    shutil.copytree(tiny_prior_folder, folder)
    (file,) = (folder / "vae").glob("*.safetensors")
    state = load_file(file)
    name = next(name for name in state if name.startswith("encoder.") and name.endswith("weight"))
    state[name].flatten()[0] = math.nan
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(RewardsdsError, match=f"NaN or infinity in {name}"):
        check(folder)


def test_a_folder_for_inpainting_is_told(tiny_prior_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "prior"
    shutil.copytree(tiny_prior_folder, folder)
    config = {**load_prior(folder, "cpu").network.config, "in_channels": 9}
    unet: Any = UNet2DConditionModel.from_config(config)
    unet.save_pretrained(folder / "unet")
    with pytest.raises(RewardsdsError, match="network takes 9 channels") as error:
        check(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_a_file_for_inpainting_is_told(kind: Any, tmp_path: Path) -> None:
    state = SingleFile(kind).published()
    name = "model.diffusion_model.input_blocks.0.0.weight"
    wide = torch.zeros(len(state[name]), 9, 3, 3)
    torch.save({**state, name: wide}, tmp_path / "inpainting.ckpt")
    with pytest.raises(RewardsdsError, match="network takes 9 channels"):
        check(tmp_path / "inpainting.ckpt")


@pytest.mark.parametrize(
    "name", ["clip", "aesthetic", "image-reward", "clip-l", "clip + aesthetic", "own:name"]
)
def test_a_folder_with_the_name_of_a_reward_is_what_is_checked(
    name: str, tiny_clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_clip_folder, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for path in (Path(name), Path(f"./{name}")):
        assert check(path)[0] == f"{name}: a reward (CLIPReward), complete"
        reward = load_reward(path, "cpu")
        assert isinstance(reward, CLIPReward)
        assert reward.model.config.projection_dim == 16  # and not the toybox's


def test_a_folder_with_the_name_of_the_toybox_is_what_is_checked(
    tiny_prior_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_prior_folder, tmp_path / "toybox")
    monkeypatch.chdir(tmp_path)
    assert "at 16 pixels" in check(Path("toybox"))[0]


def test_a_path_is_never_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("clip", "clip-l", "openai/clip-vit-large-patch14"):
        with pytest.raises(ValueError, match=f"no reward at {tmp_path / name}: give"):
            load_reward(Path(name), "cpu")
