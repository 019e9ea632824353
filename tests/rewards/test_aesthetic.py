"""Aesthetic heads: in LAION's two layouts, against arithmetic by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rewardsds.rewards.aesthetic import AestheticReward, load_head
from rewardsds.rewards.clip import CLIPReward
from rewardsds.rewards.load import load_reward

WIDTH = 16


@pytest.fixture(scope="module")
def clip(tiny_clip_folder: Path) -> CLIPReward:
    return CLIPReward.from_pretrained(tiny_clip_folder, "cpu")


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_linear_head_is_an_affine_function_of_the_features(clip: CLIPReward, tmp_path: Path) -> None:
    weight, bias = random(1, WIDTH), random(1)
    torch.save({"weight": weight, "bias": bias}, tmp_path / "sa_0_4_vit_l_14_linear.pth")
    reward = AestheticReward.from_file(clip, tmp_path / "sa_0_4_vit_l_14_linear.pth")
    images = torch.rand(2, 3, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    features = clip.image_features(images.flatten(0, 2)).reshape(2, 3, 2, WIDTH)
    expected = (features @ weight[0] + bias).mean(dim=2)
    torch.testing.assert_close(reward(images, ["", "a", "b"]), expected)


def test_the_mlp_is_one_affine_function(clip: CLIPReward, tmp_path: Path) -> None:
    """Layers 0, 2, 4, 6, 7 as in the file of LAION's v2, whose dropouts have no weights."""
    sizes = {0: (32, WIDTH), 2: (8, 32), 4: (4, 8), 6: (2, 4), 7: (1, 2)}
    state = {}
    for layer, (out, into) in sizes.items():
        state |= {f"layers.{layer}.weight": random(out, into), f"layers.{layer}.bias": random(out)}
    torch.save(state, tmp_path / "v2.pth")
    x = random(5, WIDTH)
    expected = x
    for layer in sizes:
        expected = expected @ state[f"layers.{layer}.weight"].T + state[f"layers.{layer}.bias"]
    torch.testing.assert_close(load_head(tmp_path / "v2.pth")(x), expected, atol=1e-4, rtol=1e-4)


def test_a_folder_names_its_clip(tiny_clip_folder: Path, clip: CLIPReward, tmp_path: Path) -> None:
    save_file({"weight": random(1, WIDTH), "bias": random(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "aesthetic", "clip": str(tiny_clip_folder)})
    )
    images = torch.rand(2, 1, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    direct = AestheticReward.from_file(clip, tmp_path / "model.safetensors")
    assert torch.equal(load_reward(tmp_path, "cpu")(images, [""]), direct(images, [""]))


def test_the_prompt_is_not_read_and_gradient_flows(clip: CLIPReward, tmp_path: Path) -> None:
    save_file({"weight": random(1, WIDTH), "bias": random(1)}, tmp_path / "head.safetensors")
    reward = AestheticReward.from_file(clip, tmp_path / "head.safetensors")
    images = torch.rand(1, 1, 1, 3, 16, 16, requires_grad=True)
    assert torch.equal(reward(images, ["a car"]), reward(images, ["a red apple"]))
    (gradient,) = torch.autograd.grad(reward(images, [""]).sum(), images)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    "state, told",
    [
        ({"weight": (1, 12), "bias": (1,)}, "takes 12 features, this CLIP gives 16"),
        ({"weights": (1, 16)}, "expected weight and bias, or layers.N.weight"),
        ({"layers.0.weight": (1, 16)}, "expected weight and bias, or layers.N.weight"),
        ({"layers.weight": (1, 16)}, "expected weight and bias, or layers.N.weight"),
        ({"layers.a.weight": (1, 16), "layers.a.bias": (1,)}, "expected weight and bias, or layers.N.weight"),
        ({}, "holds no tensors"),
        ({"weight": (16,), "bias": (16,)}, r"weight has shape \(16,\): expected 2 axes"),  # a LayerNorm's
        ({"weight": (1, 16), "bias": (2,)}, r"0.bias \(2,\) instead of \(1,\)"),
        ({"weight": (2, 16), "bias": (2,)}, "its last layer gives 2 numbers, and a score is one"),
        (
            {
                "layers.0.weight": (4, 16),
                "layers.0.bias": (4,),
                "layers.2.weight": (1, 5),
                "layers.2.bias": (1,),
            },
            "a layer takes 5 numbers, and the one before it gives 4",
        ),
    ],
)
def test_files_that_are_no_head(clip: CLIPReward, tmp_path: Path, state: dict, told: str) -> None:
    torch.save({name: torch.zeros(shape) for name, shape in state.items()}, tmp_path / "head.pth")
    with pytest.raises(ValueError, match=told):
        AestheticReward.from_file(clip, tmp_path / "head.pth")


def test_a_damaged_or_missing_file(clip: CLIPReward, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no checkpoint at"):
        AestheticReward.from_file(clip, tmp_path / "nowhere.pth")
    (tmp_path / "head.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is damaged"):
        AestheticReward.from_file(clip, tmp_path / "head.safetensors")
    (tmp_path / "code.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match="would run code"):
        AestheticReward.from_file(clip, tmp_path / "code.pth")
