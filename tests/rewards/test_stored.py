"""The JSON files beside a reward's weights, where they say what they should not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tiny_models
from rewards.test_original_checkpoints import image_reward_state
from rewardsds.rewards.image_reward import ImageReward
from rewardsds.rewards.load import load_reward
from rewardsds.rewards.original import image_reward_network


def refused(folder: Path, file: str, content: Any, told: str) -> None:
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"{folder / file}{told}") as error:
        load_reward(folder, "cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "file, content, told",
    [
        ("config.json", [1], " holds a list: expected names with values"),
        ("config.json", "clip", " holds a str: expected names with values"),
        ("config.json", {"model_type": 3}, ": model_type is 3: expected text"),
        ("reward.json", [1], " holds a list: expected names with values"),
        ("reward.json", {"scale": True}, r": unknown setting scale \(did you mean scaled\?\)"),
        ("reward.json", {"fit": "strech"}, ": fit is 'strech': expected 'crop', 'pad' or 'stretch'"),
        ("reward.json", {"scaled": "no"}, ": scaled is 'no': expected true or false"),
        ("reward.json", {"processor": 5}, ": processor is 5: expected text"),
        ("preprocessor_config.json", [1], " holds a list: expected names with values"),
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5]}, ": image_mean.2 is missing"),
        (
            "preprocessor_config.json",
            {"image_std": [0.5, 0, 0.5]},
            ": image_std.1 is 0: expected more than 0",
        ),
    ],
)
def test_a_clips_files(tiny_clip_folder: Path, tmp_path: Path, file: str, content: Any, told: str) -> None:
    refused(shutil.copytree(tiny_clip_folder, tmp_path / "clip"), file, content, told)


@pytest.mark.parametrize(
    "content, told", [({"clip": 5}, ": clip is 5: expected text"), ({}, ": clip is missing")]
)
def test_an_aesthetic_heads_configuration(tmp_path: Path, content: dict[str, Any], told: str) -> None:
    save_file({"weight": torch.zeros(1, 16), "bias": torch.zeros(1)}, tmp_path / "model.safetensors")
    refused(tmp_path, "config.json", {"model_type": "aesthetic", **content}, told)


@pytest.mark.parametrize(
    "content, told",
    [
        ({"vision_config": 1}, "/config.json: vision_config is 1: expected names with values"),
        ({"widths": [8, 0, 1]}, "/config.json: widths.1 is 0: expected at least 1"),
        ({"widths": []}, "/config.json: widths is .*expected at least 1 values, got 0"),
        ({"std": 0}, "/config.json: std is 0: expected more than 0"),
        ({"widths": [24, 12]}, "[)]: the MLP's last layer gives 12 numbers, and a score is one"),
        ({"vision_config": {"hidden_size": "wide"}}, " cannot be read: .*hidden_size"),
    ],
)
def test_an_image_rewards_configuration(tmp_path: Path, content: dict[str, Any], told: str) -> None:
    network = image_reward_network(image_reward_state())
    ImageReward(network, tiny_models.tokenizer(), length=9).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **content}))
    with pytest.raises(ValueError, match=f"{tmp_path}{told}") as error:
        load_reward(tmp_path, "cpu")
    assert "\n" not in str(error.value)


def test_an_image_reward_of_whole_numbers(tmp_path: Path) -> None:
    network = image_reward_network(image_reward_state())
    ImageReward(network, tiny_models.tokenizer(), length=9).save_pretrained(tmp_path)
    state = {name: value.to(torch.int32) for name, value in network.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"{tmp_path / 'model.safetensors'} holds int32 weights"):
        load_reward(tmp_path, "cpu")
